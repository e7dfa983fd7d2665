"""Where the project lies and what its address is."""

import subprocess
from pathlib import Path

import pytest

from xaicore.core.errors import UserError
from xaicore.run.repository import find_root, repository_address

ROOT = Path(__file__).resolve().parent.parent


def project(folder: Path, urls: str = "") -> Path:
    (folder / "pyproject.toml").write_text(f'[project]\nname = "x"\n{urls}', encoding="utf-8")
    return folder


def test_the_root_is_found_from_inside_and_missed_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT / "tests")
    assert find_root() == ROOT
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="not inside the project"):
        find_root()


def test_the_address_stands_in_pyproject(tmp_path: Path) -> None:
    urls = '[project.urls]\nRepository = "https://github.com/someone/book.git"\n'
    assert repository_address(project(tmp_path, urls)) == "https://github.com/someone/book"


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/someone/book.git", "https://github.com/someone/book"),
        ("https://token@gitlab.com/group/sub/book", "https://gitlab.com/group/sub/book"),
        ("git@github.com:someone/book.git", None),
        ("/some/folder/book", None),
        ("https://intranet.example.org/someone/book", None),
    ],
)
def test_otherwise_an_https_origin_on_a_code_host_counts(
    tmp_path: Path, remote: str, address: str | None
) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    subprocess.run(["git", "-C", str(tmp_path), "remote", "add", "origin", remote], check=True)
    assert repository_address(project(tmp_path)) == address


def test_no_address_at_all(tmp_path: Path) -> None:
    assert repository_address(project(tmp_path)) is None
