"""Where batches run.

``map`` cuts arrays into batches along their first dimension, runs a function on each and joins the results.
Every finished batch is in the store at once, so a process that is killed loses only the batch under way, and
every result is addressed by the content of its own batch. :class:`LocalEngine` works in this process; another
place to work, such as a cluster, is another class with the same ``map``.
"""

import copy
import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError, ThreadPoolExecutor, as_completed
from typing import Any, Protocol

import torch

from xaicore import progress
from xaicore.errors import UserError
from xaicore.fingerprint import digest
from xaicore.store import Result, Store

BatchFunction = Callable[..., Mapping[str, torch.Tensor]]


class Engine(Protocol):
    """What notebooks need of a place where batches run."""

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
        """Run ``function`` on every batch of ``arrays``; see :meth:`LocalEngine.map`."""
        ...


class LocalEngine:
    """Runs the batches in this process, several at a time.

    Small networks leave most of a processor idle when all of its cores work on one batch. So each batch is computed with
    torch's own number of threads (``torch.get_num_threads()``), and as many batches run side by side as there
    are cores for them; every worker has its own copy of the models. Which worker takes a batch changes
    nothing in its result. Work on a GPU goes one batch at a time.

    Args:
        store: where finished batches go and are looked for.
        workers: batches side by side; None takes ``$XAICORE_WORKERS``, else the cores this process may use
            divided by torch's threads.
    """

    def __init__(self, store: Store, workers: int | None = None) -> None:
        if workers is not None and (isinstance(workers, bool) or workers < 1):
            raise ValueError(f"workers must be a whole number of at least 1, got {workers!r}")
        self.store = store
        self.workers = workers

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
        """Run ``function(**batch, **constants)`` on every batch and join what it returns, in the order of the
        rows.

        Args:
            step: name of the step, for the store and for the progress display.
            function: takes the batch's tensors and the constants as keyword arguments, returns names →
                tensors whose first dimension is that of the batch. Its result for a row must not depend on
                the other rows.
            arrays: names → tensors with the same first dimension N ≥ 1.
            constants: passed on as they are and part of the address: numbers, strings, models (by
                ``fingerprint``), ….
            batch_size: rows in a batch (the last may have fewer).
            code: the function whose code the results belong to; None means ``function``.
            workers: 1 for a function that changes something global while it runs, as torch.fx does while it
                traces; None: as many as this engine has.

        Returns:
            Names → tensors (N, …) on the CPU; ``.seconds`` is the sum over the batches when they were
            computed, ``.reused`` whether all of them came out of the store.

        Raises:
            ValueError: no arrays, no rows, unequal first dimensions, a name in both ``arrays`` and
                ``constants``, a batch size below 1, or a result that does not fit.
            TypeError: an array or a result is not a tensor, or a constant has no digest.
            UserError: the store cannot be written to.
        """
        constants = dict(constants or {})
        rows = _rows(arrays, constants, batch_size)
        shared = {"constants": digest(constants), "device": _device_of(constants)}
        starts = range(0, rows, batch_size)
        copies = threading.local()
        threads = torch.get_num_threads()

        failed = threading.Event()

        def compute(start: int) -> Result:
            if failed.is_set():
                raise CancelledError
            try:
                return one_batch(start)
            except BaseException:
                failed.set()
                raise

        def one_batch(start: int) -> Result:
            torch.set_num_threads(threads)
            batch = {name: array[start : start + batch_size] for name, array in arrays.items()}

            def work() -> Mapping[str, torch.Tensor]:
                if not hasattr(copies, "constants"):
                    copies.constants = {name: _own(value) for name, value in constants.items()}
                return function(**batch, **copies.constants)

            return self.store.get_or_compute(step, {"batch": batch, **shared}, work, code=code or function)

        joined: dict[str, torch.Tensor] = {}
        seconds, reused, done = 0.0, True, 0
        progress.report(step, 0, rows)
        with ThreadPoolExecutor(workers or self._workers(constants, threads)) as pool:
            waiting = {pool.submit(compute, start): start for start in starts}
            try:
                for future in as_completed(list(waiting)):
                    start = waiting.pop(future)
                    stop = min(start + batch_size, rows)
                    result = future.result()
                    _put(step, joined, result, start, stop, rows)
                    seconds += result.seconds
                    reused = reused and result.reused
                    done += stop - start
                    progress.report(step, done, rows)
            finally:
                pool.shutdown(wait=True, cancel_futures=True)
        return Result(joined, seconds=seconds, reused=reused)

    def _workers(self, constants: Mapping[str, Any], threads: int) -> int:
        if _device_of(constants):
            return 1
        return self.workers or int(os.environ.get("XAICORE_WORKERS") or 0) or max(1, cores() // threads)


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get(spec: str | None = None, store: Store | None = None) -> Engine:
    """Return the place where batches run.

    Args:
        spec: ``"local"``; None takes ``$XAICORE_ENGINE``, else ``"local"``.
        store: where finished batches go; None means the default store.

    Raises:
        UserError: another place than this process, or an unknown one.
    """
    spec = spec or os.environ.get("XAICORE_ENGINE") or "local"
    check(spec)
    return LocalEngine(store if store is not None else Store())


def check(spec: str) -> None:
    """Raise a :class:`~xaicore.errors.UserError` unless :func:`get` can give the engine ``spec``."""
    if spec.startswith("ray://"):
        raise UserError(
            "a Ray cluster comes with the extra 'cluster', which is not there yet; use --engine local"
        )
    if spec != "local":
        raise UserError(f"unknown engine {spec!r}; use --engine local")


def _own(value: Any) -> Any:
    """Return a worker's own copy of a model, anything else as it is."""
    return copy.deepcopy(value) if isinstance(value, torch.nn.Module) else value


def _rows(arrays: Mapping[str, torch.Tensor], constants: Mapping[str, Any], batch_size: int) -> int:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if not arrays:
        raise ValueError("arrays must hold at least one tensor")
    for name, array in arrays.items():
        if not isinstance(array, torch.Tensor) or array.ndim < 1:
            raise TypeError(f"arrays[{name!r}] must be a tensor with at least one dimension")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"arrays must agree in their first dimension, got {counts}")
    rows = next(iter(counts.values()))
    if rows == 0:
        raise ValueError("arrays must have at least one row")
    both = sorted(set(arrays) & set(constants))
    if both:
        raise ValueError(f"constants and arrays share the name {both[0]!r}")
    return rows


