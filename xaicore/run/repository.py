"""The working copy that a run belongs to: its folder and its commit."""

import subprocess
from pathlib import Path


def working_copy(start: Path | None = None) -> Path | None:
    """Return the nearest folder at or above ``start`` (default: here) that holds this project, or None."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (
            (folder / "editions").is_dir()
            and (folder / "notebooks").is_dir()
            and (folder / "pyproject.toml").is_file()
        ):
            return folder
    return None


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
