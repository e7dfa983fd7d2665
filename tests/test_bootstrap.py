"""The Colab cell: nothing elsewhere, one installation there, one clear line where there is no address."""

import importlib.util
import json
import subprocess
import sys
import types
from pathlib import Path

import pytest

import xaicore
from xaicore.book.project import repository_address

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def bootstrap(path: Path) -> str:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    (cell,) = [cell for cell in cells if "bootstrap" in cell["metadata"].get("tags", [])]
    return "".join(cell["source"])


@pytest.fixture
def commands(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    return ran


@pytest.fixture
def colab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_elsewhere_it_does_nothing(path: Path, commands: list[list[str]]) -> None:
    exec(bootstrap(path), {})
    assert commands == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_without_an_address_it_says_what_to_do(path: Path, commands: list[list[str]], colab: None) -> None:
    with pytest.raises(SystemExit, match="pip install"):
        exec(bootstrap(path), {})
    assert commands == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_with_an_address_it_installs_the_tag_and_no_torch(
    path: Path, commands: list[list[str]], colab: None
) -> None:
    source = bootstrap(path).replace('_repository = ""', '_repository = "https://github.com/someone/book"')
    exec(source, {})
    (command,) = commands
    assert command[-1] == f"git+https://github.com/someone/book@v{xaicore.__version__}"
    assert not any("torch" in word for word in command)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_address_is_the_projects(path: Path) -> None:
    import tomllib

    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    assert f'_repository = "{urls.get("Repository", "")}"' in bootstrap(path)
    assert not urls or repository_address(ROOT)
