"""The pins, their hashes, and what is made of them: environment.yml, the container, the workflows."""

import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests import make_locks

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
HASHED = (ROOT / "constraints-hashed.txt").read_text(encoding="utf-8").splitlines()
COLAB = ROOT / "constraints-colab.txt"
CONTAINER = ROOT / ".devcontainer" / "Dockerfile"
WORKFLOWS = ROOT / ".github" / "workflows"


def test_the_hashed_lock_has_the_pins_of_the_lock() -> None:
    found = {}
    for line in HASHED:
        pin, *hashes = line.split(" --hash=")
        assert hashes, line[:60]
        assert all(re.fullmatch("sha256:[0-9a-f]{64}", each) for each in hashes), line[:60]
        requirement = Requirement(pin)
        found[canonicalize_name(requirement.name)] = requirement
    wanted = make_locks.pins()
    assert {name: each.specifier for name, each in found.items()} == {
        n: e.specifier for n, e in wanted.items()
    }
    for name, pin in wanted.items():
        for version, platform in (
            ("3.11", "linux"),
            ("3.12", "linux"),
            ("3.13", "linux"),
            ("3.13", "darwin"),
        ):
            here = {
                "python_version": version,
                "python_full_version": f"{version}.7",
                "sys_platform": platform,
            }
            ours, locked = (each is None or each.evaluate(here) for each in (pin.marker, found[name].marker))
            assert ours == locked, (name, here)


@pytest.mark.parametrize(
    "name", ["constraints.txt", "constraints-hashed.txt", "constraints-colab.txt", "environment.yml"]
)
def test_no_lock_names_an_index(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"://|--[a-z-]*index|--find-links", text)


