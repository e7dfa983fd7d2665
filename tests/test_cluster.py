"""The engine on a real Ray cluster, two nodes of one CPU each on this machine: workers, a node and drivers are lost.

A worker takes seconds of CPU to start, as it imports torch. So the tests share workers, and stand in the order that
needs the fewest: two nodes as long as they are needed, then one.
"""

import importlib.util
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from pathlib import Path

import nbformat
import psutil
import pytest
import torch

if importlib.util.find_spec("ray") is None:
    pytest.skip(
        "Ray is not installed; `make test-cluster` installs it and runs these", allow_module_level=True
    )

import xaicore.run.cluster.engine as module
from tests import toy
from xaicore.attacks import one_pixel
from xaicore.book.running.runner import completed_runs, run
from xaicore.core.errors import UserError
from xaicore.models import load
from xaicore.run.cluster import RayEngine
from xaicore.run.cluster.connection import HOME, PREFIX, QUIET, _folder, connect
from xaicore.run.cluster.worker import surroundings
from xaicore.run.engine import LocalEngine
from xaicore.run.records import load_record
from xaicore.run.store import Store

ROOT = Path(__file__).parents[1]
project = toy.project
MEMORY = 100 * 2**20
LOST = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}
IMAGES = torch.rand(12, 1, 16, 16, generator=torch.Generator().manual_seed(0))
ROWS = {"images": IMAGES, "index": torch.arange(12)}


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose nodes are processes of their own; its address is in RAY_ADDRESS.

    The second node says that it has two GPUs: Ray believes it.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True) as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        for name, value in QUIET.items():
            patch.setenv(name, value)
        patch.setenv("RAY_TMPDIR", folder)
        patch.setenv("RAY_worker_niceness", "0")
        patch.setenv("RAY_enable_worker_prestart", "0")
        patch.setenv(
            "RAY_CLIENT_RECONNECT_GRACE_PERIOD", "2"
        )  # seconds that a lost driver may take to come back
        paths = [str(ROOT), os.environ.get("PYTHONPATH")]
        patch.setenv("PYTHONPATH", os.pathsep.join(filter(None, paths)))  # as if installed on the nodes
        import ray
        from ray.cluster_utils import Cluster

        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        # Without what nobody asks here: dashboard, autoscaler, and the reader of the logs.
        node = {"num_cpus": 1, "object_store_memory": MEMORY}
        lean = {"include_dashboard": False, "no_monitor": True, "include_log_monitor": False}
        head = {**node, **lean, "ray_client_server_port": port, "_system_config": LOST}
        found = Cluster(initialize_head=True, head_node_args=head)
        found.client_port = port
        patch.setenv("RAY_ADDRESS", found.address)
        connect("ray://auto")  # while there is one node: this process belongs to it
        found.add_node(num_gpus=2, **node)
        patch.delenv("XAICORE_NOTEBOOKS", raising=False)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        yield found
        torch.set_num_threads(threads)
        ray.shutdown()
        found.shutdown()


@pytest.fixture
def one_node(cluster):
    """The second node is gone: killed, as if the machine had lost its power."""
    for node in list(cluster.worker_nodes):
        cluster.remove_node(node, allow_graceful=False)
    wait(lambda: sum(node["Alive"] for node in connect("ray://auto").nodes()) == 1)


@pytest.fixture(scope="module")
def workers(cluster):
    """One engine for all tests: its workers take seconds to start."""
    return RayEngine("ray://auto", Store("nowhere"))


@pytest.fixture
def engine(workers, tmp_path):
    workers.store = Store(tmp_path / "cluster")
    return workers


def wait(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.02)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def equal(one, other):
    return list(one) == list(other) and all(
        one[name].dtype == other[name].dtype
        and one[name].numpy().tobytes() == other[name].contiguous().numpy().tobytes()
        for name in one
    )


