"""The engine whose batches are tasks of a Ray cluster."""

import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from xaicore.core import progress
from xaicore.core.errors import UserError
from xaicore.core.fingerprint import digest, module_fingerprint
from xaicore.run.cluster.connection import connect
from xaicore.run.cluster.worker import Job, carry_along, compute, pack, surroundings, unpack
from xaicore.run.engine import BatchFunction, Engine, Working
from xaicore.run.store import Result, Store

DEATHS = 3
"""Workers that may die with one batch before the batch is blamed."""
PATIENCE_SECONDS = 30.0
NO_PLACE = "the cluster has no free place for a worker yet; waiting"
NO_START = "workers do not start on the cluster, is the project installed on its nodes?"


class RayEngine(Engine):
    """Runs the batches on a Ray cluster; :meth:`map` raises what ``function`` raises in a worker.

    Each batch is a task with as many CPU threads as this process, which reserves as many CPUs, or one GPU where a model
    lies on one. Ray's processes stay from batch to batch, with the models of the last step. Two batches for each place
    are here or under way, so memory does not grow with their number. Several notebooks that run side by side share the
    places of the cluster equally.

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
        self._models: dict[str, tuple[Any, frozenset[str]]] = {}

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

    @contextmanager
    def _working(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        constants: Mapping[str, Any],
    ) -> Iterator[Working]:
        ray = connect(self.spec)
        job, shared, gpu = self._send(step, function, arrays, constants)
        resources = {"num_cpus": 1, "num_gpus": 1} if gpu else {"num_cpus": job.threads}
        most = self.share(self.places(resources))
        # Ray would repeat a batch without a word, and end a process that had a GPU.
        remote = ray.remote(max_retries=0, max_calls=0, **resources)
        task, first = remote(compute), remote(lambda: None).remote()
        slots, under_way, ended = threading.Semaphore(most), set[Any](), threading.Event()

        def work(batch: Mapping[str, torch.Tensor]) -> Result:
            # A slice would take the whole array with it.
            content = ray.put(pack({name: array.detach().clone() for name, array in batch.items()}).content)
            for _ in range(DEATHS):
                with slots:
                    if ended.is_set():
                        raise CancelledError
                    answer = task.remote(job, content, *shared)
                    under_way.add(answer)
                    try:
                        found = ray.get(answer)
                    except ray.exceptions.RayTaskError as error:
                        raise UserError(f"{NO_START} {str(error).rstrip().splitlines()[-1]}") from error
                    except ray.exceptions.RayError:
                        if not ended.is_set():
                            progress.warn(
                                f"a worker died on the cluster; its batch of {step} is computed again"
                            )
                        continue
                    except OSError as error:
                        raise UserError(
                            "the connection to the cluster is lost; run again to continue, finished batches are kept"
                        ) from error
                    finally:
                        under_way.discard(answer)
                if isinstance(found, bytes):
                    raise unpack(found)
                return Result(found[0], seconds=found[1], reused=False)
            raise UserError(
                f"{DEATHS} workers of the cluster died with the same batch of {step}; does it fit into their memory?"
            )

        def look() -> None:
            if not ray.wait([first], timeout=0)[0]:
                progress.warn(NO_PLACE)

        waiting = threading.Timer(PATIENCE_SECONDS, look)
        waiting.daemon = True
        waiting.start()
        # While one batch of a worker is computed, another one is looked up, sent or written.
        with ThreadPoolExecutor(2 * most) as pool:
            try:
                yield work, 2 * most, pool
            except BaseException as error:
                ended.set()
                if not isinstance(error, Exception):  # Ctrl-C ends the batches under way as well
                    for answer in list(under_way):
                        ray.cancel(answer, force=True)
                raise
            finally:
                waiting.cancel()

    def _send(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        constants: Mapping[str, Any],
    ) -> tuple[Job, list[Any], bool]:
        """Put what all batches share into the cluster, but for models that are there; return also if it needs a GPU."""

        def put(content: bytes) -> Any:
            return connect(self.spec).put(np.frombuffer(content, np.uint8))  # which processes of a node share

        carry_along(function)
        models = {name: each for name, each in constants.items() if isinstance(each, torch.nn.Module)}
        rest = pack((function, {name: each for name, each in constants.items() if name not in models}))
        keys = {name: _digest(model) for name, model in models.items()}
        self._models = {key: each for key, each in self._models.items() if key in keys.values()}
        for name, key in keys.items():
            if key not in self._models:
                packed = pack(models[name])
                self._models[key] = put(packed.content), packed.devices
        kinds = rest.devices.union(*(found for _, found in self._models.values()))
        kinds |= {array.device.type for array in arrays.values()}
        if unknown := sorted(kinds - {"cpu", "cuda"}):
            raise UserError(f"a Ray cluster computes on cpu or cuda, not on {unknown[0]}; use --engine local")
        shared = [put(rest.content), *(reference for reference, _ in self._models.values())]
        named = (shared[0].hex(), *self._models)
        return Job(step, torch.get_num_threads(), surroundings(), keys, named), shared, "cuda" in kinds


def _digest(model: torch.nn.Module) -> str:
    """Return what tells models apart for a worker: weights, and for each part its mode, device and gradients."""
    modes = [part.training for part in model.modules()]
    kinds = [[str(each.device), str(each.dtype), each.requires_grad] for each in model.parameters()]
    return digest(module_fingerprint(model), modes, kinds)
