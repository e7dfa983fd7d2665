"""Where batches run.

``map`` cuts arrays into batches along their first dimension, runs a function on each and joins the results.
Every finished batch is in the store at once, so a process that is killed loses only the batch under way, and
every result is addressed by the content of its own batch. :class:`LocalEngine` works in this process; another
place to work, such as a cluster, is another class with the same ``map``.
"""

import os
from collections.abc import Callable, Mapping
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
    ) -> Result:
        """Run ``function`` on every batch of ``arrays``; see :meth:`LocalEngine.map`."""
        ...


class LocalEngine:
    """Runs the batches one after the other in this process.

    Args:
        store: where finished batches go and are looked for.
    """

    def __init__(self, store: Store) -> None:
        self.store = store

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
            UserError: the store cannot be written to.
        """
        constants = dict(constants or {})
        rows = _rows(arrays, constants, batch_size)
        shared = {"constants": digest(constants), "device": _device_of(constants)}
        joined: dict[str, torch.Tensor] = {}
        seconds, reused = 0.0, True
        progress.report(step, 0, rows)
        for start in range(0, rows, batch_size):
            stop = min(start + batch_size, rows)
            batch = {name: array[start:stop] for name, array in arrays.items()}
            result = self.store.get_or_compute(
                step, {"batch": batch, **shared}, _call(function, batch, constants), code=code or function
            )
            _put(step, joined, result, start, stop, rows)
            seconds += result.seconds
            reused = reused and result.reused
            progress.report(step, stop, rows)
        return Result(joined, seconds=seconds, reused=reused)


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


def _call(
    function: BatchFunction, batch: Mapping[str, torch.Tensor], constants: Mapping[str, Any]
) -> Callable[[], Mapping[str, torch.Tensor]]:
    return lambda: function(**batch, **constants)


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
    """Copy a batch's result into rows ``start`` … ``stop`` of the whole, which the first batch lays out."""
    for name, value in result.items():
        if not isinstance(value, torch.Tensor):
            raise TypeError(f"{step}: {name} must be a tensor, not a {type(value).__name__}")
        if value.ndim < 1 or len(value) != stop - start:
            raise ValueError(
                f"{step}: {name} must have {stop - start} rows like its batch, got shape {tuple(value.shape)}"
            )
        if start == 0:
            joined[name] = torch.empty((rows, *value.shape[1:]), dtype=value.dtype)
        whole = joined.get(name)
        if whole is None or whole.shape[1:] != value.shape[1:] or whole.dtype != value.dtype:
            raise ValueError(f"{step}: {name} differs between batches in name, shape or dtype")
        whole[start:stop] = value
    missing = sorted(set(joined) - set(result))
    if missing:
        raise ValueError(f"{step}: {missing[0]} is missing from a later batch")
