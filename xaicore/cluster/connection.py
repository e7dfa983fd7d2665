"""The way to a Ray cluster: what an address may say, and one clear line where there is no way."""

import atexit
import importlib
import importlib.util
import logging
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

from xaicore.cluster.folder import Folder
from xaicore.engine import cores
from xaicore.errors import UserError

SCHEME = "ray://"
CLIENT_PORT = 10001
REACH_SECONDS = 5.0
QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
    "RAY_DEDUP_LOGS_SKIP_REGEX": ".",  # Ray prints the death of a worker into the notebook; we deal with it
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # otherwise Ray warns that this will be the default
    "RAY_CLIENT_MAX_CONNECTION_TIMEOUT_S": "5",  # three attempts of 5 s each
}
_folders: list[Folder] = []


def check(spec: str) -> None:
    """Raise a :class:`~xaicore.errors.UserError` unless ``spec`` is an address of a cluster that answers.

    Whether it is Ray that answers is known once ``connect`` has talked to it.
    """
    place = _place(spec)
    if importlib.util.find_spec("ray") is None:
        raise UserError("a Ray cluster needs the extra 'cluster'; install it: pip install -e '.[cluster]'")
    if isinstance(place, tuple) and importlib.util.find_spec("grpc") is None:
        raise UserError(
            "Ray Client needs the package grpcio, part of the extra 'cluster': pip install -e '.[cluster]'"
        )
    if place == "auto":
        host, _, port = os.environ.get("RAY_ADDRESS", "").removeprefix(SCHEME).rpartition(":")
        place = (host, int(port)) if host and port.isdigit() else place
    if isinstance(place, tuple):
        try:
            socket.create_connection(place, timeout=REACH_SECONDS).close()
        except OSError as error:
            reason = error.strerror or str(error) or type(error).__name__
            raise UserError(
                f"no Ray cluster answers at {place[0]}:{place[1]} ({reason.lower()}); is it up, and is this the port "
                "of its Ray Client server?"
            ) from None


def _place(spec: str) -> str | tuple[str, int]:
    """Return ``"auto"``, ``"local"``, or host and port."""
    name = spec.removeprefix(SCHEME)
    if spec.startswith(SCHEME) and name in ("auto", "local"):
        return name
    try:
        parts = urlsplit(spec)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not spec.startswith(SCHEME) or not host or parts.path or parts.query or parts.username:
        raise UserError(
            f"{spec!r} is no address of a Ray cluster; write ray://HOST:PORT, ray://auto or ray://local"
        )
    return host, port or CLIENT_PORT


def quiet_ray() -> Any:
    """Return the module ``ray``, imported so that it neither prints into notebooks nor reports its use."""
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    with _hushed():
        return importlib.import_module("ray")


def connect(spec: str) -> Any:
    """Connect this process to a cluster, unless it is connected already, and return the module ``ray``.

    Call it in the main thread: a cluster of ``ray://local`` ends with the thread that began it.

    Raises:
        UserError: no cluster answers, or it is of another version.
    """
    check(spec)
    ray = quiet_ray()
    if ray.is_initialized():
        return ray
    place = _place(spec)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.CRITICAL}
    if place == "local":
        _folders.append(Folder())
        options |= {"num_cpus": cores(), "include_dashboard": False, "_temp_dir": str(_folders[-1].path)}
        atexit.register(disconnect)
    elif place == "auto":
        options |= {"address": os.environ.get("RAY_ADDRESS") or "auto"}
    else:
        options |= {"address": f"{SCHEME}{place[0]}:{place[1]}"}
    try:
        # An address in the environment would win over a cluster that is to begin here.
        with _hushed(), _without("RAY_ADDRESS"):
            ray.init(**options)
    except Exception as error:  # Ray raises all kinds of errors here
        if options.get("address") == "auto" and isinstance(error, ConnectionError):
            raise UserError(
                "no Ray cluster is found on this machine; begin one (ray start --head), or use ray://local"
            ) from None
        if place == "local":
            disconnect()
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "no reason given")
        raise UserError(f"no connection to the Ray cluster {spec}: {reason}") from error
    return ray


def disconnect() -> None:
    """Leave the cluster; one that began here ends, and its folder goes."""
    quiet_ray().shutdown()
    while _folders:
        _folders.pop().remove()


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
def _without(name: str) -> Iterator[None]:
    value = os.environ.pop(name, None)
    try:
        yield
    finally:
        if value is not None:
            os.environ[name] = value


@contextmanager
def for_notebooks(spec: str) -> Iterator[dict[str, str]]:
    """Connect once, and give the variables with which notebooks' processes reach the same cluster.

    A cluster of ``ray://local`` begins here, lasts as long as the context, and is shared by the notebooks.

    Raises:
        UserError: no cluster answers.
    """
    check(spec)
    before = quiet_ray().is_initialized()
    ray = connect(spec)
    leave = (lambda: None) if before else disconnect
    if _place(spec) != "local":
        leave()
        yield {"XAICORE_ENGINE": spec}
        return
    try:
        address = ray.get_runtime_context().gcs_address
        yield {"XAICORE_ENGINE": f"{SCHEME}auto", "RAY_ADDRESS": address}
    finally:
        leave()
