"""The Colab cell: nothing elsewhere, one installation there, one clear line where there is no address.

First in this process with nothing but its parts replaced, then in an environment like Colab's: another interpreter
that has torch and the other packages, a module ``google.colab`` and no xaicore.
"""

import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import types
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import xaicore
from tests import make_locks
from xaicore.run.repository import public_repository

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


def test_it_is_the_same_in_every_notebook() -> None:
    assert len({bootstrap(path) for path in NOTEBOOKS}) == 1


def test_without_an_address_it_says_what_to_do(commands: list[list[str]], colab: None) -> None:
    with pytest.raises(SystemExit, match="pip install -q -c attacks-explained/constraints-colab"):
        exec(bootstrap(NOTEBOOKS[0]), {})
    assert commands == []


def test_with_an_address_it_installs_the_tag_under_the_lock_and_keeps_what_colab_has_loaded(
    commands: list[list[str]], colab: None
) -> None:
    source = bootstrap(NOTEBOOKS[0]).replace('_repository = ""', '_repository = "https://github.com/a/book"')
    exec(source, {})
    *git, pip = commands
    assert all(command[0] == "git" for command in git)
    assert git[1][-2:] == ["https://github.com/a/book", f"v{xaicore.__version__}"]
    words = iter(pip[pip.index("install") + 1 :])
    given = [word if word != "-c" else f"-c {next(words)}" for word in words]
    lock = make_locks.ROOT / "constraints-colab.txt"
    assert given[:3] == ["-q", f"-c attacks-explained/{lock.name}", "./attacks-explained"]
    kept = dict(pin.split("==") for pin in given[3:])
    assert {"torch", "torchvision", "numpy"} <= kept.keys() <= set(make_locks.LOADED)
    assert kept == {name: importlib.metadata.version(name) for name in kept}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_its_address_is_the_projects(path: Path) -> None:
    import tomllib

    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"].get("urls", {})
    assert f'_repository = "{urls.get("Repository", "")}"' in bootstrap(path)
    assert not urls or public_repository(ROOT)


class Colab:
    """A virtual environment with the packages of this one, as links, but without xaicore."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        packages = folder / "preinstalled"
        packages.mkdir()
        for entry in Path(sysconfig.get_paths()["purelib"]).iterdir():
            if "xaicore" not in entry.name.lower() and entry.suffix != ".pth":
                (packages / entry.name).symlink_to(entry)
        module = folder / "module" / "google" / "colab"
        module.mkdir(parents=True)
        (module / "__init__.py").touch()
        subprocess.run(
            [sys.executable, "-m", "venv", "--without-pip", str(folder / "environment")], check=True
        )
        self.python = folder / "environment" / "bin" / "python"
        own = next((folder / "environment").rglob("site-packages"))
        (own / "preinstalled.pth").write_text(f"{packages}\n{folder / 'module'}\n")

    def run(self, *sources: str) -> subprocess.CompletedProcess[str]:
        """Run a notebook of these cells, without a network and with what pip builds built by what is installed."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "PIP_"))}
        offline = {
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",  # which is pip's way of saying: yes, without isolation
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
            "PIP_NO_COMPILE": "1",
        }
        script = self.folder / "notebook.py"
        script.write_text("\n".join(["import google.colab", *sources]), encoding="utf-8")
        command = [str(self.python), str(script)]
        return subprocess.run(
            command, cwd=self.folder, env={**kept, **offline}, capture_output=True, text=True, check=False
        )


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Colab:
    return Colab(tmp_path_factory.mktemp("colab"))


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository of the package at its tag, whose lock for Colab names the versions that are here.

    The tag ``broken`` has a lock that nothing here fits.
    """
    folder = tmp_path_factory.mktemp("repository")
    shutil.copytree(ROOT / "xaicore", folder / "xaicore", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE", "LICENSE-TEXT"):
        shutil.copy(ROOT / name, folder)
    lock = folder / "constraints-colab.txt"
    names = [Requirement(line).name for line in (ROOT / lock.name).read_text(encoding="utf-8").splitlines()]
    here = {canonicalize_name(each.name) for each in importlib.metadata.distributions()}
    if missing := sorted({canonicalize_name(name) for name in names} - here):
        pytest.skip(f"the environment is not the lock's: {', '.join(missing)} not installed")
    lock.write_text("".join(f"{name}=={importlib.metadata.version(name)}\n" for name in names))
    git = ["git", "-C", str(folder), "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (
        ["init", "-q"],
        ["add", "."],
        ["commit", "-q", "-m", "x"],
        ["tag", f"v{xaicore.__version__}"],
    ):
        subprocess.run([*git, *command], check=True)
    lock.write_text("scipy==1.0\n")
    for command in (["commit", "-q", "-a", "-m", "x"], ["tag", "broken"]):
        subprocess.run([*git, *command], check=True)
    return folder


def test_in_a_bare_environment_without_an_address_it_stops(bare: Colab) -> None:
    done = bare.run(bootstrap(NOTEBOOKS[0]), "print('went on')")
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("upload the project's folder and run: %pip install")
    assert done.stdout == ""


def test_in_a_bare_environment_it_does_not_install_past_the_lock(bare: Colab, repository: Path) -> None:
    cell = bootstrap(NOTEBOOKS[0]).replace('_repository = ""', f'_repository = "{repository.as_uri()}"')
    done = bare.run(cell.replace(f'_tag = "v{xaicore.__version__}"', '_tag = "broken"'), "print('went on')")
    assert done.returncode == 1
    assert "conflicting dependencies" in done.stderr
    assert done.stdout == ""


def test_in_a_bare_environment_it_installs_once_and_the_notebook_runs(bare: Colab, repository: Path) -> None:
    path = ROOT / "notebooks" / "p1_inspecting_attacks.ipynb"
    cell = bootstrap(path).replace('_repository = ""', f'_repository = "{repository.as_uri()}"')
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    start = next(k for k, one in enumerate(cells) if "parameters" in one["metadata"].get("tags", []))
    following = ["".join(one["source"]) for one in cells[start : start + 3] if one["cell_type"] == "code"]
    assert any("resolve(globals())" in source for source in following)
    look = "import xaicore, torch; print(xaicore.__file__, torch.__file__, params.torch_device, sep='\\n')"
    done = bare.run(cell, *following, look)
    assert done.returncode == 0, done.stderr
    package, torch, device = done.stdout.splitlines()[-3:]
    assert Path(package).is_relative_to(bare.folder / "environment")
    assert Path(torch).is_relative_to(bare.folder / "preinstalled"), "torch must stay the one that was there"
    assert device in ("cpu", "cuda")
    shutil.rmtree(repository / ".git")
    again = bare.run(cell, "import xaicore; print(xaicore.__version__)")
    assert (again.returncode, again.stdout.strip()) == (0, xaicore.__version__), (
        "a second time it does nothing"
    )
