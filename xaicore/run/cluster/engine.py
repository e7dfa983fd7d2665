"""The engine whose batches are computed by workers of a Ray cluster."""

import os
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import torch

from xaicore.core import progress
from xaicore.core.errors import UserError
from xaicore.core.fingerprint import digest, module_fingerprint
from xaicore.run.cluster.connection import connect
from xaicore.run.cluster.worker import Job, Worker, carry_along, pack, surroundings, unpack
from xaicore.run.engine import BatchFunction, Engine, Work
from xaicore.run.store import Result, Store

DEATHS = 3
"""Workers that may die with one batch before the batch is blamed."""
STARTS = 3
"""Workers that may die one after the other before they have begun."""
IDLE_SECONDS = 10.0
PATIENCE_SECONDS = 30.0
NO_PLACE = "the cluster has no free place for a worker yet; waiting"
NO_START = "workers do not start on the cluster, is the project installed on its nodes?"


class RayEngine(Engine):
    """Runs the batches on a Ray cluster; :meth:`map` raises what ``function`` raises in a worker.

    Each worker has as many CPU threads as this process, and reserves as many CPUs, or one GPU where a model lies on
    one. A worker computes one batch at a time; two batches for each are here or under way, so memory does not grow with
    their number. Between steps the workers stay, with the models of the last one, and are given back after 10 s without
    work. Several notebooks that run side by side share the places of the cluster equally.

    Ray would restart an actor that died and repeat its calls, but only there: a batch would wait for the place of a
    lost node. So batches wait for whichever worker is free, and a dead one is replaced.

    Args:
        spec: the cluster's address, see :mod:`xaicore.run.cluster`.
        store: where finished batches go and are looked for; only this process reads and writes it.
        workers: most workers at a time; None takes all places of the cluster, divided by ``$XAICORE_NOTEBOOKS``.

    Raises:
        UserError: no cluster answers or the connection is lost, it has no place for a worker, a node has other versions
            of the code or of a library, or workers die again and again with the same batch.
    """

    def __init__(self, spec: str, store: Store, workers: int | None = None) -> None:
        super().__init__(store, workers)
        self.spec = spec
        self._busy = threading.Lock()
        self._hiring = threading.Lock()
        self._workers: list[Any] = []
        self._kind: tuple[int, dict[str, int]] | None = None
        self._models: dict[str, tuple[Any, frozenset[str]]] = {}
        self._idle = _timer(IDLE_SECONDS, self._rest)

    def places(self, resources: Mapping[str, int]) -> int:
        """Return how many workers that reserve ``resources`` fit on the nodes of the cluster, busy or not.

        Raises:
            UserError: none.
        """
        names = {"num_cpus": "CPU", "num_gpus": "GPU"}
        nodes = [node["Resources"] for node in connect(self.spec).nodes() if node["Alive"]]
        count = sum(
            int(min(node.get(names[key], 0) // resources[key] for key in resources)) for node in nodes
        )
        if count == 0:
            gpu = "a GPU, where the model lies"
            what = gpu if "num_gpus" in resources else f"{resources['num_cpus']} CPUs, one for each thread"
            raise UserError(f"no node of the cluster has {what}")
        return count

    def share(self, places: int) -> int:
        """Return how many of the cluster's places this process takes at most."""
        side_by_side = int(os.environ.get("XAICORE_NOTEBOOKS") or 1)
        return min(places, self.workers or max(1, places // side_by_side))

    def close(self) -> None:
        """Give the workers back; what they are computing is lost."""
        self._idle.cancel()
        with self._hiring:
            while self._workers:
                with suppress(Exception):  # it is dead, or the connection is
                    self._ray.kill(self._workers.pop())

    def _rest(self) -> None:
        if self._busy.acquire(blocking=False):  # otherwise another step has just begun
            try:
                self.close()
            finally:
                self._busy.release()

    @contextmanager
    def _working(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        constants: Mapping[str, Any],
    ) -> Iterator[tuple[Work, int, ThreadPoolExecutor]]:
        with self._busy:
            self._idle.cancel()
            self._ray = connect(self.spec)
            job, gpu = self._send(step, function, arrays, constants)
            threads = torch.get_num_threads()
            resources = {"num_cpus": 1, "num_gpus": 1} if gpu else {"num_cpus": threads}
            self._most = self.share(self.places(resources))
            if self._kind != (threads, resources):
                self.close()
                self._kind = (threads, resources)
            self._ended = False
            self._free: queue.Queue[tuple[Any, int, Any] | None] = queue.Queue()
            self._waiting = _timer(PATIENCE_SECONDS, progress.warn, NO_PLACE)
            for worker in self._workers:  # it may have died since the last step
                self._greet(worker)
            # While one batch of a worker is computed, another one is looked up, sent or written.
            under_way = 2 * self._most
            try:
                with ThreadPoolExecutor(under_way) as pool:
                    try:
                        yield lambda batch: self._compute(job, batch), under_way, pool
                    except BaseException as error:
                        self._ended = True
                        self._free.put(None)
                        if not isinstance(error, Exception):  # Ctrl-C ends the batches under way as well
                            self.close()
                        raise
            finally:
                self._waiting.cancel()
                self._idle = _timer(IDLE_SECONDS, self._rest)
                self._idle.start()

    def _send(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        constants: Mapping[str, Any],
    ) -> tuple[Job, bool]:
        """Put what all batches share into the cluster, but for models that are there; return also if it needs a GPU."""
        carry_along(function)
        models = {name: each for name, each in constants.items() if isinstance(each, torch.nn.Module)}
        rest = pack((function, {name: each for name, each in constants.items() if name not in models}))
        keys = {name: _digest(model) for name, model in models.items()}
        self._models = {key: each for key, each in self._models.items() if key in keys.values()}
        for name, key in keys.items():
            if key not in self._models:
                packed = pack(models[name])
                self._models[key] = self._ray.put(packed.content), packed.devices
        kinds = rest.devices.union(*(found for _, found in self._models.values()))
        kinds |= {array.device.type for array in arrays.values()}
        if unknown := sorted(kinds - {"cpu", "cuda"}):
            raise UserError(f"a Ray cluster computes on cpu or cuda, not on {unknown[0]}; use --engine local")
        references = {name: (key, self._models[key][0]) for name, key in keys.items()}
        return Job(step, self._ray.put(rest.content), references), "cuda" in kinds

    def _compute(self, job: Job, batch: Mapping[str, torch.Tensor]) -> Result:
        """Return what a worker makes of a batch; a worker that dies costs another attempt."""
        # A slice would take the whole array with it.
        content = pack({name: array.detach().clone() for name, array in batch.items()}).content
        reference = self._ray.put(content)
        self._hire()
        for _ in range(DEATHS):
            worker = self._take()
            try:
                answer = self._ray.get(worker.compute.remote(job, reference))
            except self._ray.exceptions.RayTaskError:  # what the worker is sent or sends back cannot be
                raise
            except self._ray.exceptions.RayError:
                if not self._ended:
                    progress.warn(f"a worker died on the cluster; its batch of {job.step} is computed again")
                self._hire(dead=worker)
                continue
            except OSError as error:
                raise UserError(
                    "the connection to the cluster is lost; run again to continue, finished batches are kept"
                ) from error
            if isinstance(answer, bytes):
                raise unpack(answer)
            self._free.put((worker, 0, None))
            found, seconds = answer
            return Result(found, seconds=seconds, reused=False)
        raise UserError(
            f"{DEATHS} workers of the cluster died with the same batch of {job.step}; does it fit into their memory?"
        )

    def _hire(self, dead: Any = None, failures: int = 0) -> None:
        """Begin a worker if there are fewer than there may be, once the ``dead`` one is forgotten."""
        with self._hiring:
            if dead in self._workers:
                self._workers.remove(dead)
            if self._ended or len(self._workers) >= self._most or self._kind is None:
                return
            if self._waiting.ident is None:
                self._waiting.start()
            threads, resources = self._kind
            try:
                worker = self._ray.remote(Worker).options(**resources).remote(threads)
                self._workers.append(worker)
                self._greet(worker, failures)
            except Exception as error:  # Ray Client begins a worker at once, and raises whatever is wrong
                raise UserError(f"{NO_START} {_last_line(error)}") from error

    def _greet(self, worker: Any, failures: int = 0) -> None:
        """Let a worker be free as soon as it answers, after so many that died before they did."""
        free = self._free
        answer = worker.differs.remote(surroundings()).future()
        answer.add_done_callback(lambda answer: free.put((worker, failures, answer)))

    def _take(self) -> Any:
        """Return a worker that is free and well.

        Raises:
            UserError: workers do not start, or a node has other versions than this process.
            CancelledError: the step has ended.
        """
        while item := self._free.get():
            worker, failures, greeting = item
            try:
                difference = greeting.result() if greeting is not None else None
            except self._ray.exceptions.RayError as error:
                if failures + 1 < STARTS:
                    self._hire(dead=worker, failures=failures + 1)
                    continue
                problem, cause = f"{NO_START} {_last_line(error)}", error
            except Exception as error:
                problem, cause = f"the connection to the cluster is lost: {_last_line(error)}", error
            else:
                if difference is None:
                    self._waiting.cancel()
                    return worker
                problem = f"a node of the cluster would compute other results: {difference}; install there what is here"
                cause = None
            self._free.put(item)  # for the other threads that wait
            raise UserError(problem) from cause
        self._free.put(None)
        raise CancelledError


def _digest(model: torch.nn.Module) -> str:
    """Return what tells models apart for a worker: weights, and for each part its mode, device and gradients."""
    modes = [part.training for part in model.modules()]
    kinds = [[str(each.device), str(each.dtype), each.requires_grad] for each in model.parameters()]
    return digest(module_fingerprint(model), modes, kinds)


def _timer(seconds: float, function: Callable[..., None], *arguments: str) -> threading.Timer:
    timer = threading.Timer(seconds, function, arguments)
    timer.daemon = True
    return timer


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
