"""The engine: the same ``map`` as the local one, with the batches computed by workers of a Ray cluster."""

import os
import threading
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from typing import Any

import torch

from xaicore import progress
from xaicore.cluster.connection import connect
from xaicore.cluster.pool import Pool
from xaicore.cluster.worker import MODELS, Failure, Job, carried_along, pack
from xaicore.engine import BatchFunction, checked_workers, devices, in_batches
from xaicore.errors import UserError
from xaicore.fingerprint import digest, module_fingerprint
from xaicore.store import Result, Store

DEATHS = 3
"""Workers that may die with one batch before the batch is blamed."""
IDLE_SECONDS = 10.0


class RayEngine:
    """Runs the batches on a Ray cluster.

    Each worker has as many CPU threads as this process, and reserves as many CPUs, or one GPU where a model lies on
    one. A worker computes one batch at a time; two batches for each are here or under way, so memory does not grow
    with their number. Between steps the workers stay, with the models they have, and are given back after
    10 s without work. Several notebooks that run side by side share the places of the cluster equally.

    Args:
        spec: the cluster's address, see :mod:`xaicore.cluster`.
        store: where finished batches go and are looked for; only this process reads and writes it.
        workers: most workers at a time; None takes all places of the cluster, divided by ``$XAICORE_NOTEBOOKS``.
    """

    def __init__(self, spec: str, store: Store, workers: int | None = None) -> None:
        self.spec = spec
        self.store = store
        self.workers = checked_workers(workers)
        self._pool: Pool | None = None
        self._packed: OrderedDict[str, Any] = OrderedDict()
        self._idle: threading.Timer | None = None
        self._busy = threading.Lock()

    def map(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        *,
        constants: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        code: Callable[..., Any] | None = None,
        workers: int | None = None,
    ) -> Result:
        """Run ``function`` on every batch of ``arrays``, see :meth:`xaicore.engine.LocalEngine.map`.

        Args:
            step: as there, and so are all others apart from:
            function: likewise; it and the constants must be such as Ray can send.
            arrays: likewise.
            constants: likewise.
            batch_size: likewise.
            code: likewise.
            workers: does nothing here: what changes something global while it runs may run in several workers, as
                each is a process of its own with one batch at a time.

        Raises:
            UserError: no cluster answers or the connection is lost, it has no place for a worker, a node has other
                versions of the code or of a library, or workers die again and again with the same batch.
            Exception: what ``function`` raises in a worker is raised here.
        """
        constants = dict(constants or {})
        call = _Step(self, step, function, arrays, constants)
        with self._busy:
            self._stop_timer()
            try:
                return in_batches(
                    self.store,
                    step,
                    call.work,
                    arrays,
                    constants,
                    batch_size=batch_size,
                    code=code or function,
                    at_once=call.begin,
                    give_up=call.give_up,
                )
            finally:
                self._idle = threading.Timer(IDLE_SECONDS, self._rest)
                self._idle.daemon = True
                self._idle.start()

    def _stop_timer(self) -> None:
        if self._idle is not None:
            self._idle.cancel()

    def _rest(self) -> None:
        if self._busy.acquire(blocking=False):  # otherwise another step has just begun
            try:
                if self._pool is not None:
                    self._pool.close()
            finally:
                self._busy.release()

    def close(self) -> None:
        """Give the workers back at once."""
        self._stop_timer()
        if self._pool is not None:
            self._pool.close()
        self._pool = None
        self._packed.clear()

    def pool(self, threads: int, gpu: bool) -> Pool:
        """Return the workers that such a step needs, those of another kind given back."""
        resources = {"num_cpus": 1, "num_gpus": 1} if gpu else {"num_cpus": threads}
        ray = connect(self.spec)
        if (
            self._pool is None
            or self._pool.ray is not ray
            or (self._pool.threads, self._pool.resources) != (threads, resources)
        ):
            self.close()
            self._pool = Pool(ray, threads, resources)
        self._pool.begin()
        return self._pool

    def share(self, places: int) -> int:
        """Return how many of the cluster's places this process takes at most."""
        side_by_side = int(os.environ.get("XAICORE_NOTEBOOKS") or 1)
        return min(places, self.workers or max(1, places // side_by_side))

    def sent(self, model: torch.nn.Module, ray: Any) -> tuple[str, Any, frozenset[str]]:
        """Return key and reference of a model in the cluster, sent there unless it was lately, and its devices."""
        state: list[Any] = [[part.training for part in model.modules()]]
        state.append([[str(each.device), str(each.dtype), each.requires_grad] for each in model.parameters()])
        key = digest(module_fingerprint(model), state)
        if key not in self._packed:
            packed = pack(model)
            self._packed[key] = (ray.put(packed.content), packed.devices)
        self._packed.move_to_end(key)
        return key, *self._packed[key]

    def forget(self, wanted: set[str]) -> None:
        """Let the cluster drop models that neither this step nor a late one needs."""
        spare = [key for key in self._packed if key not in wanted]
        for key in spare[: max(0, len(spare) - MODELS)]:
            del self._packed[key]


class _Step:
    """One call of ``map``."""

    def __init__(
        self,
        engine: RayEngine,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        constants: Mapping[str, Any],
    ) -> None:
        self.engine = engine
        self.step = step
        self.function = function
        self.arrays = arrays
        self.constants = constants
        self.ended = threading.Event()

    def begin(self) -> int:
        """Connect, send what all batches share, and return how many batches are under way at a time."""
        ray = self.ray = connect(self.engine.spec)
        models = {name: each for name, each in self.constants.items() if isinstance(each, torch.nn.Module)}
        others = {name: each for name, each in self.constants.items() if name not in models}
        with carried_along(self.function):
            packed = pack((self.function, others))
            sent = {name: self.engine.sent(model, ray) for name, model in models.items()}
        kinds = packed.devices.union(
            *(found for _, _, found in sent.values()),
            {array.device.type for array in [*self.arrays.values(), *devices(self.constants)]},
        )
        if unknown := sorted(kinds - {"cpu", "cuda"}):
            raise UserError(f"a Ray cluster computes on cpu or cuda, not on {unknown[0]}; use --engine local")
        self.job = Job(
            uuid.uuid4().hex,
            self.step,
            ray.put(packed.content),
            {name: (key, reference) for name, (key, reference, _) in sent.items()},
        )
        self.engine.forget({key for key, _, _ in sent.values()})
        self.pool = self.engine.pool(torch.get_num_threads(), "cuda" in kinds)
        self.most = self.engine.share(self.pool.places())
        # While one batch of a worker is computed, another one is looked up, sent or written.
        return 2 * self.most

    def work(self, batch: Mapping[str, torch.Tensor]) -> Result:
        """Return what a worker makes of a batch; a worker that dies costs another attempt."""
        # A slice would take the whole array with it.
        content = pack({name: array.detach().clone() for name, array in batch.items()}).content
        reference = self.ray.put(content)
        for _ in range(DEATHS):
            worker = self.pool.take(self.most, self.ended.is_set)
            try:
                answer = self.ray.get(worker.compute.remote(self.job, reference))
            except self.ray.exceptions.RayTaskError as error:
                # The function's own errors come as a Failure: this one is of sending its arguments or its result.
                self.pool.give(worker)
                raise RuntimeError(f"{self.step}: {str(error).strip().splitlines()[-1]}") from error
            except self.ray.exceptions.RayError:
                if self.ended.is_set():
                    raise CancelledError from None
                progress.warn(f"a worker died on the cluster; its batch of {self.step} is computed again")
                self.pool.replace(worker)
                continue
            except (ConnectionError, OSError) as error:
                raise UserError(
                    "the connection to the cluster is lost; run again to continue, finished batches are kept"
                ) from error
            self.pool.give(worker)
            if isinstance(answer, Failure):
                raise answer.error()
            found, seconds = answer
            return Result(found, seconds=seconds, reused=False)
        raise UserError(
            f"{DEATHS} workers of the cluster died with the same batch of {self.step}; does it fit into their memory?"
        )

    def give_up(self, error: BaseException) -> None:
        """Stop handing out batches; after Ctrl-C stop those under way as well."""
        self.ended.set()
        if not isinstance(error, Exception):
            self.engine.close()
