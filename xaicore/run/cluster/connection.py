"""The way to a Ray cluster: what an address may say, and one clear line where there is no way."""

import atexit
import importlib
import importlib.util
import logging
import os
import re
import shutil
import socket
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from xaicore.core.errors import UserError
from xaicore.run.engine import cores

CLIENT_PORT = 10001
REACH_SECONDS = 5.0
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints the death of a worker into the notebook; we deal with it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise Ray warns that this will be the default
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "5",  # three attempts of 5 s each
}
HOME = Path("/tmp")
"""The path of a socket has at most 107 bytes, of which Ray needs 64: ``$TMPDIR`` may be too long."""
PREFIX = "xaicore-ray-"


def check(spec: str) -> None:
    """Raise a :class:`~xaicore.core.errors.UserError` unless ``spec`` is an address of a cluster that answers.

    Whether it is Ray that answers is known once ``connect`` has talked to it.
    """
    address = _address(spec)
    if importlib.util.find_spec("ray") is None:
        raise UserError("a Ray cluster needs the extra 'cluster'; install it: pip install -e '.[cluster]'")
    if address == "auto":
        address = os.environ.get("RAY_ADDRESS") or address
    place = address.removeprefix("ray://")
    if ":" not in place:
        return
    host, _, port = place.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), REACH_SECONDS).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UserError(
            f"no Ray cluster answers at {place} ({reason.lower()}); is it up, and is this "
            "the port of its Ray Client server?"
        ) from None


def _address(spec: str) -> str:
    """Return what Ray is told: ``auto``, ``local`` or ``ray://HOST:PORT``."""
    if spec in ("ray://auto", "ray://local"):
        return spec.removeprefix("ray://")
    found = re.fullmatch(r"ray://([^\s:/?#@\[\]]+|\[[0-9a-fA-F:.]+\])(?::(\d+))?/?", spec)
    if found and int(found[2] or CLIENT_PORT) < 2**16:
        return f"ray://{found[1]}:{found[2] or CLIENT_PORT}"
    raise UserError(
        f"{spec!r} is no address of a Ray cluster; write ray://HOST:PORT, ray://auto or ray://local"
    )


def connect(spec: str) -> Any:
    """Connect this process to a cluster, unless it is connected already, and return the module ``ray``.

    Call it in the main thread: a cluster of ``ray://local`` ends with the thread that began it.

    Raises:
        UserError: no cluster answers, or it is of another version.
    """
    check(spec)
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with _hushed():
        ray = importlib.import_module("ray")
        if ray.is_initialized():
            return ray
        address = _address(spec)
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
        if address == "local":
            options |= {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": _folder()}
        try:
            ray.init(address, **options)
        except Exception as error:  # Ray raises all kinds of errors here
            if address == "auto" and isinstance(error, ConnectionError):
                raise UserError(
                    "no Ray cluster is found on this machine; begin one (ray start --head), or use ray://local"
                ) from None
            reason = next(iter(str(error).strip().splitlines()), "no reason given")
            raise UserError(f"no connection to the Ray cluster {spec}: {reason}") from error
    return ray


def _folder() -> str:
    """Return a new folder for a cluster of this machine: sockets and logs, nothing that is needed later.

    It goes with this process; those of processes that were killed go now.
    """
    for left in HOME.glob(f"{PREFIX}[0-9]*-*"):
        if not psutil.pid_exists(int(left.name.split("-")[2])):
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-", dir=HOME)

    def end() -> None:
        importlib.import_module("ray").shutdown()
        shutil.rmtree(folder, ignore_errors=True)

    atexit.register(end)
    return folder


@contextmanager
def _hushed() -> Iterator[None]:
    """Keep Ray from telling notebooks which packages would make it look nicer there."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        logging.disable(before)


@contextmanager
def for_notebooks(spec: str) -> Iterator[dict[str, str]]:
    """Connect once, and give the variables with which notebooks' processes reach the same cluster.

    A cluster of ``ray://local`` begins here, lasts as long as the context, and is shared by the notebooks.

    Raises:
        UserError: no cluster answers.
    """
    address = _address(spec)
    began = "ray" not in sys.modules or not sys.modules["ray"].is_initialized()  # without importing it
    ray = connect(spec)
    try:
        if address == "local":
            where = ray.get_runtime_context().gcs_address
            yield {"XAICORE_ENGINE": "ray://auto", "RAY_ADDRESS": where}
        else:
            if began:
                ray.shutdown()
            yield {"XAICORE_ENGINE": spec}
    finally:
        if began:
            ray.shutdown()