def warnings(folder):
    events = [json.loads(line) for line in (folder / "progress").read_text().splitlines()]
    return [event["warning"] for event in events if "warning" in event]


def reserved(images, *, turn):
    import ray

    (gpu,) = ray.get_gpu_ids()
    assert "CUDA_VISIBLE_DEVICES" not in os.environ, "else the next batch could not have another one"
    return {
        name: torch.full((len(images),), int(value)) for name, value in (("gpu", gpu), ("pid", os.getpid()))
    }


def test_a_batch_reserves_one_gpu_where_the_model_lies_on_one(engine, monkeypatch):
    """No GPU is here: what is tested is what Ray is asked for, and what a worker sees."""
    pack, ray = module.pack, connect("ray://auto")
    monkeypatch.setattr(module, "pack", lambda thing: pack(thing)._replace(devices=frozenset({"cuda"})))
    options = {"arrays": {"images": IMAGES}, "batch_size": 3}
    first = engine.map("reserved", reserved, constants={"turn": 1}, **options)
    assert engine.places({"num_cpus": 1, "num_gpus": 1}) == 1, "two GPUs, but one CPU beside them"
    second = engine.map("reserved", reserved, constants={"turn": 2}, **options)
    assert len({*first["pid"].tolist(), *second["pid"].tolist()}) == 1
    assert {*first["gpu"].tolist(), *second["gpu"].tolist()} <= {0, 1}
    wait(lambda: ray.available_resources().get("GPU") == 2)


def attack(images, labels, index, *, model):
    return one_pixel(model, images, labels, index=index, population=6, generations=2, batch_size=8).arrays()


def test_results_are_the_local_ones_bit_for_bit_and_each_engine_takes_the_others_batches(engine, tmp_path):
    model = load("small_cnn", classes=2, channels=1, input_size=16)
    arrays = {**ROWS, "labels": torch.arange(12) % 2}
    options = {"constants": {"model": model}, "batch_size": 3, "code": one_pixel}
    fingerprint = model.fingerprint
    alone = LocalEngine(Store(tmp_path / "local")).map("one pixel", attack, arrays, **options)
    half = {name: array[:6] for name, array in arrays.items()}
    LocalEngine(Store(engine.store.root)).map("one pixel", attack, half, **options)
    result = engine.map("one pixel", attack, arrays, **options)
    assert (engine.store.computed, engine.store.reused) == (2, 2)
    assert equal(result, alone)
    again = Store(engine.store.root)
    assert equal(LocalEngine(again).map("one pixel", attack, arrays, **options), alone)
    assert (again.computed, again.reused) == (0, 4)
    assert model.fingerprint == fingerprint
    assert result.seconds > 0


def marked(images, index, *, folder):
    """Leaves a mark when it begins; the first time, the batch with row 6 waits for what is to come."""
    (Path(folder) / f"{int(index[0])}-{os.getpid()}-{time.monotonic_ns()}").touch()
    if 6 in index.tolist() and not (Path(folder) / "go").exists():
        time.sleep(120)
    return {"sines": images.sin(), "index": index}


