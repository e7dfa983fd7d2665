"""Progress of a run, as lines that another process can follow.

The runner (:mod:`xaicore.book.running.runner`) names a file in ``$XAICORE_PROGRESS``; the process that works appends
one JSON object a line to it. Without that variable every function here does nothing, so a notebook's page
stays free of it.
"""

import contextlib
import json
import os
import time
from typing import Any

VARIABLE = "XAICORE_PROGRESS"


def report(step: str, done: int, total: int) -> None:
    """Say that ``done`` (0 … total) of ``total`` parts of ``step``, a few words, are finished."""
    _append({"step": step, "done": int(done), "total": int(total)})


def warn(message: str) -> None:
    """Say in one line that something was wrong and was mended, such as a corrupt entry of the store."""
    _append({"warning": " ".join(message.split())})


def _append(event: dict[str, Any]) -> None:
    path = os.environ.get(VARIABLE)
    if not path:
        return
    line = json.dumps({"time": round(time.time(), 3), **event}, ensure_ascii=False) + "\n"
    # Where nobody follows any more, the work itself is not concerned.
    with contextlib.suppress(OSError), open(path, "ab", buffering=0) as file:
        file.write(line.encode())  # one write under O_APPEND: lines of several processes do not mix
