"""Where the project lies and what its public address is.

The address stands in one place, ``[project.urls] Repository`` of pyproject.toml; failing that it is the git remote
``origin`` when that is the https address of a code host. Where neither gives one, no page shows a launch button.
"""

import re
import subprocess
import tomllib
from pathlib import Path

from xaicore.core.errors import UserError
from xaicore.run.repository import working_copy

CODE_HOSTS = ("github.com", "gitlab.com", "codeberg.org", "bitbucket.org")


def find_root(start: Path | None = None) -> Path:
    """Return the nearest folder at or above ``start`` (default: here) that holds this project.

    Raises:
        UserError: no such folder.
    """
    root = working_copy(start)
    if root is None:
        raise UserError(
            "this folder is not inside the project; change to the one that holds editions/ and notebooks/"
        )
    return root


def repository_address(root: Path) -> str | None:
    """Return the https address of the public repository without a trailing ``.git``, or None where it has none."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8")).get("project", {})
    address = project.get("urls", {}).get("Repository") or _origin(root)
    if not address:
        return None
    address = re.sub(r"(\.git)?/?$", "", address)
    match = re.fullmatch(r"https://(?:[^/@]*@)?([^/:]+)/[^/]+/.+", address)
    if match is None or match.group(1) not in CODE_HOSTS:
        return None
    return re.sub(r"^https://[^/@]*@", "https://", address)


def _origin(root: Path) -> str | None:
    answer = subprocess.run(
        ["git", "-C", str(root), "remote", "get-url", "origin"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None if answer.returncode == 0 else None