def test_a_worker_killed_in_mid_run_costs_only_its_batch(engine, tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("XAICORE_PROGRESS", str(tmp_path / "progress"))

    def kill():
        wait(lambda: list(marks.glob("6-*")) and len(list(tmp_path.rglob("*.safetensors"))) >= 3)
        pid = int(next(marks.glob("6-*")).name.split("-")[1])
        (marks / "go").touch()
        os.kill(pid, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    options = {"constants": {"folder": str(marks)}, "batch_size": 2}
    result = engine.map("marked", marked, ROWS, **options)
    killer.join()
    begun = sorted(int(mark.name.split("-")[0]) for mark in marks.glob("*-*-*"))
    assert begun == [0, 2, 4, 6, 6, 8, 10]
    assert (engine.store.computed, engine.store.reused) == (6, 0)
    assert equal(result, LocalEngine(Store(tmp_path / "local")).map("marked", marked, ROWS, **options))
    assert warnings(tmp_path) == ["a worker died on the cluster; its batch of marked is computed again"]


class Strange(Exception):
    """Cannot be built from its message alone."""

    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def wrong(images, *, kind):
    if kind == "user":
        raise UserError("the folder is not there")
    if kind == "key":
        raise KeyError("no such layer")
    if kind == "strange":
        raise Strange("this", "that")
    return {"x": 1} if kind == "number" else images


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("user", UserError, "^the folder is not there$"),
        ("key", KeyError, "no such layer"),
        ("strange", RuntimeError, "Strange: this and that"),
        ("number", TypeError, "wrong: x must be a tensor"),
        ("no mapping", TypeError, "must return a mapping, not a Tensor"),
    ],
)
def test_errors_are_those_of_the_function(engine, kind, error, message):
    with pytest.raises(error, match=message) as caught:
        engine.map("wrong", wrong, {"images": IMAGES}, constants={"kind": kind}, batch_size=6)
    assert type(caught.value) is error
    notes = getattr(caught.value, "__notes__", [])
    assert bool(notes) == (kind in ("key", "strange", "no mapping")), (
        "where in the worker, for who mends the code"
    )
    assert not list(engine.store.root.rglob("*.safetensors")) or kind == "number"


def identity(images, *, model, turn):
    count = len(images)
    return {name: torch.full((count,), value) for name, value in (("pid", os.getpid()), ("model", id(model)))}


def test_a_model_is_sent_once_and_stays_and_few_batches_are_under_way(engine, monkeypatch):
    packed, under_way, most = [], [], [0]
    pack, ask = module.pack, Store.get_or_compute

    def counted(store, *arguments, **options):
        under_way.append(1)
        most[0] = max(most[0], len(under_way))
        try:
            return ask(store, *arguments, **options)
        finally:
            under_way.pop()

    monkeypatch.setattr(module, "pack", lambda thing: packed.append(thing) or pack(thing))
    monkeypatch.setattr(Store, "get_or_compute", counted)
    model = load("small_cnn", classes=3, channels=1, input_size=16)
    turns = [
        engine.map(
            "identity", identity, {"images": IMAGES}, constants={"model": model, "turn": turn}, batch_size=1
        )
        for turn in range(2)
    ]
    models = [thing for thing in packed if isinstance(thing, torch.nn.Module)]
    assert len(models) == 1
    assert len(packed) == 1 + 2 + 24  # beside the model the function of each turn, and the batches
    seen = {pair for turn in turns for pair in zip(turn["pid"].tolist(), turn["model"].tolist(), strict=True)}
    assert len({pid for pid, _ in seen}) == len(seen) <= 2
    assert os.getpid() not in {pid for pid, _ in seen}
    assert 2 <= most[0] <= 4, "two batches a worker"


def test_a_node_with_another_version_is_refused(engine, monkeypatch):
    other = {**surroundings(), "torch": "1.0"}
    monkeypatch.setattr(module, "surroundings", lambda: other)
    with pytest.raises(UserError, match=r"would compute other results: torch is .*, not 1\.0; install"):
        engine.map("wrong", wrong, {"images": IMAGES}, constants={"kind": "user"})


def test_workers_that_do_not_start_are_told_in_one_line(engine, monkeypatch):
    absent = types.ModuleType("absent")
    exec("def compute(*given): pass", vars(absent))
    monkeypatch.setitem(sys.modules, "absent", absent)  # here, but on no node
    monkeypatch.setattr(module, "compute", absent.compute)
    with pytest.raises(UserError, match=r"^workers do not start on the cluster, .*absent") as caught:
        engine.map("wrong", wrong, {"images": IMAGES}, constants={"kind": "user"})
    assert "\n" not in str(caught.value)


