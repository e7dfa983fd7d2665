"""The workers of one driver: begun when batches need them, replaced when they die, given back when idle."""

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from contextlib import suppress
from typing import Any

from xaicore import progress
from xaicore.cluster.worker import Worker, surroundings
from xaicore.errors import UserError

NO_START = "workers do not start on the cluster, is the project installed on its nodes?"
STARTS = 3
PATIENCE_SECONDS = 30.0
POLL_SECONDS = 0.5


class Pool:
    """Actors on a cluster, all alike.

    Args:
        ray: the module, connected.
        threads: CPU threads of each worker.
        resources: what Ray reserves for each, as ``num_cpus`` and ``num_gpus``.
    """

    def __init__(self, ray: Any, threads: int, resources: dict[str, int]) -> None:
        self.ray = ray
        self.threads = threads
        self.resources = resources
        self._lock = threading.Lock()
        self._all: list[Any] = []
        self._free: queue.Queue[tuple[Any, Any]] = queue.Queue()
        self._proven: set[Any] = set()
        self._nodes: dict[Any, set[str]] = {}  # those that lived when a worker was begun
        self._failed_starts = 0
        self._told = False

    def places(self) -> int:
        """Return how many such workers the nodes of the cluster have room for, busy or not.

        Raises:
            UserError: none.
        """
        count = 0
        for has in self._living().values():
            room = has.get("CPU", 0) // self.resources["num_cpus"]
            gpus = self.resources.get("num_gpus", 0)
            count += int(min(room, has.get("GPU", 0) // gpus) if gpus else room)
        if count == 0:
            what = (
                "a GPU, where the model lies"
                if "num_gpus" in self.resources
                else f"{self.threads} CPUs, one for each thread"
            )
            raise UserError(f"no node of the cluster has {what}")
        return count

    def begin(self) -> None:
        """Ask the workers that are left from an earlier step whether they still live."""
        self._told = False
        self._free = queue.Queue()
        for worker in self._all:
            self._greet(worker)

    def take(self, most: int, cancelled: Callable[[], bool]) -> Any:
        """Return a worker that is free; begin another one if there are fewer than ``most``.

        Raises:
            UserError: workers cannot start, or a node has other versions than this process.
            CancelledError: ``cancelled`` says so.
        """
        with self._lock:
            if len(self._all) < most:
                self._start()
        since = time.monotonic()
        while not cancelled():
            try:
                worker, greeting = self._free.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if not self._told and time.monotonic() - since > PATIENCE_SECONDS:
                    self._told = True
                    progress.warn("the cluster has no free place for a worker yet; waiting")
                continue
            if worker is not None and (greeting is None or self._well(worker, greeting)):
                return worker
        raise CancelledError

    def give(self, worker: Any) -> None:
        """Take back a worker whose batch is done."""
        self._free.put((worker, None))

    def replace(self, worker: Any) -> None:
        """Begin a new worker in place of one that died."""
        with self._lock:
            if worker in self._all:
                self._end(worker)
                self._start()

    def close(self) -> None:
        """End all workers; what they are computing is lost."""
        with self._lock:
            for worker in list(self._all):
                self._end(worker)

    def _well(self, worker: Any, greeting: Any) -> bool:
        """Return whether a worker has started; otherwise begin another one in its place."""
        error = greeting.exception()
        if error is None:
            difference = greeting.result()
            if difference is None:
                self._failed_starts = 0
                self._proven.add(worker)
                return True
            self._free.put((worker, greeting))  # for the other threads that wait
            raise UserError(
                f"a node of the cluster would compute other results: {difference}; install there what is here"
            )
        if not isinstance(error, self.ray.exceptions.RayError):
            self._free.put((worker, greeting))
            raise UserError(f"the connection to the cluster is lost: {_last_line(error)}") from error
        # Else it has died since the last step, or a node is lost, perhaps its own.
        lost = self._nodes.get(worker, set()) - set(self._living())
        self._failed_starts += worker not in self._proven and not lost
        if self._failed_starts >= STARTS:
            self._free.put((worker, greeting))
            raise UserError(f"{NO_START} {_last_line(error)}") from error
        self.replace(worker)
        return False

    def _start(self) -> None:
        try:
            worker = self.ray.remote(Worker).options(**self.resources).remote(self.threads)
            self._all.append(worker)
            self._nodes[worker] = set(self._living())
            self._greet(worker)
        except Exception as error:  # Ray Client begins a worker at once, and raises whatever is wrong
            raise UserError(f"{NO_START} {_last_line(error)}") from error

    def _living(self) -> dict[str, dict[str, float]]:
        """Return the resources of each node that is not lost."""
        return {node["NodeID"]: node["Resources"] for node in self.ray.nodes() if node["Alive"]}

    def _greet(self, worker: Any) -> None:
        free = self._free
        answer = worker.differs.remote(surroundings()).future()
        answer.add_done_callback(lambda answer: free.put((worker, answer)))

    def _end(self, worker: Any) -> None:
        self._all.remove(worker)
        self._proven.discard(worker)
        self._nodes.pop(worker, None)
        with suppress(Exception):  # it is dead, or the connection is
            self.ray.kill(worker)


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
