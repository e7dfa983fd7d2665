"""Fingerprints: sha256 digests of data, weights, parameters and code.

Two things with the same digest are the same for every purpose of this project, so a digest can serve as the
address of a result (:mod:`xaicore.run.store`) and as provenance in a record (:mod:`xaicore.run.records`).
"""

import ast
import dataclasses
import hashlib
import importlib.util
import inspect
import struct
import textwrap
import threading
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

PACKAGE = "xaicore"

# Up to 3.11.7, CPython counts the depth of the syntax tree it builds in one place for all threads, and two
# threads that parse at once can end in a SystemError (python/cpython issue 106905).
_PARSING = threading.RLock()


def digest(*things: Any) -> str:
    """Return the sha256 digest (64 hex characters) of the content of ``things``.

    Understands ``None``, booleans, numbers, strings, bytes, tensors and arrays (dtype, shape and bytes),
    lists, tuples, mappings (order of keys does not matter), dataclasses, paths (the bytes of the file) and
    everything that has a ``fingerprint`` attribute.

    Raises:
        TypeError: a thing has no stable content.
    """
    state = hashlib.sha256()
    for thing in things:
        _feed(state, thing)
    return state.hexdigest()


def _feed(state: Any, thing: Any) -> None:
    if isinstance(thing, (np.integer, np.bool_)):
        thing = thing.item()
    if thing is None or isinstance(thing, (bool, int, str)):
        _frame(state, type(thing).__name__, repr(thing).encode())
    elif isinstance(thing, (float, np.floating)):
        _frame(state, "float", struct.pack("<d", float(thing)))
    elif isinstance(thing, bytes):
        _frame(state, "bytes", thing)
    elif isinstance(thing, torch.Tensor):
        if thing.dtype == torch.bfloat16:
            _frame(state, "bfloat16", b"")
        _feed(state, _as_array(thing))
    elif isinstance(thing, np.ndarray):
        if thing.dtype.hasobject:
            raise TypeError("no stable digest of an array of objects")
        _frame(state, f"array {thing.dtype.str} {thing.shape}", raw_bytes(thing))
    elif isinstance(getattr(thing, "fingerprint", None), str):
        _frame(state, "fingerprint", thing.fingerprint.encode())
    elif isinstance(thing, Path):
        with thing.open("rb") as file:
            _frame(state, "file", hashlib.file_digest(file, "sha256").digest())
    elif dataclasses.is_dataclass(thing) and not isinstance(thing, type):
        _frame(state, "dataclass", type(thing).__name__.encode())
        _feed(state, {field.name: getattr(thing, field.name) for field in dataclasses.fields(thing)})
    elif isinstance(thing, Mapping):
        _frame(state, "mapping", str(len(thing)).encode())
        for key in sorted(thing, key=repr):
            _feed(state, key)
            _feed(state, thing[key])
    elif isinstance(thing, (list, tuple)):
        _frame(state, "sequence", str(len(thing)).encode())
        for item in thing:
            _feed(state, item)
    else:
        raise TypeError(f"no stable digest of a {type(thing).__name__}")


