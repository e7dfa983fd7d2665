"""What runs on a node: a process that keeps models and computes one batch at a time.

Everything travels as bytes of :func:`pack`, so that a tensor of a GPU finds the GPU of the worker, whatever its number.
"""

import hashlib
import io
import sys
import sysconfig
import time
import traceback
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import threadpoolctl
import torch

import xaicore
from xaicore.errors import UserError
from xaicore.store import LIBRARIES, plain, versions

MODELS = 2
"""Models that a worker keeps, beside those of the step it works on."""


class Job(NamedTuple):
    """What all batches of a step have in common.

    Attributes:
        key: tells steps apart.
        step: its name.
        rest: reference to the packed function and constants, without the models.
        models: name of the constant → key and reference of the packed model.
    """

    key: str
    step: str
    rest: Any
    models: dict[str, tuple[str, Any]]


@dataclass(frozen=True)
class Failure:
    """An exception of the function: packed if it can be, what it said, and where it was raised."""

    packed: bytes | None
    text: str
    trace: str

    def error(self) -> Exception:
        """Return the exception, as it would have come out of the function here."""
        try:
            found = unpack(self.packed) if self.packed is not None else None
        except Exception:  # its class cannot be built from what was kept of it
            found = None
        error = found if isinstance(found, Exception) else RuntimeError(self.text)
        if not isinstance(error, UserError):  # which is one line
            error.add_note(f"raised in a worker of the cluster:\n{self.trace}")
        return error


class Worker:
    """The actor.

    Args:
        threads: CPU threads of torch and of the linear algebra below it, as many as the driver has.
    """

    def __init__(self, threads: int) -> None:
        torch.set_num_threads(threads)
        self._limits = threadpoolctl.threadpool_limits(threads)
        self._models: OrderedDict[str, Any] = OrderedDict()
        self._job = ""
        self._function: Callable[..., Mapping[str, Any]]
        self._constants: dict[str, Any] = {}

    def differs(self, driver: Mapping[str, str]) -> str | None:
        """Return in what this node is other than the ``driver``, None if its results are the same."""
        here = surroundings()
        for name in sorted({*driver, *here}):
            if driver.get(name) != here.get(name):
                if name == "xaicore":
                    return "the code of xaicore is another"
                return f"{name} is {here.get(name, 'missing')}, not {driver.get(name, 'missing')}"
        return None

    def compute(self, job: Job, batch: bytes) -> tuple[dict[str, Any], float] | Failure:
        """Return what the function makes of a packed batch, and in how many seconds; or why it does not."""
        try:
            self._prepare(job)
            arrays = unpack(batch)
            begin = time.perf_counter()
            content = plain(job.step, self._function(**arrays, **self._constants))
            return content, time.perf_counter() - begin
        except Exception as error:
            trace = "".join(traceback.format_exception(error)).rstrip()
            try:
                packed = pack(error).content
            except Exception:  # an exception may hold what cannot travel
                packed = None
            return Failure(packed, f"{type(error).__name__}: {error}", trace)

    def _prepare(self, job: Job) -> None:
        if job.key == self._job:
            return
        import ray

        self._job, self._constants = "", {}
        wanted = {key for key, _ in job.models.values()}
        spare = [key for key in self._models if key not in wanted]
        for key in spare[: max(0, len(spare) - MODELS)]:
            del self._models[key]
        for key, reference in job.models.values():
            if key not in self._models:
                self._models[key] = unpack(ray.get(reference))
            self._models.move_to_end(key)
        self._function, constants = unpack(ray.get(job.rest))
        self._constants = {**constants, **{name: self._models[key] for name, (key, _) in job.models.items()}}
        self._job = job.key


@cache
def surroundings() -> dict[str, str]:
    """Return what results depend on beside their inputs and what a node can have otherwise: versions and our code."""
    folder = Path(xaicore.__file__).parent
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if not name.startswith("book/"):
            state.update(f"{name}:{path.stat().st_size}:".encode() + path.read_bytes())
    return {**versions(LIBRARIES), "xaicore": state.hexdigest()}


class Packed(NamedTuple):
    """Bytes for another process, and the kinds of devices that the tensors in them lie on."""

    content: bytes
    devices: frozenset[str]


def pack(thing: Any) -> Packed:
    """Return ``thing`` as bytes; functions of notebooks are carried along, those of modules named."""
    from ray import cloudpickle

    devices: set[str] = set()

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, torch.Tensor):
                devices.add(obj.device.type)
            return super().reducer_override(obj)

    file = io.BytesIO()
    torch.save(thing, file, pickle_module=SimpleNamespace(__name__="cloudpickle", Pickler=Pickler))
    return Packed(file.getvalue(), frozenset(devices))


def unpack(content: bytes) -> Any:
    """Return what :func:`pack` was given; what lay on a GPU lies on the first one this process may use."""
    return torch.load(io.BytesIO(content), map_location=_here, weights_only=False)


def _here(storage: Any, location: str) -> Any:
    return storage.cuda() if location.startswith("cuda") else storage


@contextmanager
def carried_along(function: Callable[..., Any]) -> Iterator[None]:
    """Let :func:`pack` carry the code of the module of ``function`` where nodes do not have it: it is not installed."""
    from ray import cloudpickle

    name = getattr(function, "__module__", None) or ""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    installed = [Path(sysconfig.get_path(kind)).resolve() for kind in ("stdlib", "purelib", "platlib")]
    if (
        module is None
        or file is None
        or name.split(".")[0] in ("xaicore", "__main__")
        or any(folder in Path(file).resolve().parents for folder in installed)
    ):
        yield
        return
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)
