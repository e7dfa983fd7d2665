"""The folder of a cluster of this machine alone: without Ray."""

import subprocess
import sys
from pathlib import Path

import pytest

from xaicore.run.cluster import connection


def test_the_folder_of_a_killed_process_goes_and_that_of_a_living_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HOME", tmp_path)
    monkeypatch.setattr("atexit.register", lambda end: None)
    mine = Path(connection._folder())
    script = (
        "import sys, time; from pathlib import Path; from xaicore.run.cluster import connection; "
        "connection.HOME = Path(sys.argv[1]); print(connection._folder(), flush=True); time.sleep(100)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        second = Path(connection._folder())
        assert set(tmp_path.iterdir()) == {mine, theirs, second}, "all are in use"
        other.kill()
    third = Path(connection._folder())
    assert set(tmp_path.iterdir()) == {mine, second, third}
