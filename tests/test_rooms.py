"""The order of the rooms: a module imports rooms to its left and ``core`` only, and there is no circle."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import xaicore

ROOT = Path(xaicore.__file__).parent
ROOMS = (
    "core", "data", "models", "attacks", "attribution", "metrics", "defenses", "detectors", "studies", "figures", "run",
    "book",
)  # fmt: skip
FILES = {
    ".".join(("xaicore", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


def _statements(node: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports that run: all but those for types, which no module needs when it runs."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING":
            continue
        if isinstance(child, (ast.Import, ast.ImportFrom)):
            yield child
        yield from _statements(child)


def _imports(name: str) -> set[str]:
    found = set()
    for statement in _statements(ast.parse(FILES[name].read_text(encoding="utf-8"))):
        if isinstance(statement, ast.Import):
            found |= {alias.name for alias in statement.names}
        else:
            assert not statement.level, f"{name}: relative import"
            base = statement.module or ""
            named = {f"{base}.{alias.name}" for alias in statement.names}
            found |= {full if full in FILES else base for full in named}
    return {module for module in found if module in FILES}


def _room(name: str) -> str:
    return name.split(".")[1]


def test_no_module_lies_loose_and_every_room_has_its_place() -> None:
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]
    assert {path.parent.name for path in ROOT.glob("*/__init__.py")} == set(ROOMS)


def test_rooms_import_what_lies_to_their_left() -> None:
    wrong = [
        f"{name} imports {other}"
        for name in FILES
        for other in _imports(name)
        if "." in name and "." in other and ROOMS.index(_room(other)) > ROOMS.index(_room(name))
    ]
    assert not wrong, wrong


def test_defences_and_detectors_ask_attacks_for_attacks_only() -> None:
    """Checks, randomness and batches are of ``core``; each of these modules makes an attack or takes one's result."""
    found = {
        name
        for name in FILES
        if name.count(".") == 2 and _room(name) in ("defenses", "detectors")
        if any(other.startswith("xaicore.attacks") for other in _imports(name))
    }
    assert found == {
        "xaicore.defenses.adaptive",
        "xaicore.defenses.robust_training",
        "xaicore.defenses.retraining",
        "xaicore.detectors.adaptive",
    }


def test_no_module_is_part_of_a_circle() -> None:
    graph = {name: {other for other in _imports(name) if other != name} for name in FILES}
    for name in graph:  # a package gathers what lies in it
        graph[name] = {other for other in graph[name] if not name.startswith(f"{other}.")}
    list(TopologicalSorter(graph).static_order())
