"""Where the project lies and what its address is."""

import subprocess
from pathlib import Path

import pytest

from xaicore.core.errors import UserError
from xaicore.run.repository import PublicRepository, find_root, public_repository

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


@pytest.fixture(autouse=True)
def no_workflow(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_REF_NAME", "GITHUB_SHA"):
        monkeypatch.delenv(name, raising=False)


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    done = subprocess.run(
        ["git", "-C", folder, *identity, *arguments], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_the_address_stands_in_pyproject(tmp_path: Path) -> None:
    setting = '[project.urls]\nRepository = "https://github.com/someone/book.git"\n[tool.xaicore]\nbranch = "stable"\n'
    found = public_repository(project(tmp_path, setting))
    assert found == PublicRepository("https://github.com/someone/book", "stable", "stable")
    with pytest.raises(UserError, match="must look like https://host/owner/name"):
        public_repository(project(tmp_path, '[project.urls]\nRepository = "my book"\n'))


@pytest.mark.parametrize(
    ("remote", "address"),
    [
        ("https://github.com/someone/book.git", "https://github.com/someone/book"),
        ("https://token@gitlab.com/group/sub/book", "https://gitlab.com/group/sub/book"),
        ("git@github.com:someone/book.git", "https://github.com/someone/book"),
        ("ssh://git@git.example.org:2222/someone/book.git", "https://git.example.org/someone/book"),
        ("https://git.example.org:8443/someone/book/", "https://git.example.org:8443/someone/book"),
        ("/some/folder/book", None),
        ("file:///some/folder.d/book", None),
        ("git@localhost:someone/book.git", None),
    ],
)
def test_otherwise_the_origin_counts(tmp_path: Path, remote: str, address: str | None) -> None:
    git(project(tmp_path), "init", "-q", "-b", "trunk")
    git(tmp_path, "remote", "add", "origin", remote)
    found = public_repository(tmp_path)
    assert (found and found.address) == address
    assert found is None or found.branch == "trunk"


def test_the_branch_is_the_one_that_is_followed_and_a_commit_that_is_there_is_installed(
    tmp_path: Path,
) -> None:
    theirs, ours = tmp_path / "theirs.git", tmp_path / "ours"
    git(tmp_path, "init", "-q", "--bare", "-b", "main", str(theirs))
    git(tmp_path, "clone", "-q", str(theirs), str(ours))
    project(ours)
    git(ours, "checkout", "-q", "-b", "main")
    git(ours, "add", ".")
    git(ours, "commit", "-q", "-m", "one")
    git(ours, "push", "-q", "-u", "origin", "main")
    git(ours, "checkout", "-q", "-b", "mine", "--track", "origin/main")
    git(ours, "remote", "set-url", "origin", "git@github.com:someone/book.git")
    public = git(ours, "rev-parse", "HEAD")
    assert public_repository(ours) == PublicRepository("https://github.com/someone/book", "main", public)
    git(ours, "commit", "-q", "--allow-empty", "-m", "not yet pushed")
    assert public_repository(ours) == PublicRepository("https://github.com/someone/book", "main", "main")


def test_a_workflow_knows_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("SERVER_URL", "https://github.com"), ("REPOSITORY", "someone/fork")):
        monkeypatch.setenv(f"GITHUB_{name}", value)
    monkeypatch.setenv("GITHUB_REF_NAME", "main")
    monkeypatch.setenv("GITHUB_SHA", "0123abc")
    found = public_repository(project(tmp_path))
    assert found == PublicRepository("https://github.com/someone/fork", "main", "0123abc")


def test_no_address_at_all(tmp_path: Path) -> None:
    assert public_repository(project(tmp_path)) is None
