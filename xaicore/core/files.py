"""Files that are either wholly there or not there at all."""

import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xaicore.core.errors import UserError

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_disk_full(error: OSError) -> bool:
    """Return whether an error means that there is no room left, also where several files were copied at once."""
    if isinstance(error, shutil.Error):  # has the reasons of its parts as text only
        return any(os.strerror(number) in str(error) for number in FULL)
    return error.errno in FULL


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Tell in one line that ``what``, such as ``the book``, cannot be written, wherever inside the block or decorated
    function it comes up.

    Raises:
        UserError: the disk is full, or a folder cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise UserError(disk_full(what)) from error
        if error.errno in DENIED and error.filename is not None:
            name = Path(os.fsdecode(error.filename)).name
            raise UserError(f"{what} cannot be written: {name}: {error.strerror}") from error
        raise


def nearest(folder: Path) -> Path:
    """Return the folder itself where there is one, else the nearest above it."""
    return next(place for place in (folder, *folder.parents) if place.exists())


def disk_full(what: str) -> str:
    """Return the line that tells a full disk."""
    return f"the disk is full: {what} was not written; free some space and run again, the rest is kept"


def write_atomically(path: Path, content: bytes | str, *, what: str) -> Path:
    """Write ``content``, text as UTF-8, to ``path``: to a temporary name in the same folder, synced to the disk, then
    renamed, where it replaces a file of that name. Return ``path``.

    The error message calls it ``what``.

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
        if is_disk_full(error):
            raise UserError(disk_full(what)) from error
        raise UserError(
            f"{what} cannot be written to the folder {path.parent.name}: {error.strerror}"
        ) from error
    return path


def replace_folder(new: Path, target: Path) -> None:
    """Give a finished folder its final name ``target``, on the same disk; what had it stays there until then."""
    old = _displaced(target)
    if target.exists():
        shutil.rmtree(old, ignore_errors=True)
        target.rename(old)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        new.rename(target)
    except OSError:
        restore_folder(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def restore_folder(target: Path) -> None:
    """Put back what :func:`replace_folder` had moved away, where it was ended between its two renames."""
    old = _displaced(target)
    if old.exists() and not target.exists():
        old.rename(target)


def _displaced(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