def test_notebooks_side_by_side_share_the_places(engine, monkeypatch):
    assert [engine.share(places) for places in (1, 2, 9)] == [1, 2, 9]
    monkeypatch.setenv("XAICORE_NOTEBOOKS", "4")
    assert [engine.share(places) for places in (1, 2, 9)] == [1, 1, 2]
    assert RayEngine("ray://auto", engine.store, workers=3).share(9) == 3
    with pytest.raises(ValueError, match="workers"):
        RayEngine("ray://auto", engine.store, workers=0)


def placed(images, index, *, folder, node):
    """Leaves a mark when it begins; on the named node it waits for what is to come, elsewhere until that has begun."""
    import ray

    (Path(folder) / f"{int(index[0])}-{time.monotonic_ns()}").touch()
    there = Path(folder).parent / "there"
    if ray.get_runtime_context().get_node_id() == node:
        there.touch()
        time.sleep(120)
    wait(there.exists)
    return {"cosines": images.cos(), "index": index}


def test_a_node_lost_in_mid_run_costs_only_its_batch(engine, cluster, tmp_path, monkeypatch):
    marks = tmp_path / "marks"
    marks.mkdir()
    monkeypatch.setenv("XAICORE_PROGRESS", str(tmp_path / "progress"))
    (node,) = cluster.worker_nodes

    def lose():
        wait(lambda: len(list(marks.iterdir())) == 6 and len(list(tmp_path.rglob("*.safetensors"))) == 5)
        cluster.remove_node(node, allow_graceful=False)

    loser = threading.Thread(target=lose)
    loser.start()
    options = {"constants": {"folder": str(marks), "node": node.node_id}, "batch_size": 2}
    result = engine.map("placed", placed, ROWS, **options)
    loser.join()
    begun = [int(mark.name.split("-")[0]) for mark in marks.iterdir()]
    assert len(begun) == 7
    assert set(begun) == {0, 2, 4, 6, 8, 10}
    assert (engine.store.computed, engine.store.reused) == (6, 0)
    assert equal(result, LocalEngine(Store(tmp_path / "local")).map("placed", placed, ROWS, **options))
    assert warnings(tmp_path) == ["a worker died on the cluster; its batch of placed is computed again"]


def test_a_cluster_without_a_fitting_place_is_told_in_one_line(engine, one_node):
    with pytest.raises(UserError, match="no node of the cluster has a GPU, where the model lies"):
        engine.places({"num_cpus": 1, "num_gpus": 1})
    assert engine.places({"num_cpus": 1}) == 1
    torch.set_num_threads(2)
    try:
        with pytest.raises(UserError, match="no node of the cluster has 2 CPUs"):
            engine.map("wrong", wrong, {"images": IMAGES}, constants={"kind": "user"})
    finally:
        torch.set_num_threads(1)


def fatal(images):
    os.kill(os.getpid(), 9)


def test_a_batch_that_kills_its_workers_is_blamed(engine, monkeypatch):
    monkeypatch.setattr(module, "DEATHS", 1)
    with pytest.raises(UserError, match="1 workers of the cluster died with the same batch of fatal"):
        engine.map("fatal", fatal, {"images": IMAGES[:2]})


def patient(images, index, *, folder):
    """Ends at once for the batch that comes first, whichever it is."""
    (Path(folder) / str(os.getpid())).touch()
    try:
        (Path(folder) / "first").touch(exist_ok=False)
    except FileExistsError:
        time.sleep(120)
    return {"index": index}


def test_ctrl_c_leaves_nothing_running_and_keeps_what_is_done(engine, tmp_path, monkeypatch):
    def interrupt(step, done, total):
        if done:
            raise KeyboardInterrupt

    monkeypatch.setattr("xaicore.core.progress.report", interrupt)
    marks = tmp_path / "marks"
    marks.mkdir()
    with pytest.raises(KeyboardInterrupt):
        engine.map("patient", patient, ROWS, constants={"folder": str(marks)}, batch_size=2)
    assert (marks / "first").exists()
    wait(lambda: not any(alive(mark.name) for mark in marks.iterdir()), seconds=30)
    assert engine.store.computed == 1


