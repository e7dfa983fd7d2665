"""The other libraries' environment and a process in it that runs their attacks and explanations.

torchattacks and ART ask for old versions of other packages and bring stray top-level ones, pytorch-grad-cam for an
OpenCV, so they never enter our environment: ``.peers`` in the project folder holds them alone, and sees torch and
the rest of our packages after its own. Nothing else is installed there twice.
"""

import json
import os
import select
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from benchmarks.subjects import Subject

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".peers"
PACKAGES = (
    *("torchattacks==3.5.1", "adversarial-robustness-toolbox==1.20.1", "six==1.17.0"),
    *("grad-cam==1.5.7", "opencv-python-headless==4.13.0.92", "ttach==0.0.3"),
)
"""Installed without their dependencies: all else that they need, our environment has."""


class PeerError(Exception):
    """The environment or a call in it failed; the message is one line."""


def python(folder: Path = FOLDER) -> Path | None:
    """Return the interpreter of the environment in ``folder``, or None where it is missing or another one."""
    try:
        ready = json.loads((folder / "ready.json").read_text(encoding="utf-8")) == _wanted()
    except (OSError, ValueError):
        ready = False
    return folder / "bin" / "python" if ready else None


def prepare(folder: Path = FOLDER) -> Path:
    """Make the environment in ``folder`` if it is not there yet and return its interpreter.

    Raises:
        PeerError: the packages cannot be installed, for instance without a network.
    """
    present = python(folder)
    if present is not None:
        return present
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=False, symlinks=True)
    interpreter = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", str(interpreter), "install", "--no-deps", "--quiet"]
    done = subprocess.run([*pip, "--retries", "1", *PACKAGES], capture_output=True, text=True, check=False)
    if done.returncode:
        shutil.rmtree(folder, ignore_errors=True)
        lines = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or ["pip failed"]
        raise PeerError(f"{', '.join(PACKAGES[:2])} cannot be installed: {lines[-1]}")
    # Only now, so that pip saw an empty environment. A path in a .pth file comes after the environment's own.
    packages = sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)})
    (Path(packages) / "shared.pth").write_text(_wanted()["shared"] + "\n", encoding="utf-8")
    (folder / "ready.json").write_text(json.dumps(_wanted()), encoding="utf-8")
    return interpreter


def _wanted() -> dict[str, Any]:
    shared = sysconfig.get_path("purelib")
    return {"packages": list(PACKAGES), "shared": shared, "python": list(sys.version_info[:3])}


class Worker:
    """A process of the peers' environment, of its ``interpreter``, that holds one model and attacks or explains it on
    request, with so many ``threads`` of torch.
    """

    def __init__(self, interpreter: Path, threads: int) -> None:
        self._interpreter, self._threads = interpreter, threads
        self._exchange = tempfile.TemporaryDirectory(prefix="peers-")
        self._process: subprocess.Popen[str] | None = None
        self._subject: str | None = None

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()
        self._exchange.cleanup()

    def versions(self) -> dict[str, str]:
        """Return the versions of what the worker uses."""
        versions: dict[str, str] = self._ask({"do": "versions"}, 120)["versions"]
        return versions

    def attack(
        self,
        subject: Subject,
        library: str,
        attack: str,
        images: Tensor,
        labels: Tensor,
        parameters: dict[str, Any],
        limit: float,
        seed: int = 0,
    ) -> tuple[Tensor, float, float]:
        """Run an attack and return the images, the seconds it took, and the model's passes per image.

        Raises:
            PeerError: it raised, died, or took more than ``limit`` seconds.
        """
        folder = self._with_model(subject)
        tensors = {name: value for name, value in parameters.items() if isinstance(value, Tensor)}
        save_file({"images": images.contiguous(), "labels": labels, **tensors}, folder / "in.safetensors")
        plain = {name: value for name, value in parameters.items() if name not in tensors}
        request = {"do": "attack", "library": library, "attack": attack, "parameters": plain, "seed": seed}
        answer = self._ask({**request, "folder": str(folder)}, limit)
        return load_file(folder / "out.safetensors")["adversarial"], answer["seconds"], answer["passes"]

    def grad_cams(
        self, subject: Subject, images: Tensor, targets: Tensor, layers: Sequence[str], limit: float
    ) -> tuple[dict[str, Tensor], float]:
        """Run pytorch-grad-cam layer by layer and return its maps before they are scaled, and the seconds it took.

        Raises:
            PeerError: as :meth:`attack`.
        """
        folder = self._with_model(subject)
        save_file({"images": images.contiguous(), "targets": targets}, folder / "in.safetensors")
        request = {"do": "grad_cams", "layers": list(layers), "folder": str(folder)}
        answer = self._ask(request, limit)
        return load_file(folder / "out.safetensors"), answer["seconds"]

    def _with_model(self, subject: Subject) -> Path:
        """Let the worker hold the model of ``subject``; return the folder of what is exchanged."""
        folder = Path(self._exchange.name)
        if self._subject != subject.name:
            weights = folder / "weights.safetensors"
            subject.save(weights)
            self._ask({"do": "model", **subject.architecture, "weights": str(weights)}, 120)
            self._subject = subject.name
        return folder

    def _ask(self, request: dict[str, Any], limit: float) -> dict[str, Any]:
        process = self._process or self._start()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            heard = select.select([process.stdout], [], [], limit)[0]
            line = process.stdout.readline() if heard else ""
        except BrokenPipeError:
            heard, line = [process.stdout], ""
        if not line:
            self._stop()
            raise PeerError("the worker ended" if heard else f"no result within {limit:.0f} s")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _start(self) -> "subprocess.Popen[str]":
        environment = {**os.environ, "OMP_NUM_THREADS": str(self._threads)}
        self._process = subprocess.Popen(
            [str(self._interpreter), "-m", "benchmarks.peer_worker", str(self._threads)],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        return self._process

    def _stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
        self._process, self._subject = None, None
