"""What is said and done about the machine's memory."""

import platform
import subprocess
import sys

import pytest
import torch

from xaicore.core.machine import ONEDNN, instruction_sets, machine_name
from xaicore.run import store
from xaicore.run.store import Store

SCATTERED = """
import torch
from xaicore.core.machine import peak_memory_bytes, return_free_memory

def resident():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) / 2**10 for line in file if line.startswith("RssAnon"))

before = resident()
pairs = [(torch.ones(2**16), torch.ones(64)) for _ in range(400)]  # 100 MiB, small ones between
full = resident()
small = [pair[1] for pair in pairs]
del pairs
freed = resident()
return_free_memory()
print(before, full, freed, resident(), peak_memory_bytes() / 2**20)
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="only glibc keeps what is freed so: needs Linux",
)
def test_freed_memory_between_what_is_kept_goes_back():
    large = torch.ones(100 * 2**20)  # 400 MiB of the process that starts the other, which are not the other's
    answer = subprocess.run([sys.executable, "-c", SCATTERED], capture_output=True, text=True, check=True)
    assert large[-1] == 1
    before, full, freed, after, peak = map(float, answer.stdout.split())
    assert full - before > 90
    assert full - freed < 10, "the C library keeps it"
    assert after - before < 20
    assert full - 1 < peak < full + 20


@pytest.mark.parametrize(("seconds", "times"), [(0.0, 3), (3600.0, 0)])
def test_computing_gives_memory_back_but_not_at_every_step(tmp_path, monkeypatch, seconds, times):
    calls = []
    monkeypatch.setattr(store, "TIDY_SECONDS", seconds)
    monkeypatch.setattr(store, "return_free_memory", lambda: calls.append(1))
    for _ in range(2):
        kept = Store(tmp_path)
        for number in range(3):
            kept.get_or_compute("count", {"number": number}, lambda: {"one": 1}, code=Store)
    assert len(calls) == times, "and not for what was found"


def test_a_processor_is_named_with_its_instruction_sets(monkeypatch):
    found = instruction_sets()
    assert found["torch"] == torch.backends.cpu.get_cpu_capability()
    assert found.get("oneDNN") in {None, *ONEDNN.values()}
    able = {"avx2": True, "avx512_bw": True, "avx512_vnni": True, "avx512_bf16": False}
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able, raising=False)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(
        "xaicore.core.machine.threadpool_info",
        lambda: [{"architecture": "Zen"}, {"internal_api": "openmp"}, {"architecture": "Zen"}],
    )
    assert instruction_sets() == {"torch": "AVX512", "oneDNN": "avx512_core_vnni", "BLAS": "Zen"}
    named = machine_name({"device": "AMD EPYC", "instruction_sets": instruction_sets()})
    assert named == "AMD EPYC (torch AVX512, oneDNN avx512_core_vnni, BLAS Zen)"
    assert machine_name({"device": "AMD EPYC"}) == "AMD EPYC"
