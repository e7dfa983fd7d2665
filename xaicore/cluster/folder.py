"""The folder of a cluster that begins and ends with this process: sockets and logs, nothing that is needed later."""

import fcntl
import os
import shutil
import tempfile
import time
from contextlib import suppress
from pathlib import Path

HOME = Path("/tmp")
"""The path of a socket has at most 107 bytes, of which Ray needs 64: ``$TMPDIR`` may be too long."""
PREFIX = "xaicore-ray-"
YOUNG_SECONDS = 60.0


class Folder:
    """A new folder, locked as long as this process lives.

    Those of processes that were killed are removed first: their locks are gone.
    """

    def __init__(self) -> None:
        _sweep()
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=HOME))
        self._handle = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self._handle, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it with all that is inside."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._handle)


def _sweep() -> None:
    for left in HOME.glob(f"{PREFIX}*"):
        with suppress(OSError):  # it is another user's, or has just been removed
            if time.time() - left.stat().st_mtime < YOUNG_SECONDS:
                continue  # it may not be locked yet
            handle = os.open(left, os.O_RDONLY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left)
            finally:
                os.close(handle)