# A driver of its own: the fourth batch that is begun waits for what is to come.
DRIVER = """
import sys, time, torch
from pathlib import Path
from xaicore.run import engine
from xaicore.run.store import Store

torch.set_num_threads(1)
def slow(images, *, folder):
    for place in range(3):
        try:
            (Path(folder) / str(place)).touch(exist_ok=False)
            return {"half": images / 2}
        except FileExistsError:
            pass
    while not (Path(folder) / "go").exists():
        time.sleep(0.1)
    return {"half": images / 2}

images = torch.arange(8.0)
spec, folder = sys.argv[1:]
options = {"constants": {"folder": folder}, "batch_size": 2}
store = Store(folder + "/store")
result = engine.get(spec, store).map("slow", slow, {"images": images}, **options)
assert torch.equal(result["half"], images / 2)
print(store.computed, store.reused)
"""


@pytest.fixture(scope="module")
def left():
    """What the killed driver of ray://local leaves for a while: its processes and its folder."""
    return {"processes": [], "folders": set()}


@pytest.mark.parametrize("place", ["ray://local", "through Ray Client"])
def test_another_driver_continues_where_one_was_killed(cluster, left, place, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XAICORE_NOTEBOOKS", "100")  # so one worker is enough
    script = tmp_path / "driver.py"  # a file: the digest of a function needs its source
    script.write_text(DRIVER)
    spec = place if place == "ray://local" else f"ray://127.0.0.1:{cluster.client_port}"
    folders = set(HOME.glob(f"{PREFIX}*"))
    killed = subprocess.Popen(
        [sys.executable, str(script), spec, str(tmp_path)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait(lambda: len(list(tmp_path.rglob("*.safetensors"))) == 3 or killed.poll() is not None, seconds=120)
    processes = psutil.Process(killed.pid).children(recursive=True)
    assert bool(processes) == (place == "ray://local")
    killed.kill()
    assert killed.communicate() == ("", "")
    left["processes"] += [each.pid for each in processes]
    left["folders"] |= set(HOME.glob(f"{PREFIX}*")) - folders
    if place != "ray://local":
        wait(lambda: connect("ray://auto").available_resources().get("CPU", 0) >= 1, seconds=120)

    (tmp_path / "go").touch()
    monkeypatch.setattr(sys, "argv", [str(script), "local", str(tmp_path)])
    runpy.run_path(str(script))
    assert capsys.readouterr().out == "1 3\n"


def test_notebooks_run_on_the_cluster_and_are_up_to_date_for_the_local_engine(cluster, project):
    toy.set_edition(project, {"toy": {}})
    screen = toy.Screen()
    assert run(project, "quick", engine="ray://auto", show=screen) == 0, screen.lines
    folder = completed_runs(project, "quick")["toy"]
    record = load_record(folder)
    assert record["values"]["sum"]["value"] == 22.5
    assert record["provenance"]["store"] == {"computed": toy.BATCHES, "reused": 0}
    cells = nbformat.read(folder / "notebook.ipynb", as_version=4).cells
    assert [output.output_type for cell in cells for output in cell.get("outputs", [])] == ["execute_result"]
    again = toy.Screen()
    assert run(project, "quick", show=again) == 0
    assert again.lines == ["toy: up to date"]


def test_nothing_of_the_killed_driver_is_left(left):
    """Last, as the agents of a killed node look for it for a minute, which other tests can use."""
    assert left["processes"]
    assert left["folders"]
    wait(lambda: not any(alive(pid) for pid in left["processes"]), seconds=120)
    Path(_folder()).rmdir()  # the next one looks for those of processes that are gone
    assert not any(folder.exists() for folder in left["folders"])
