"""``xaibook doctor``: what this machine can run and what is missing, in plain words."""

import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import xaicore.data
import xaicore.models
from xaicore.book.running.editions import Edition, edition_names, load_edition, on_cores
from xaicore.core.errors import UserError
from xaicore.core.files import nearest
from xaicore.data import SETS, ImageSet
from xaicore.run.engine import cores
from xaicore.run.store import default_root

DISK_BYTES = 2 * 2**30
FOLDER_SETS = [name for name, spec in SETS.items() if spec.read_root is not None and name != "folder"]
KERNEL_TEST = """
import nbformat
from nbclient import NotebookClient
from xaicore.book.running.kernel import OwnKernel
NotebookClient(nbformat.v4.new_notebook(), kernel_manager_class=OwnKernel, startup_timeout=60).execute()
"""


class Finding(NamedTuple):
    """One line of the report; its mark is ``ok``, ``note`` (worth knowing) or ``missing`` (something cannot run)."""

    mark: str
    text: str

    def __str__(self) -> str:
        return f"{self.mark:>7}  {self.text}"


def examine(root: Path) -> tuple[list[Finding], bool]:
    """Look at this machine; return what was found, and whether the embedded edition can run."""
    folders = _folders()
    findings = [Finding("ok", f"Python {platform.python_version()}"), *_machine(root), *_packages(root)]
    findings += [_kernel(), *_embedded()]
    ready = not any(finding.mark == "missing" for finding in findings)
    findings.append(_data_root(folders))
    well = False
    for name in edition_names(root):
        try:
            edition = load_edition(root, name)
        except UserError as error:
            findings.append(Finding("missing", str(error)))
            continue
        lacks = [] if ready else ["what is marked as missing above"]
        lacks += _lacks(edition, folders)
        if lacks:
            findings.append(Finding("note", f"edition {name} cannot run: it needs {'; '.join(lacks)}"))
        else:
            minutes = max(1, round(edition.expected_seconds(cores()) / 60))
            note = " and the network" if edition.needs.network else ""
            findings.append(Finding("ok", f"edition {name} can run: about {minutes} min {on_cores()}{note}"))
        well = well or (name == "embedded" and not lacks)
    return findings, well


def _machine(root: Path) -> Iterator[Finding]:
    names = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if names:
        yield Finding("ok", f"torch {torch.__version__} with GPU: {', '.join(names)}")
    else:
        yield Finding("note", f"torch {torch.__version__} without a GPU: everything runs on the CPU")
    memory = _memory_bytes()
    yield Finding("ok", f"{cores()} CPU cores" + (f", {memory / 2**30:.1f} GiB of memory" if memory else ""))
    free = shutil.disk_usage(root).free
    text = f"{free / 2**30:.1f} GiB free on the disk"
    yield Finding("ok", text) if free >= DISK_BYTES else Finding("missing", f"{text}: 2 GiB are needed")
    if not os.access(nearest(default_root()), os.W_OK):
        text = "the folder of the store cannot be written to; name another in XAICORE_STORE"
        yield Finding("missing", text)


def _memory_bytes() -> int | None:
    """Return the memory this process may use, None where the system does not say."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        limit = Path("/sys/fs/cgroup/memory.max")
        return min(total, int(limit.read_text(encoding="utf-8"))) if limit.is_file() else total
    except OSError:
        return None
    except ValueError:  # "max"
        return total


def _packages(root: Path) -> Iterator[Finding]:
    """Compare what is installed with what pyproject.toml asks for and constraints.txt names."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = [*map(Requirement, [*project["dependencies"], *project["optional-dependencies"]["book"]])]
    lock = root / "constraints.txt"
    lines = lock.read_text(encoding="utf-8").splitlines() if lock.is_file() else []
    locked = [Requirement(line) for line in (line.partition("#")[0].strip() for line in lines) if line]
    locks = {
        canonicalize_name(each.name): each for each in locked if each.marker is None or each.marker.evaluate()
    }
    fine, other = 0, []
    for requirement in wanted:
        name = requirement.name
        try:
            version = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield Finding("missing", f"package {name}: not installed; run make, or pip install it")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            yield Finding("missing", f"package {name} {version}: {requirement.specifier} is needed")
            continue
        fine += 1
        named = locks.get(canonicalize_name(name), requirement).specifier
        if not named.contains(version, prereleases=True):
            other.append(f"{name} {version} (not {str(named).lstrip('=')})")
    yield Finding("ok", f"{fine} of {len(wanted)} packages installed as needed")
    if other:
        text = f"versions other than in constraints.txt: {', '.join(other)}; numbers may differ"
        yield Finding("note", text)


def _kernel() -> Finding:
    try:
        subprocess.run([sys.executable, "-c", KERNEL_TEST], capture_output=True, check=True, timeout=120)
    except subprocess.TimeoutExpired:
        return Finding("missing", "a Jupyter kernel does not start within two minutes")
    except subprocess.CalledProcessError:
        return Finding("missing", "a Jupyter kernel does not start; install the package ipykernel anew")
    return Finding("ok", "a Jupyter kernel starts")


def _embedded() -> Iterator[Finding]:
    """Open what ships inside Python packages."""
    things: dict[str, Callable[[], object]] = {
        f"image set {name}: {spec.about}": partial(xaicore.data.load, name, split="all")
        for name, spec in SETS.items()
        if spec.read is not None
    }
    for number in range(3):
        network = partial(xaicore.models.load, f"efficientnet_lite{number}", weights="imagenet")
        things[f"weights of EfficientNet-Lite{number} for ImageNet"] = network
    for text, thing in things.items():
        try:
            found = thing()
            if isinstance(found, ImageSet):
                found[0]
        except Exception as error:  # whatever is wrong with a package's files is to be reported, not raised
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            yield Finding("missing", f"{text}: {reason}")
        else:
            yield Finding("ok", text)


def _folders() -> dict[str, str | None]:
    """Return name → what is wrong with its folders, for the image sets that are found; no file is opened."""
    found: dict[str, str | None] = {}
    for name in FOLDER_SETS:
        with suppress(UserError):
            xaicore.data.find_root(name)
            found[name] = None
            try:
                xaicore.data.load(name, split="test")
            except UserError as error:
                found[name] = str(error)
    return found


def _data_root(folders: Mapping[str, str | None]) -> Finding:
    wrong = [problem for problem in folders.values() if problem is not None]
    if not os.environ.get("XAICORE_DATA"):
        text = "XAICORE_DATA is not set: no image sets in folders (only needed beyond embedded)"
        return Finding("note", text)
    if not folders:
        return Finding("note", f"XAICORE_DATA holds none of {', '.join(FOLDER_SETS)}")
    if wrong:
        return Finding("missing", f"XAICORE_DATA: {'; '.join(wrong)}")
    return Finding("ok", f"XAICORE_DATA holds {', '.join(folders)}")


def _lacks(edition: Edition, folders: Mapping[str, str | None]) -> list[str]:
    lacks = [f"{name} in XAICORE_DATA" for name in edition.data if folders.get(name, "absent") is not None]
    if edition.needs.gpu and not torch.cuda.is_available():
        lacks.append("a GPU")
    memory = _memory_bytes()
    largest = max((run.expected_memory_mb or 0.0 for run in edition.notebooks.values()), default=0.0)
    if memory is not None and largest * 2**20 > memory:
        lacks.append(f"{largest / 1024:.1f} GiB of memory")
    return lacks