def raw_bytes(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array in C order, without a copy where it lies so already."""
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def checksum(tensor: torch.Tensor) -> list[Any]:
    """Return type, shape and CRC-32 of a tensor: tells a change or damage, ten times as fast as sha256.

    It is no address: two tensors in 4 billion have the same by chance, and any two by intent.
    """
    return [str(tensor.dtype), list(tensor.shape), zlib.crc32(raw_bytes(_as_array(tensor)))]


def _as_array(tensor: torch.Tensor) -> NDArray[Any]:
    """Return a tensor as an array; bfloat16, unknown to numpy, as the integers of its bits."""
    plain = tensor.detach().cpu().contiguous()
    array: NDArray[Any] = (plain.view(torch.int16) if plain.dtype == torch.bfloat16 else plain).numpy()
    return array


def _frame(state: Any, kind: str, content: bytes | memoryview) -> None:
    state.update(f"{kind}:{len(content)}:".encode())
    state.update(content)


def module_fingerprint(module: torch.nn.Module) -> str:
    """Return a module's own ``fingerprint``, or the sha256 (hex) of all that it computes with where it has none.

    That is layers, weights and buffers, and of each part the code of its class and those attributes that have a digest.
    """
    own = getattr(module, "fingerprint", None)
    return own if isinstance(own, str) else digest(repr(module), dict(module.state_dict()), _parts(module))


def _parts(module: torch.nn.Module) -> list[Any]:
    """Return what a module and its parts consist of beside what is in their ``state_dict``."""
    own = getattr(module, "fingerprint", None)
    if isinstance(own, str):
        return [own]
    attributes = {}
    for name in sorted(vars(module).keys() - vars(torch.nn.Module()).keys()):
        value = vars(module)[name]
        with suppress(TypeError, OSError):
            attributes[name] = code_digest(value) if inspect.isfunction(value) else digest(value)
    children = {name: _parts(each) for name, each in module.named_children()}
    return [_class_code(type(module)), attributes, dict(module._buffers), children]


def _class_code(kind: type) -> list[Any]:
    """Return the code of a class as things that have a digest; of PyTorch's own the name alone."""
    if kind.__module__.partition(".")[0] in ("torch", "torchvision"):
        return [f"{kind.__module__}.{kind.__qualname__}"]
    if _is_ours(kind.__module__):
        return [code_digest(kind)]
    found: list[Any] = [kind.__qualname__]
    for name, value in vars(kind).items():
        if inspect.isfunction(value):
            try:
                found.append([name, code_digest(value)])
            except TypeError:  # it uses what has no digest: the code alone
                found.append([name, value.__code__.co_code, list(value.__code__.co_names)])
    return [*found, *(_class_code(base) for base in kind.__bases__)]


def code_digest(function: Callable[..., Any]) -> str:
    """Return the digest of the code behind ``function``: its module and every ``xaicore`` module that this
    one imports.

    Comments, docstrings and layout do not count. For a function that lives outside the package, say in a
    notebook, its own source counts, together with what it names: plain values, other such functions, and
    ``xaicore`` modules.

    Raises:
        TypeError: the function has no source, or it uses a global or enclosing value that has no digest.
    """
    module = getattr(function, "__module__", None) or ""
    with _PARSING:
        if _is_ours(module):
            return digest(function.__qualname__, _closure_digest(module))
        return digest(_outside(function, set()))


def source_digest(source: str) -> str:
    """Return the digest of Python source, such as the joined code cells of a notebook: the code itself and the
    ``xaicore`` modules that it imports or names.
    """
    with _PARSING:
        tree = _without_docstrings(ast.parse(source))
        modules = _imports(tree, "__main__", is_package=False) | _dotted_modules(tree, {PACKAGE: PACKAGE})
        return digest(ast.dump(tree), {name: _closure_digest(name) for name in sorted(modules)})


def _is_ours(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _outside(function: Callable[..., Any], seen: set[int]) -> list[Any]:
    """Return what a function outside the package consists of, as things that have a digest."""
    seen.add(id(function))
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
        scope = {**function.__globals__, **inspect.getclosurevars(function).nonlocals}  # type: ignore[attr-defined]
    except (OSError, TypeError, SyntaxError) as error:
        raise TypeError(
            f"the source of {getattr(function, '__qualname__', function)!r} cannot be read"
        ) from error
    tree = _without_docstrings(tree)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} & set(scope)
    bound = {
        name: value.__name__ for name, value in scope.items() if name in names and inspect.ismodule(value)
    }
    modules = _dotted_modules(tree, bound) | _imports(tree, "__main__", is_package=False)
    parts: list[Any] = [
        ast.dump(tree),
        *(getattr(function, each, None) for each in ("__defaults__", "__kwdefaults__")),
    ]
    for name in sorted(names):
        value = scope[name]
        home = getattr(value, "__module__", None) or ""
        if inspect.ismodule(value) or id(value) in seen:
            continue
        if callable(value) and isinstance(home, str) and hasattr(value, "__qualname__"):
            if _is_ours(home):
                modules.add(home)
            elif inspect.isfunction(value) and home == getattr(function, "__module__", None):
                parts.append([name, _outside(value, seen)])
            continue
        try:
            parts.append([name, digest(value)])
        except TypeError as error:
            raise TypeError(
                f"{function.__qualname__} uses {name}, whose content has no digest; pass it as a constant"
            ) from error
    return [*parts, {name: _closure_digest(name) for name in sorted(modules)}]


def _dotted_modules(tree: ast.AST, bound: Mapping[str, str]) -> set[str]:
    """Return the ``xaicore`` modules that dotted names such as ``xaicore.attacks.fgsm`` in some code lead into.

    In ``bound`` are the names that stand for modules → the full name of the module.
    """
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Name, ast.Attribute)):
            first, *attributes = ast.unparse(node).split(".")
            name = bound.get(first, "")
            while _is_ours(name) and _is_module(name):
                found.add(name)
                name = f"{name}.{attributes.pop(0)}" if attributes else ""
    return found


@cache
def _closure_digest(module: str) -> str:
    seen: dict[str, str] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name not in seen and (read := _read(name)) is not None:
            seen[name], imports = read
            waiting.extend(imports)
    return digest(seen)


@cache
def _read(module: str) -> tuple[str, frozenset[str]] | None:
    """Return the digest of a module's own code and the ``xaicore`` modules that it imports; None without a file."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    imports = _imports(tree, module, is_package=spec.submodule_search_locations is not None)
    return hashlib.sha256(ast.dump(_without_docstrings(tree)).encode()).hexdigest(), frozenset(imports)


def _imports(tree: ast.Module, module: str, *, is_package: bool) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.split(".")
                base = ".".join([*parts[: len(parts) - node.level + is_package], base]).rstrip(".")
            found.add(base)
            found.update(f"{base}.{alias.name}" for alias in node.names)
    return {name for name in found if _is_ours(name) and _is_module(name)}


@cache
def _is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        if not isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        if ast.get_docstring(node, clean=False) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return tree