def test_the_environment_is_installed_from_files_with_these_hashes() -> None:
    answer = subprocess.run(
        ["make", "--dry-run", "--always-make", "VENV=elsewhere", "elsewhere/.cluster"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"]},
    )
    commands = re.split(r"[|;&]+|\n", answer.stdout.replace("\\\n", " "))
    calls = [command for command in commands if " pip install " in command]
    assert len(calls) == 6
    for call in calls:
        locked = "--require-hashes" in call and "--no-deps" in call
        editable = "--no-build-isolation" in call and "--constraint constraints.txt --editable" in call
        assert locked != editable, call
    (pattern,) = set(re.findall(r"grep -v?E '([^']+)'", answer.stdout))
    ray = [Requirement(line.split(" --hash=")[0]).name for line in HASHED if re.search(pattern, line)]
    assert sorted(ray) == ["grpcio", "msgpack", "protobuf", "ray"]
    builds = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    for requirement in map(Requirement, builds):
        (pin,) = make_locks.pins()[requirement.name].specifier
        assert requirement.specifier.contains(pin.version), "without isolation it is built with this one"


def test_environment_yml_is_made_of_pyproject_and_the_lock() -> None:
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert text == make_locks.environment(), "run: python -m tests.make_locks"
    *conda, of_pip = yaml.safe_load(text)["dependencies"]
    pip = of_pip["pip"]
    assert pip[-1] == "-e .", "pip takes no options of its own in a file of requirements"
    theirs = {name: ours for ours, name in make_locks.CONDA.items()}
    listed = {}
    for line in [*conda[2:], *pip[:-1]]:
        name, bounds = re.fullmatch(r"([\w-]+)(.*)", line).groups()  # type: ignore[union-attr]
        listed[theirs.get(name, name)] = Requirement(f"x{bounds}").specifier
    wanted = {canonicalize_name(each.name): each for each in map(Requirement, PROJECT["dependencies"])}
    assert listed.keys() == wanted.keys()
    for name, specifier in listed.items():
        (pin,) = make_locks.pins()[name].specifier
        assert specifier.contains(pin.version), name
        (minor,) = [b.version for b in wanted[name].specifier if b.operator == ">="]
        assert specifier.contains(minor) or name.startswith(make_locks.PIP_ONLY), name
        assert not specifier.contains("999"), f"{name} may be newer than what was tried"


def test_the_lock_for_colab_pins_what_the_package_needs_but_for_what_is_loaded_there() -> None:
    lines = COLAB.read_text(encoding="utf-8").splitlines()
    locked = {canonicalize_name(each.name): each for each in map(Requirement, lines)}
    assert locked == {name: make_locks.pins()[name] for name in locked}
    direct = {canonicalize_name(each.name): each for each in map(Requirement, PROJECT["dependencies"])}
    apart = direct.keys() - locked.keys()
    assert {"torch", "torchvision", "numpy"} <= apart
    assert apart <= {*make_locks.LOADED, *make_locks.UNLOCKED, "jupyter-client", "packaging"}
    assert not [name for name in locked if re.match("nvidia|cuda|triton", name)]
    if not all(pin.specifier.contains(importlib.metadata.version(name)) for name, pin in locked.items()):
        pytest.skip("what needs what is known of the versions of the lock, and others are installed")
    assert "\n".join(lines) + "\n" == make_locks.colab(), "run: python -m tests.make_locks"
    lowest = {name: next(b.version for b in direct[name].specifier if b.operator == ">=") for name in apart}
    for name in locked:
        for wanted in map(Requirement, importlib.metadata.requires(name) or []):
            other = canonicalize_name(wanted.name)
            if other in lowest and (not wanted.marker or wanted.marker.evaluate(make_locks.COLAB)):
                assert wanted.specifier.contains(lowest[other]), f"{name} would replace Colab's {other}"


def test_the_container_has_the_environment_of_the_lock() -> None:
    text = CONTAINER.read_text(encoding="utf-8")
    (place,) = re.findall(r"MAKEFLAGS=VENV=(\S+)", text)
    assert f"RUN make {place}/.installed" in text
    assert f"PATH={place}/bin:" in text
    assert not re.search(r"pip install|conda|uv ", text), "it installs by the Makefile alone"
    settings = json.loads((CONTAINER.parent / "devcontainer.json").read_text(encoding="utf-8"))
    assert (CONTAINER.parent / settings["build"]["dockerfile"]) == CONTAINER
    assert (CONTAINER.parent / settings["build"]["context"]).resolve() == ROOT
    assert settings["postCreateCommand"] == f"make {place}/.installed"
    assert f"WORKDIR {settings['workspaceFolder']}\n" in text
    answer = subprocess.run(
        ["make", "--dry-run", f"{place}/.installed"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": os.environ["PATH"], "MAKEFLAGS": f"VENV={place}"},
    )
    assert f"{place}/bin/python -m pip install" in answer.stdout
    (version,) = re.findall(r"^FROM python:(\S+)$", text, re.MULTILINE)
    assert version == PROJECT["requires-python"].removeprefix(">=")
    kept = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".venv", "_build", "runs"} <= set(kept)
    assert not [name for name in kept if (ROOT / name).is_file() and name != ".git"]


def test_binder_builds_from_environment_yml() -> None:
    """Which it leaves aside where one of these is there."""
    assert not [name for name in ("Dockerfile", "binder", ".binder") if (ROOT / name).exists()]


def jobs(name: str) -> dict:
    return yaml.safe_load((WORKFLOWS / name).read_text(encoding="utf-8"))


def test_ci_tries_the_lock_on_every_python() -> None:
    tried = jobs("tests.yml")["jobs"]["tests"]["strategy"]["matrix"]["python"]
    assert tried == ["3.11", "3.12", "3.13"]
    for job in ("tests", "cluster"):
        for step in jobs("tests.yml")["jobs"][job]["steps"]:
            assert (
                step.get("with", {}).get("cache-dependency-path", "constraints-hashed.txt")
                == "constraints-hashed.txt"
            )


def load_colab() -> types.ModuleType:
    spec = importlib.util.spec_from_file_location("colab", ROOT / ".ci" / "colab.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_weekly_run_as_on_colab_takes_the_notebooks_own_cell(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    found = jobs("colab.yml")
    assert found[True]["schedule"][0]["cron"].endswith("* * 1")
    job = found["jobs"]["colab"]
    assert job["container"] == "python:3.13"
    commands = "\n".join(step.get("run", "") for step in job["steps"])
    assert not re.search(r"xaicore|constraints|-e \.", commands), (
        "it has no project but what the cell installs"
    )
    (script, notebook) = re.findall(r"\$GITHUB_WORKSPACE/([\w./]+)", commands)
    assert (ROOT / script).is_file()
    colab, path = load_colab(), ROOT / notebook
    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda command, check: ran.append(command))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
    exec(colab.first_cell(path, "https://example.org/a/b", "0123abc"), {})
    assert [command[-2:] for command in ran if "fetch" in command] == [["https://example.org/a/b", "0123abc"]]
    quick = yaml.safe_load((ROOT / "editions" / "quick.yml").read_text(encoding="utf-8"))["notebooks"][
        path.stem
    ]
    assert json.loads(colab.run(path)[-1]) == quick["parameters"]
    other = tmp_path / "n.ipynb"
    other.write_text(path.read_text(encoding="utf-8").replace("_tag = ", "_version = "), encoding="utf-8")
    with pytest.raises(SystemExit, match="does not set _tag"):
        colab.first_cell(other, "https://example.org/a/b", "0123abc")
