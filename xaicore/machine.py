"""What a record says of the machine that made it: the name of its processor or GPU, and the memory that was taken."""

import ctypes
import platform
import resource
import sys
from pathlib import Path

import torch


def device_name(device: str) -> str:
    """Return the name of the processor or GPU that ``device`` (such as ``cpu``, ``cuda:0``) stands for."""
    if device.startswith("cuda") and torch.cuda.is_available():
        return torch.cuda.get_device_name(torch.device(device))
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    Linux says it of the program that runs now; ``getrusage``, asked elsewhere, may count the process that started this
    one as well.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def return_free_memory() -> None:
    """Give what was freed back to the system, where the C library keeps it for later (glibc); elsewhere do nothing.

    glibc keeps freed tensors of up to 32 MiB, for each thread that ever had one: hundreds of MiB in a long run.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
