"""A kernel that is there before it is asked for.

A notebook's kernel spends its first seconds on imports. Here a process that has done them already makes a copy of
itself, which waits until jupyter_client wants a kernel and then becomes it. To jupyter_client and to the notebook
it is a kernel like any other: a child of the process that executes the notebook, in a session of its own.
"""

import atexit
import importlib.util
import json
import os
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any, ClassVar

from jupyter_client.provisioning import KernelProvisionerFactory, LocalProvisioner

from xaicore.book.processes import ForkedProcess

LAUNCHER = "ipykernel_launcher"
FIXED_SEED = 67280421310721
"""What torch seeds its generator with on import, in versions that do not take a random seed."""


class WarmKernel(ForkedProcess):
    """A child process that waits to become a kernel; it ends by itself when this process ends before."""

    stdin = stdout = stderr = None

    def __init__(self) -> None:
        """Fork. In the child, which becomes the kernel, this does not return."""
        read, self._write = os.pipe()
        self.returncode: int | None = None
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._write)
            _become_kernel(read)
        os.close(read)

    def start(self, command: Sequence[str], environment: Mapping[str, str], folder: str) -> bool:
        """Let the child become the kernel that a command would start.

        Args:
            command: what jupyter_client would execute.
            environment: all environment variables of the kernel.
            folder: where it is to work.

        Returns:
            Whether it does; not for a command that starts something else, nor when the child is gone.
        """
        if list(command[:3]) != [sys.executable, "-m", LAUNCHER]:
            os.close(self._write)
            return False
        order = {"arguments": list(command[3:]), "environment": dict(environment), "folder": folder}
        try:
            with open(self._write, "wb") as pipe:
                pipe.write(json.dumps(order).encode())
        except BrokenPipeError:
            return False
        return self.poll() is None

    def poll(self) -> int | None:
        """Return the exit status, negative for a signal; None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the process has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)


class WarmProvisioner(LocalProvisioner):
    """Gives a notebook the kernel that waits; where none does, for instance at a second start, starts one."""

    waiting: ClassVar[WarmKernel | None] = None

    async def launch_kernel(self, cmd: list[str], **kwargs: Any) -> Any:
        """Launch a kernel with a command, see :class:`jupyter_client.provisioning.LocalProvisioner`."""
        kernel, WarmProvisioner.waiting = WarmProvisioner.waiting, None
        environment = {**kwargs.get("env", os.environ), "JPY_PARENT_PID": str(os.getpid())}
        if kernel is None or not kernel.start(cmd, environment, kwargs.get("cwd") or os.getcwd()):
            return await super().launch_kernel(cmd, **kwargs)
        self.process = kernel  # type: ignore[assignment]  # it has all that is used of a Popen
        self.pid = self.pgid = kernel.pid
        self.cwd = kwargs.get("cwd", Path.cwd())
        return self.connection_info


def offer_kernel() -> None:
    """Fork a :class:`WarmKernel`; jupyter_client takes it for the first kernel that this process wants.

    To be called before there is a thread, an event loop or a ZeroMQ context.
    """
    WarmProvisioner.waiting = WarmKernel()
    factory = KernelProvisionerFactory.instance(default_provisioner_name="warm")
    place = f"{__name__}:{WarmProvisioner.__name__}"
    factory.provisioners["warm"] = EntryPoint("warm", place, KernelProvisionerFactory.GROUP_NAME)


def _become_kernel(orders: int) -> None:
    """Wait for what :meth:`WarmKernel.start` writes, then be what ``python -m ipykernel_launcher`` would be."""
    os.setsid()
    with open(orders, "rb") as pipe:
        text = pipe.read()
    if not text:
        os._exit(0)
    order = json.loads(text)
    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    if sys.path[0] == "" or Path(sys.path[0]) == Path.cwd():
        del sys.path[0]  # as the launcher does
    spec = importlib.util.find_spec(LAUNCHER)
    sys.argv = [(spec and spec.origin) or LAUNCHER, *order["arguments"]]
    _seed_anew()
    from ipykernel.kernelapp import IPKernelApp

    IPKernelApp.launch_instance(order["arguments"], parent_handle=int(os.environ["JPY_PARENT_PID"]))
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # to take apart all that was imported would take a second


def _seed_anew() -> None:
    """Seed the global generators as their import would have done; Python's own does so by itself after a fork."""
    numpy, torch = sys.modules.get("numpy"), sys.modules.get("torch")
    if numpy is not None:
        numpy.random.seed()  # this very generator is the one that scipy and scikit-learn use
    if torch is not None and torch.initial_seed() != FIXED_SEED:
        torch.default_generator.seed()
