"""Workers that do not start, and the folder of a cluster of this machine alone: without Ray."""

import os
import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from xaicore.cluster import folder
from xaicore.cluster.pool import STARTS, Pool
from xaicore.errors import UserError


class Actor:
    def __init__(self, differs: Any) -> None:
        self.differs = differs


class Failing:
    """A Ray whose workers die when they start, each with its node as long as there are more than ``lasting``."""

    exceptions = SimpleNamespace(RayError=RuntimeError)

    def __init__(self, nodes: int, lasting: int) -> None:
        self.names = [str(number) for number in range(nodes)]
        self.lasting = lasting
        self.begun = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"NodeID": name, "Alive": True, "Resources": {"CPU": 1.0}} for name in self.names]

    def remote(self, actor: type) -> Any:
        return SimpleNamespace(options=lambda **resources: SimpleNamespace(remote=self.begin))

    def begin(self, threads: int) -> Any:
        self.begun += 1
        return Actor(SimpleNamespace(remote=lambda *_: SimpleNamespace(future=self.dead)))

    def dead(self) -> Future[None]:
        if len(self.names) > self.lasting:
            self.names.pop()
        found: Future[None] = Future()
        found.set_exception(RuntimeError("the actor died"))
        return found

    def kill(self, worker: Any) -> None:
        pass


@pytest.mark.parametrize("lost", [0, 5])
def test_workers_that_do_not_start_are_blamed_but_for_those_that_began_before_a_node_was_lost(
    lost: int,
) -> None:
    ray = Failing(nodes=2 + lost, lasting=2)
    pool = Pool(ray, 1, {"num_cpus": 1})
    assert pool.places() == 2 + lost
    with pytest.raises(UserError, match=r"workers do not start on the cluster.*the actor died"):
        pool.take(1, lambda: False)
    assert ray.begun == lost + STARTS


def test_a_folder_goes_when_it_is_removed_or_its_process_was_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder, "HOME", tmp_path)
    mine = folder.Folder()
    (mine.path / "log").touch()
    script = (
        "import sys, time; from pathlib import Path; from xaicore.cluster import folder; "
        "folder.HOME = Path(sys.argv[1]); print(folder.Folder().path, flush=True); time.sleep(100)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        for path in (mine.path, theirs):
            os.utime(path, (0, 0))
        folder.Folder().remove()
        assert set(tmp_path.iterdir()) == {mine.path, theirs}, "both are in use"
        other.kill()
    young = folder.Folder()
    young.remove()
    assert set(tmp_path.iterdir()) == {mine.path}
    mine.remove()
    assert not list(tmp_path.iterdir())
