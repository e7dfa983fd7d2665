"""What a record says of the machine that made it: its processor or GPU, the instruction sets in use, the memory taken."""

import ctypes
import platform
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from threadpoolctl import threadpool_info

ONEDNN = {
    "amx_tile": "avx512_core_amx",
    "avx512_fp16": "avx512_core_fp16",
    "avx512_bf16": "avx512_core_bf16",
    "avx512_vnni": "avx512_core_vnni",
    "avx512_bw": "avx512_core",
    "avx_vnni": "avx2_vnni",
    "avx2": "avx2",
    "sve": "sve",
    "neon": "neon",
}
"""What a processor can do, as torch names it → the code that oneDNN chooses for it (its page on CPU dispatching), the
newest first."""


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


def instruction_sets() -> dict[str, str]:
    """Return the instruction sets that decide how sums are rounded on this processor, library → name.

    ``torch`` says which of its kernels it takes, OpenBLAS (``BLAS``, of NumPy and SciPy) for which architecture. oneDNN's
    choice cannot be asked for through torch: ``oneDNN`` is what it takes on such a processor when nothing limits it, left
    out where torch is too old to say what the processor can do.
    """
    found = {"torch": torch.backends.cpu.get_cpu_capability()}
    if hasattr(torch.cpu, "get_capabilities"):
        able = torch.cpu.get_capabilities()
        newest = next((name for flag, name in ONEDNN.items() if able.get(flag)), None)
        found |= {"oneDNN": newest} if newest else {}
    blas = {str(info["architecture"]) for info in threadpool_info() if info.get("architecture")}
    return found | ({"BLAS": ", ".join(sorted(blas))} if blas else {})


def machine_name(provenance: Mapping[str, Any]) -> str:
    """Return the processor or GPU of a record, with its instruction sets where the record has them.

    Its ``provenance`` is from :meth:`xaicore.run.records.Run.provenance`.
    """
    sets = ", ".join(f"{library} {name}" for library, name in provenance.get("instruction_sets", {}).items())
    return f"{provenance['device']} ({sets})" if sets else str(provenance["device"])


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, in bytes.

    On Linux it is that of the program that runs now, without the unchanged pages of the libraries' files (about 300 MiB):
    all processes share them and the system drops them where memory is short, so that they end no process. ``getrusage``,
    asked elsewhere, counts them, and may count the process that started this one.
    """
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        # What Linux calls the largest resident memory of a process, and its pages of files, in KiB.
        largest, of_files = (int(status.split(f"\n{name}:")[1].split()[0]) for name in ("VmHWM", "RssFile"))
        return (largest - of_files) * 1024
    except (OSError, IndexError):
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def return_free_memory() -> None:
    """Give what was freed back to the system, where the C library keeps it for later (glibc); elsewhere do nothing.

    glibc keeps freed tensors of up to 32 MiB, for each thread that ever had one: hundreds of MiB in a long run.
    """
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
