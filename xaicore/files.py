"""Files that are either wholly there or not there at all."""

import errno
import os
import uuid
from pathlib import Path

from xaicore.errors import UserError


def write_atomically(path: Path, content: bytes | str, *, what: str) -> Path:
    """Write ``content`` to ``path``: to a temporary name in the same folder, synced to the disk, then
    renamed.

    Args:
        path: final name; a file of that name is replaced.
        content: what to write; text is encoded as UTF-8.
        what: what it is, for the error message.

    Returns:
        ``path``.

    Raises:
        UserError: the disk is full or the folder cannot be written to; nothing is left behind.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:12]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise UserError(
                f"the disk is full: {what} was not written; free some space and run again, the rest is kept"
            ) from error
        raise UserError(
            f"{what} cannot be written to the folder {path.parent.name}: {error.strerror}"
        ) from error
    return path
