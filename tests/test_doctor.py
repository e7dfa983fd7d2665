"""The doctor: what is there, what is missing, in plain words."""

import importlib.metadata
from pathlib import Path

import pytest

from tests.test_paper_edition import mnist
from xaicore.book import cli, doctor
from xaicore.book.doctor import Finding, examine

ROOT = Path(__file__).parents[1]


@pytest.fixture
def quick(monkeypatch):
    """Without starting a kernel, which the runner's tests do."""
    monkeypatch.setattr(doctor, "_kernel", lambda: Finding("ok", "a Jupyter kernel starts"))
    monkeypatch.delenv("XAICORE_DATA", raising=False)


def _text(findings):
    return "\n".join(map(str, findings))


def test_a_kernel_starts():
    assert doctor._kernel().mark == "ok"


def test_a_complete_machine_can_run_the_embedded_edition(quick, monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    assert cli.main(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "ok  edition embedded can run" in text
    assert "edition reference cannot run: it needs cats-vs-dogs in XAICORE_DATA" in text
    for name in ("mnist-5k", "orl-faces", "imagenet-20"):
        assert f"ok  image set {name}" in text


def test_a_missing_package_is_named_and_stops_the_editions(quick, monkeypatch):
    installed = importlib.metadata.version

    def version(name):
        if name == "foolbox":
            raise importlib.metadata.PackageNotFoundError(name)
        return "0.1" if name == "captum" else installed(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    findings, well = examine(ROOT)
    assert not well
    text = _text(findings)
    assert "missing  package foolbox: not installed" in text
    assert "missing  package captum 0.1: >=0.9 is needed" in text
    assert "edition embedded cannot run: it needs what is marked as missing above" in text


def test_damaged_package_data_is_missing_not_a_traceback(quick, monkeypatch):
    def broken(*arguments, **options):
        raise FileNotFoundError("mnist_5k.csv.gz is not there")

    monkeypatch.setattr("xaicore.data.load", broken)
    findings, well = examine(ROOT)
    assert not well
    assert "mnist_5k.csv.gz is not there" in _text(findings)


def test_data_folders_are_found(quick, monkeypatch, tmp_path):
    for folder in ("cats-vs-dogs-112/train", "cats-vs-dogs-112/test", "faces-21/train", "faces-21/test"):
        for name in ("a", "b"):
            (tmp_path / folder / name).mkdir(parents=True)
            (tmp_path / folder / name / "1.jpg").touch()
    (tmp_path / "imagenet-sample-500" / "n01440764").mkdir(parents=True)
    (tmp_path / "imagenet-sample-500" / "n01440764" / "1.JPEG").touch()
    mnist(tmp_path)
    monkeypatch.setenv("XAICORE_DATA", str(tmp_path))
    monkeypatch.setattr(doctor, "_memory_bytes", lambda: None)
    findings, _ = examine(ROOT)
    text = _text(findings)
    assert "     ok  XAICORE_DATA holds cats-vs-dogs, faces, imagenet, mnist" in text
    assert "edition reference can run" in text
    (tmp_path / "faces-21" / "test" / "c").mkdir()
    findings, well = examine(ROOT)
    text = _text(findings)
    assert well, "the embedded edition needs no folder"
    assert "missing  XAICORE_DATA: faces-21 has class folder 'c' in one split but not in the other" in text
    assert "edition reference cannot run: it needs faces in XAICORE_DATA" in text
