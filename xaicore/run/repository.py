"""The working copy that a run or a book belongs to: its folder, its commit and its public address.

The address is ``[project.urls] Repository`` of pyproject.toml; failing that the repository that a GitHub workflow runs
for; failing that the git remote ``origin``, over https or SSH. Where none gives one, no page shows a launch button.
"""

import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from pathlib import Path

from xaicore.core.errors import UserError

ADDRESS = re.compile(
    r"(?:https://(?:[^/@]*@)?|ssh://(?:[^/@]*@)?|[^/@:]+@)(?P<host>[^/:@]+\.[^/:@]+)(?P<port>:\d+)?[/:](?P<path>[^/:]+/.+?)(?:\.git)?/?"
)
"""``https://host/owner/name``, ``ssh://git@host/owner/name`` and ``git@host:owner/name``, with or without ``.git``."""


@dataclass(frozen=True)
class PublicRepository:
    """Where readers find the sources of this copy.

    Attributes:
        address: of its page, over https, without a trailing ``.git``.
        branch: branch or tag that holds this copy; a commit where no branch is known.
        version: what to install: this very commit where it is public, else ``branch``.
    """

    address: str
    branch: str
    version: str


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


def public_repository(root: Path) -> PublicRepository | None:
    """Return the public repository of the working copy at ``root``, None where it has none.

    The branch is ``[tool.xaicore] branch`` of pyproject.toml, the ref of the workflow, the branch that the current one
    follows, or the remote's main one, in this order.

    Raises:
        UserError: ``[project.urls] Repository`` is no address of a repository.
    """
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    named = settings.get("project", {}).get("urls", {}).get("Repository")
    workflow = "/".join(os.environ.get(name, "") for name in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY"))
    found = [
        ADDRESS.fullmatch(each or "") for each in (named, workflow, _git(root, "remote", "get-url", "origin"))
    ]
    if named and not found[0]:
        raise UserError(
            f"[project.urls] Repository in pyproject.toml must look like https://host/owner/name, not {named}"
        )
    match = next((each for each in found if each), None)
    if match is None:
        return None
    port = match["port"] if match[0].startswith("https") and match["port"] else ""
    branch = settings.get("tool", {}).get("xaicore", {}).get("branch")
    branch = branch or os.environ.get("GITHUB_REF_NAME") or _branch(root)
    public = (
        _git(root, "rev-parse", "HEAD") if _git(root, "branch", "--remotes", "--contains", "HEAD") else None
    )
    version = os.environ.get("GITHUB_SHA") or public or branch
    return PublicRepository(f"https://{match['host']}{port}/{match['path']}", branch, version)


def _branch(root: Path) -> str:
    for ref in ("HEAD@{upstream}", "origin/HEAD"):
        if followed := _git(root, "rev-parse", "--abbrev-ref", ref):
            return followed.removeprefix("origin/")
    return _git(root, "branch", "--show-current") or _git(root, "rev-parse", "HEAD") or "main"


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
