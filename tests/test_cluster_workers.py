"""Workers that do not start, and the folder of a cluster of this machine alone: without Ray."""

import subprocess
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from xaicore.core.errors import UserError
from xaicore.run.cluster import RayEngine, connection
from xaicore.run.cluster import engine as module
from xaicore.run.cluster.worker import Packed
from xaicore.run.store import Store


class Failing:
    """A Ray on which the first ``deaths`` workers die when they start, and the others compute."""

    exceptions = SimpleNamespace(RayError=RuntimeError, RayTaskError=KeyError)

    def __init__(self, deaths: int) -> None:
        self.deaths = deaths
        self.begun = 0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 100.0}}]

    def remote(self, actor: type) -> Any:
        return SimpleNamespace(options=lambda **resources: SimpleNamespace(remote=self.begin))

    def begin(self, threads: int) -> Any:
        self.begun += 1
        found: Future[None] = Future()
        if self.begun <= self.deaths:
            found.set_exception(RuntimeError("the actor died"))
        else:
            found.set_result(None)
        answer = SimpleNamespace(future=lambda: found)
        computed = ({"x": torch.zeros(2)}, 0.0)
        return SimpleNamespace(
            differs=SimpleNamespace(remote=lambda *_: answer),
            compute=SimpleNamespace(remote=lambda *_: computed),
        )

    def put(self, thing: Any) -> Any:
        return thing

    def get(self, thing: Any) -> Any:
        return thing

    def kill(self, worker: Any) -> None:
        pass


@pytest.mark.parametrize("starts", [module.STARTS - 1, module.STARTS])
def test_workers_that_do_not_start_are_blamed_but_not_for_single_accidents(
    starts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ray = Failing(starts)
    monkeypatch.setattr(module, "connect", lambda spec: ray)
    monkeypatch.setattr(module, "carry_along", lambda function: None)
    monkeypatch.setattr(module, "pack", lambda thing: Packed(b"", frozenset()))
    engine = RayEngine("ray://auto", Store(tmp_path), workers=1)

    def work() -> Any:
        return engine.map("step", len, {"images": torch.zeros(2)}, code=RayEngine)  # type: ignore[arg-type]

    if starts < module.STARTS:
        assert work()["x"].tolist() == [0, 0]
        assert ray.begun == starts + 1
    else:
        with pytest.raises(UserError, match=r"workers do not start on the cluster.*the actor died"):
            work()
        assert ray.begun == module.STARTS
    engine.close()


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
