"""Where batches run.

``map`` cuts arrays into batches along their first dimension, runs a function on each and joins the results.
Every finished batch is in the store at once, addressed by its content wherever it is computed, so a process that is
killed loses only the batches under way.
"""

import copy
import importlib
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import islice
from types import ModuleType
from typing import Any, cast

import torch

from xaicore.core import progress
from xaicore.core.errors import UserError
from xaicore.core.fingerprint import digest
from xaicore.run.store import Result, Store

SCHEMES = {"ray": "xaicore.run.cluster"}
"""Scheme of an address → the module that has ``get(spec, store)``, ``check`` and ``for_notebooks`` for it."""

BatchFunction = Callable[..., Mapping[str, torch.Tensor]]
Work = Callable[[dict[str, torch.Tensor]], Mapping[str, Any]]
"""Computes one batch; is called from several threads."""
Working = tuple[Work, int, ThreadPoolExecutor]
"""What computes a batch, how many are under way at a time, and the threads that wait for them."""


class Engine(ABC):
    """A place where batches run.

    Args:
        store: where finished batches go and are looked for.
        workers: the most batches that are computed at a time; None leaves it to the engine.

    Raises:
        ValueError: ``workers`` is no whole number of at least 1.
    """

    def __init__(self, store: Store, workers: int | None = None) -> None:
        if workers is not None and (isinstance(workers, bool) or workers < 1):
            raise ValueError(f"workers must be a whole number of at least 1, got {workers!r}")
        self.store = store
        self.workers = workers

    @abstractmethod
    def _working(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        constants: Mapping[str, Any],
    ) -> AbstractContextManager[Working]:
        """Leaving the context by an exception ends what is computed, as far as that can be ended."""

    def map(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        *,
        constants: Mapping[str, Any] | None = None,
        batch_size: int = 32,
        code: Callable[..., Any] | None = None,
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

        Returns:
            Names → tensors (N, …) on the CPU; ``.seconds`` is the sum over the batches when they were
            computed, ``.reused`` whether all of them came out of the store.

        Raises:
            ValueError: no arrays, no rows, unequal first dimensions, a name in both ``arrays`` and
                ``constants``, a batch size below 1, or a result that does not fit.
            TypeError: an array or a result is not a tensor, or a constant has no digest.
            UserError: the store cannot be written to; of an engine with an address, what its module says.
        """
        constants = dict(constants or {})
        rows = _rows(arrays, constants, batch_size)
        shared = {"constants": digest(constants), "device": devices(constants)}
        threads = torch.get_num_threads()
        joined: dict[str, torch.Tensor] = {}
        seconds, reused, done = 0.0, True, 0

        with self._working(step, function, arrays, constants) as (work, most, pool):

            def compute(start: int) -> tuple[int, Result]:
                torch.set_num_threads(threads)
                batch = {name: array[start : start + batch_size] for name, array in arrays.items()}
                inputs = {"batch": batch, **shared}
                return start, self.store.get_or_compute(
                    step, inputs, lambda: work(batch), code=code or function
                )

            progress.report(step, 0, rows)
            starts = iter(range(0, rows, batch_size))
            running: set[Future[tuple[int, Result]]] = set()
            while running := running | {
                pool.submit(compute, start) for start in islice(starts, most - len(running))
            }:
                finished, running = wait(running, return_when=FIRST_COMPLETED)
                for future in finished:
                    start, result = future.result()
                    stop = min(start + batch_size, rows)
                    _put(step, joined, result, start, stop, rows)
                    seconds += result.seconds
                    reused = reused and result.reused
                    done += stop - start
                    progress.report(step, done, rows)
        return Result(joined, seconds=seconds, reused=reused)


class LocalEngine(Engine):
    """Runs the batches in this process, several at a time.

    Small networks leave most of a processor idle when all of its cores work on one batch. So each batch is computed with
    torch's own number of threads (``torch.get_num_threads()``), and as many batches run side by side as there
    are cores for them; every worker has its own copy of the models, also of one that a detector holds. Which worker
    takes a batch changes nothing in its result. Work on a GPU goes one batch at a time.

    Args:
        store: where finished batches go and are looked for.
        workers: batches side by side; None takes ``$XAICORE_WORKERS``, else the cores this process may use
            divided by torch's threads.
    """

    @contextmanager
    def _working(
        self,
        step: str,
        function: BatchFunction,
        arrays: Mapping[str, torch.Tensor],
        constants: Mapping[str, Any],
    ) -> Iterator[Working]:
        copies = threading.local()

        def work(batch: Mapping[str, torch.Tensor]) -> Mapping[str, Any]:
            if not hasattr(copies, "constants"):
                copies.constants = {
                    name: value if _model(value) is None else copy.deepcopy(value)
                    for name, value in constants.items()
                }
            return function(**batch, **copies.constants)

        most = self.workers or int(os.environ.get("XAICORE_WORKERS") or 0)
        if devices(constants):
            most = 1
        most = most or max(1, cores() // torch.get_num_threads())
        with ThreadPoolExecutor(most) as pool:
            yield work, most, pool


def cores() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def get(spec: str | None = None, store: Store | None = None) -> Engine:
    """Return the place where batches run.

    Args:
        spec: ``"local"``, or a Ray cluster: ``"ray://HOST:PORT"``, ``"ray://auto"``, ``"ray://local"``, see
            :mod:`xaicore.run.cluster`; None takes ``$XAICORE_ENGINE``, else ``"local"``.
        store: where finished batches go; None means the default store.

    Raises:
        UserError: an unknown place, one that cannot be reached, or Ray is not installed.
    """
    spec = spec or os.environ.get("XAICORE_ENGINE") or "local"
    check(spec)
    store = store if store is not None else Store()
    return LocalEngine(store) if spec == "local" else cast(Engine, _module_of(spec).get(spec, store))


def check(spec: str) -> None:
    """Raise a :class:`~xaicore.core.errors.UserError` unless :func:`get` can give the engine ``spec``."""
    if spec != "local":
        _module_of(spec).check(spec)


def for_notebooks(spec: str) -> AbstractContextManager[dict[str, str]]:
    """Give the variables with which notebooks' processes get the engine ``spec``; what they share lasts as long.

    Raises:
        UserError: there is no such engine, or it cannot be reached.
    """
    if spec == "local":
        return nullcontext({"XAICORE_ENGINE": spec})
    return cast(AbstractContextManager[dict[str, str]], _module_of(spec).for_notebooks(spec))


def _module_of(spec: str) -> ModuleType:
    scheme, separator, _ = spec.partition("://")
    if not separator or scheme not in SCHEMES:
        raise UserError(f"unknown engine {spec!r}; use --engine local or --engine ray://HOST:PORT")
    return importlib.import_module(SCHEMES[scheme])


def _model(value: Any) -> torch.nn.Module | None:
    """Return ``value`` if it is a model, else the model that it holds, such as that of a detector, or None."""
    model = value if isinstance(value, torch.nn.Module) else getattr(value, "model", None)
    return model if isinstance(model, torch.nn.Module) else None


def _rows(arrays: Mapping[str, torch.Tensor], constants: Mapping[str, Any], batch_size: int) -> int:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number of at least 1, got {batch_size!r}")
    if not arrays:
        raise ValueError("arrays must hold at least one tensor")
    for name, array in arrays.items():
        if not isinstance(array, torch.Tensor) or array.ndim < 1:
            raise TypeError(f"arrays[{name!r}] must be a tensor with at least one dimension")
        if name in constants:
            raise ValueError(f"constants and arrays share the name {name!r}")
    counts = {name: len(array) for name, array in arrays.items()}
    if len(set(counts.values())) > 1:
        raise ValueError(f"arrays must agree in their first dimension, got {counts}")
    rows = next(iter(counts.values()))
    if rows == 0:
        raise ValueError("arrays must have at least one row")
    return rows


def devices(constants: Mapping[str, Any]) -> list[torch.Tensor]:
    """Return empty tensors on the devices of the constants: they tell the store where the work is done."""
    devices: set[torch.device] = set()
    for value in constants.values():
        if (model := _model(value)) is not None:
            devices.update(parameter.device for parameter in model.parameters())
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
            shape = tuple(value.shape)
            raise ValueError(
                f"{step}: {name} must have {stop - start} rows like its batch, got shape {shape}"
            )
        if first:
            joined[name] = torch.empty((rows, *value.shape[1:]), dtype=value.dtype)
        whole = joined.get(name)
        if whole is None or whole.shape[1:] != value.shape[1:] or whole.dtype != value.dtype:
            raise ValueError(f"{step}: {name} differs between batches in name, shape or dtype")
        whole[start:stop] = value
    if missing := sorted(set(joined) - set(result)):
        raise ValueError(f"{step}: {missing[0]} is missing from another batch")
