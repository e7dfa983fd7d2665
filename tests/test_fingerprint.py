"""Digests: the same content gives the same digest, other content another one."""

import copy
import dataclasses
import importlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from xaicore.core import fingerprint
from xaicore.core.fingerprint import code_digest, digest, module_fingerprint, source_digest

FACTOR = 2.0


def scaled(images):
    """Multiply."""
    return images * FACTOR


def helped(images):
    return scaled(images) + 1


def described(images):
    return images + fingerprint.PACKAGE.count("x")


@dataclasses.dataclass(frozen=True)
class Recipe:
    epochs: int
    rate: float


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (1, 1.0),
        (1, True),
        ("1", 1),
        (None, "None"),
        (["ab", "c"], ["a", "bc"]),
        ([[1], 2], [1, [2]]),
        (torch.zeros(2, 3), torch.zeros(3, 2)),
        (torch.zeros(2), torch.zeros(2, dtype=torch.float64)),
        (torch.zeros(2, dtype=torch.bool), torch.zeros(2, dtype=torch.uint8)),
        (torch.zeros(2, dtype=torch.bfloat16), torch.zeros(2, dtype=torch.int16)),
        (Recipe(1, 0.1), Recipe(2, 0.1)),
        ({"a": 1}, {"a": 2}),
    ],
)
def test_other_content_gives_another_digest(one, two):
    assert digest(one) != digest(two)


def test_same_content_gives_the_same_digest(tmp_path):
    assert digest({"a": 1, "b": [2, None]}) == digest({"b": (2, None), "a": 1})
    image = torch.arange(12.0).reshape(3, 4)
    assert digest(image) == digest(image.numpy()) == digest(image.t().contiguous().t())
    assert digest(np.bool_(True), np.int64(3), np.float64(0.5)) == digest(True, 3, 0.5)
    (tmp_path / "a").write_bytes(b"weights")
    (tmp_path / "b").write_bytes(b"weights")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


class Scaled(torch.nn.Module):
    def __init__(self, factor=2.0, shift=0.0, how=None):
        super().__init__()
        self.factor, self.how, self.unstable = factor, how, object()
        self.register_buffer("shift", torch.tensor(shift), persistent=False)

    def forward(self, x):
        return x * self.factor + self.shift


class Doubled(Scaled):
    def forward(self, x):
        return 2 * super().forward(x)


def test_what_a_module_computes_with_beside_its_weights_counts():
    same = [Scaled(), Scaled(), copy.deepcopy(Scaled())]
    others = [Scaled(3.0), Scaled(shift=1.0), Scaled(how=scaled), Scaled(how=helped), Doubled()]
    Doubled.__repr__ = Scaled.__repr__ = lambda self: "alike"
    assert len({module_fingerprint(each) for each in same}) == 1
    assert len({module_fingerprint(each) for each in (same[0], *others)}) == 6
    whole = [torch.nn.Sequential(torch.nn.Identity(), each) for each in (*same, *others)]
    assert len({module_fingerprint(each) for each in whole}) == 6


@pytest.mark.parametrize("thing", [object(), {1, 2}, np.array([object()]), lambda: None])
def test_what_has_no_stable_content_is_refused(thing):
    with pytest.raises(TypeError, match="no stable digest"):
        digest(thing)


def test_code_outside_the_package_counts_with_the_values_and_functions_it_uses(monkeypatch):
    before = code_digest(scaled), code_digest(helped)
    assert before == (code_digest(scaled), code_digest(helped))
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 3.0)
    assert code_digest(scaled) != before[0]
    assert code_digest(helped) != before[1]


def test_nested_functions_and_enclosed_values_count():
    def make(number):
        def inner(images):
            return images + number

        return inner

    assert code_digest(make(1)) == code_digest(make(1))
    assert code_digest(make(1)) != code_digest(make(2))
    with pytest.raises(TypeError, match="uses number"):
        code_digest(make(object()))


def _package(folder: Path, monkeypatch, helper: str):
    """Make a package with a module that imports another, and let the digests take it for this project's."""
    package = folder / "toypackage"
    package.mkdir(exist_ok=True)
    (package / "__init__.py").write_text("")
    (package / "work.py").write_text(
        '"""Doc."""\nfrom toypackage import helper\n\ndef work():\n    return helper.one()\n'
    )
    (package / "helper.py").write_text(helper)
    (package / "apart.py").write_text("x = 1\n")
    monkeypatch.setattr(fingerprint, "PACKAGE", "toypackage")
    monkeypatch.syspath_prepend(str(folder))
    fingerprint._closure_digest.cache_clear()
    fingerprint._read.cache_clear()
    importlib.invalidate_caches()
    return importlib.import_module("toypackage.work").work


def test_imported_modules_count_but_comments_and_docstrings_do_not(tmp_path, monkeypatch):
    try:
        work = _package(tmp_path, monkeypatch, "def one():\n    return 1\n")
        before, cells = code_digest(work), source_digest("import toypackage\ntoypackage.work.work()\n")
        _package(tmp_path, monkeypatch, '"""Doc."""\n\ndef one():\n    """One."""\n    return 1  # one\n')
        assert code_digest(work) == before
        _package(tmp_path, monkeypatch, "def one():\n    return 2\n")
        assert code_digest(work) != before
        assert source_digest("import toypackage\ntoypackage.work.work()\n") != cells
    finally:
        fingerprint._closure_digest.cache_clear()
        fingerprint._read.cache_clear()


def test_code_of_the_package_and_of_a_module_alias():
    assert code_digest(digest) != code_digest(code_digest)
    assert code_digest(described) == code_digest(described)


def test_threads_do_not_parse_side_by_side(monkeypatch):
    parse, inside, most, count = fingerprint.ast.parse, 0, 0, threading.Lock()

    def slow(*arguments, **keywords):
        nonlocal inside, most
        with count:
            inside += 1
            most = max(most, inside)
        time.sleep(0.002)
        try:
            return parse(*arguments, **keywords)
        finally:
            with count:
                inside -= 1

    monkeypatch.setattr(fingerprint.ast, "parse", slow)
    fingerprint._closure_digest.cache_clear()
    fingerprint._read.cache_clear()
    with ThreadPoolExecutor(4) as pool:
        inner = [pool.submit(code_digest, fingerprint.digest) for _ in range(2)]
        outer = [pool.submit(source_digest, "from xaicore import errors") for _ in range(2)]
        assert len({future.result() for future in inner}) == 1
        assert len({future.result() for future in outer}) == 1
    assert most == 1