def _device_of(constants: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return empty tensors on the devices of the constants: they tell the store where the work is done."""
    devices: set[torch.device] = set()
    for value in constants.values():
        if isinstance(value, torch.nn.Module):
            devices.update(parameter.device for parameter in value.parameters())
        elif isinstance(value, torch.Tensor):
            devices.add(value.device)
    return [torch.empty(0, device=device) for device in sorted(devices, key=str) if device.type != "cpu"]


def _put(
    step: str, joined: dict[str, torch.Tensor], result: Mapping[str, Any], start: int, stop: int, rows: int
) -> None:
    """Copy a batch's result into the rows ``start`` … ``stop`` of the whole, which the first to come lays out."""
    first = not joined
    for name, value in result.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{step}: {name} must be a tensor, not a {type(value).__name__}")
        if value.ndim < 1 or len(value) != stop - start:
            raise ValueError(
                f"{step}: {name} must have {stop - start} rows like its batch, got shape {tuple(value.shape)}"
            )
        if first:
            joined[name] = torch.empty((rows, *value.shape[1:]), dtype=value.dtype)
        whole = joined.get(name)
        if whole is None or whole.shape[1:] != value.shape[1:] or whole.dtype != value.dtype:
            raise ValueError(f"{step}: {name} differs between batches in name, shape or dtype")
        whole[start:stop] = value
    missing = sorted(set(joined) - set(result))
    if missing:
        raise ValueError(f"{step}: {missing[0]} is missing from another batch")
