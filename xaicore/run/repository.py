"""The working copy that a run or a book belongs to: its folder, its commit and its public address.

The address stands in one place, ``[project.urls] Repository`` of pyproject.toml; failing that it is the git remote
``origin`` when that is the https address of a code host. Where neither gives one, no page shows a launch button.
"""

import re
import subprocess
import tomllib
from pathlib import Path

from xaicore.core.errors import UserError

CODE_HOSTS = ("github.com", "gitlab.com", "codeberg.org", "bitbucket.org")


def working_copy() -> Path | None:
    """Return the nearest folder at or above the current one that holds this project, or None."""
    here = Path.cwd().resolve()
    parts = ("editions", "notebooks", "pyproject.toml")
    return next((at for at in (here, *here.parents) if all((at / part).exists() for part in parts)), None)


def find_root() -> Path:
    """Return the nearest folder at or above this one that holds this project.

    Raises:
        UserError: no such folder.
    """
    root = working_copy()
    if root is None:
        raise UserError(
            "this folder is not inside the project; change to the one that holds editions/ and notebooks/"
        )
    return root


def repository_address(root: Path) -> str | None:
    """Return the https address of the public repository without a trailing ``.git``, or None where it has none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    address = project.get("urls", {}).get("Repository") or _git(root, "remote", "get-url", "origin") or ""
    match = re.fullmatch(r"https://(?:[^/@]*@)?([^/:]+)(/[^/]+/.+?)(\.git)?/?", address)
    return f"https://{match[1]}{match[2]}" if match and match[1] in CODE_HOSTS else None


def commit(root: Path | None) -> tuple[str | None, bool | None]:
    """Return the commit that is checked out at ``root`` and whether the tracked files are unchanged since.

    Both are None where there is no git, no working copy or no commit yet.
    """
    if root is None or not (root / ".git").exists():
        return None, None
    head = _git(root, "rev-parse", "--verify", "HEAD")
    if not head:
        return None, None
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return head, None if changes is None else changes == ""


def _git(root: Path, *arguments: str) -> str | None:
    try:
        answer = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
