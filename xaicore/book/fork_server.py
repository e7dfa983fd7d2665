"""A process that makes others start warm: ``python -m xaicore.book.fork_server NOTEBOOK…``.

The runner starts one for a run (:mod:`xaicore.book.processes`). It imports what the run's notebooks import, which
takes seconds, and then makes a copy of itself for each notebook, which takes milliseconds. A copy does what
``python -m xaicore.book.kernel`` does, in a session of its own, and has a second copy at hand to become the notebook's
kernel (:mod:`xaicore.book.warm_kernel`).

A copy that must not be used, because a file of this package was edited after the server had imported it or because an
import has touched the GPU, which no copy can use then, replaces itself by a process that imports everything.
"""

import ast
import contextlib
import gc
import importlib
import json
import os
import select
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import xaicore

KERNEL = "xaicore.book.kernel"
POLL_SECONDS = 0.1


def main() -> int:
    """Import what the notebooks named import, then serve; in a copy, execute its notebook."""
    parent = os.getppid()
    requests, events = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    known = _sources()
    # First, since some packages look on import whether they are in a notebook.
    importlib.import_module("ipykernel.kernelapp")
    with warnings.catch_warnings():  # what papermill hides or shows is not for the notebook
        importlib.import_module(KERNEL)
        importlib.import_module("xaicore.book.warm_kernel")
    for name in _imports(sys.argv[1:]):
        if os.getppid() != parent:
            return 0
        with contextlib.suppress(Exception):  # the notebook itself will say what is wrong
            importlib.import_module(name)
    gc.collect()
    gc.freeze()  # or the first collection in a copy would copy all of it
    request = _serve(requests, events)
    if request is None:
        return 0
    os.setsid()
    log = os.open(request["log"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.update(request["environment"])
    sys.argv = [KERNEL, request["job"]]
    if _sources() != known or _gpu_is_lost():
        os.execv(sys.executable, [sys.executable, "-m", *sys.argv])
    from xaicore.book import kernel, warm_kernel

    warm_kernel.offer_kernel()
    try:
        status = kernel.main()
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # to take apart what the server imported would take a second and leave lines in the log


def _serve(requests: int, events: int) -> dict[str, Any] | None:
    """Make copies until the runner is gone.

    Returns:
        In a copy, the request it was made for; in the server itself None.
    """

    def tell(**event: int) -> None:
        os.write(events, json.dumps(event).encode() + b"\n")

    running: dict[int, int] = {}
    text = b""
    tell(ready=1)
    while True:
        if select.select([requests], [], [], POLL_SECONDS)[0]:
            piece = os.read(requests, 65536)
            if not piece:
                return None
            *lines, text = (text + piece).split(b"\n")
            for request in map(json.loads, lines):
                number = request["number"]
                if "signal" in request:
                    if number in running:
                        os.kill(running[number], request["signal"])
                    continue
                try:
                    pid = os.fork()
                except OSError:  # no memory, or too many processes
                    tell(ended=number, status=1)
                    continue
                if pid == 0:
                    os.close(requests)
                    os.close(events)
                    return dict(request)
                running[number] = pid
                tell(begun=number)
        for number, pid in list(running.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del running[number]
                tell(ended=number, status=os.waitstatus_to_exitcode(status))


def _imports(notebooks: Sequence[str]) -> Iterator[str]:
    """Yield the modules that the code cells of notebooks import, and names that may be modules."""
    for path in notebooks:
        with contextlib.suppress(OSError, ValueError, KeyError, SyntaxError):
            cells = json.loads(Path(path).read_text(encoding="utf-8"))["cells"]
            code = [cell["source"] for cell in cells if cell["cell_type"] == "code"]
            lines = "\n".join("".join(source) for source in code).splitlines()
            plain = "\n".join(line for line in lines if not line.lstrip().startswith(("%", "!")))
            for node in ast.walk(ast.parse(plain)):
                if isinstance(node, ast.Import):
                    yield from (alias.name for alias in node.names)
                elif isinstance(node, ast.ImportFrom) and node.module:
                    yield node.module
                    yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _sources() -> dict[str, tuple[int, int]]:
    """Return the files of this package with their time and size."""
    found = {}
    for file in Path(xaicore.__file__).parent.rglob("*.py"):
        with contextlib.suppress(OSError):
            state = file.stat()
            found[str(file)] = state.st_mtime_ns, state.st_size
    return found


def _gpu_is_lost() -> bool:
    """Return whether an import has touched CUDA before the copy was made."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda._is_in_bad_fork())


if __name__ == "__main__":
    sys.exit(main())
