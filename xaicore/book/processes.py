"""The processes of notebooks, as the runner starts and ends them.

Where several notebooks are to run, a server imports what they need once and makes a copy of itself for each
(:mod:`xaicore.book.fork_server`). A single notebook gets a process that imports for itself, and so does every notebook
where the server does not come up, or where a copy of a process is no safe ground: on macOS, whose frameworks do not
survive one, and on Windows.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol, Self

GRACE_SECONDS = 5.0
POLL_SECONDS = 0.05
FORKS = sys.platform == "linux"


class NotebookProcess(Protocol):
    """What the runner does with a process, as ``subprocess.Popen`` has it."""

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status when it has ended; ``subprocess.TimeoutExpired`` when it has not in time."""

    def terminate(self) -> None:
        """Ask it to end."""

    def kill(self) -> None:
        """End it."""


class ForkedProcess(ABC):
    """What ``subprocess.Popen`` has, for a process that came about by a fork."""

    @abstractmethod
    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""

    @abstractmethod
    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status when the process has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within ``timeout`` seconds.
        """
        end = None if timeout is None else time.monotonic() + timeout
        while (status := self.poll()) is None:
            if end is not None and time.monotonic() >= end:
                raise subprocess.TimeoutExpired("a forked process", timeout or 0.0)
            time.sleep(POLL_SECONDS)
        return status

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End the process."""
        self.send_signal(signal.SIGKILL)


class ForkServer:
    """The runner's end of a server.

    Attributes:
        pid: the process that is the parent of every copy.
        ready: it has imported everything.
        gone: it has ended.
        begun: numbers of the notebooks that it made a copy for.
        ended: number of a notebook → exit status of its process.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], notebooks: Sequence[Path]) -> None:
        """Start a server.

        Args:
            folder: where it and its copies work.
            environment: all environment variables that its copies have in common.
            notebooks: those whose imports it does.

        Raises:
            OSError: no process can be started.
        """
        self._process = subprocess.Popen(
            [sys.executable, "-m", "xaicore.book.fork_server", *map(str, notebooks)],
            cwd=folder,
            env=environment,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests: IO[bytes] = self._process.stdin
        self._events: IO[bytes] = self._process.stdout
        os.set_blocking(self._events.fileno(), False)
        self._text = b""
        self._count = 0
        self.pid = self._process.pid
        self.ready = self.gone = False
        self.begun: set[int] = set()
        self.ended: dict[int, int] = {}

    def start(
        self, job: Path, log: Path, environment: Mapping[str, str], cold: Callable[[], NotebookProcess]
    ) -> NotebookProcess:
        """Have a notebook executed.

        Args:
            job: the file that describes it, see :func:`xaicore.book.kernel.main`; its ``parent`` is ``pid``.
            log: the file that gets what the process prints.
            environment: variables of this notebook alone.
            cold: starts a process that does the same, for when the server ends before it came to it.
        """
        self._count += 1
        request = {"job": str(job), "log": str(log), "environment": dict(environment)}
        self.tell({"number": self._count, **request})
        return _Copy(self, self._count, cold)

    def tell(self, request: Mapping[str, Any]) -> None:
        """Send the server a request; it may have ended."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.write(json.dumps(request).encode() + b"\n")

    def listen(self) -> None:
        """Take note of what the server has said meanwhile."""
        while not self.gone:
            try:
                piece = os.read(self._events.fileno(), 65536)
            except BlockingIOError:
                return
            self.gone = not piece
            *lines, self._text = (self._text + piece).split(b"\n")
            for event in map(json.loads, lines):
                self.ready = True
                if "begun" in event:
                    self.begun.add(event["begun"])
                if "ended" in event:
                    self.ended[event["ended"]] = event["status"]

    def close(self) -> None:
        """End the server, unless it is; its copies, if any are left, end with it."""
        if self._events.closed:
            return
        self._requests.close()
        self.listen()
        if self.ready:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(GRACE_SECONDS)
        self.kill()
        self._events.close()

    def kill(self) -> None:
        """End the server at once."""
        self._process.kill()
        self._process.wait()
        self.gone = True


class ForkServers:
    """The servers of one run, at most one for each number of threads; a context that ends them when it is left.

    Args:
        folder: where they and their copies work.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._servers: dict[int, ForkServer] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for server in self._servers.values():
            server.close()

    def start(self, threads: int, environment: Mapping[str, str], notebooks: Sequence[Path]) -> None:
        """Start a server, unless it is there, serves less than two notebooks, or cannot be had.

        Args:
            threads: CPU threads of each notebook.
            environment: all environment variables that notebooks with so many threads have in common.
            notebooks: those whose imports it does.
        """
        if FORKS and len(notebooks) > 1 and threads not in self._servers:
            with contextlib.suppress(OSError):
                self._servers[threads] = ForkServer(self._folder, environment, notebooks)

    def of(self, threads: int) -> ForkServer | None:
        """Return the server of notebooks with so many threads; None where each imports for itself."""
        return self._servers.get(threads)


class _Copy(ForkedProcess):
    """The process of a notebook: a child of the server, which alone knows it by more than a number."""

    def __init__(self, server: ForkServer, number: int, cold: Callable[[], NotebookProcess]) -> None:
        self.server = server
        self.number = number
        self.cold: Callable[[], NotebookProcess] | None = cold
        self.instead: NotebookProcess | None = None

    def poll(self) -> int | None:
        if self.instead is not None:
            return self.instead.poll()
        self.server.listen()
        if self.number in self.server.ended:
            return self.server.ended[self.number]
        if not self.server.gone:
            return None
        if self.number in self.server.begun or self.cold is None:
            return -signal.SIGKILL  # a copy ends with the server
        self.instead = self.cold()
        return self.instead.poll()

    def send_signal(self, number: int) -> None:
        self.cold = None
        self.server.listen()
        if self.instead is not None:
            self.instead.kill() if number == signal.SIGKILL else self.instead.terminate()
        elif self.server.ready:
            self.server.tell({"number": self.number, "signal": number})
        else:
            self.server.kill()  # it still imports, so there is no copy yet
