"""The command: exit statuses, and one line instead of a traceback."""

import json
import os
import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

from xaicore.book import cli
from xaicore.book.verify import compare, summary
from xaicore.run.records import Run

ROOT = Path(__file__).parents[1]


@pytest.fixture
def command(monkeypatch, capsys):
    def command(*arguments, folder=ROOT):
        monkeypatch.chdir(folder)
        status = cli.main(list(arguments))
        return status, *capsys.readouterr()

    return command


@pytest.fixture
def project(tmp_path):
    for name in ("editions", "notebooks", "claims"):
        (tmp_path / name).mkdir()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "editions" / "quick.yml").write_text((ROOT / "editions" / "quick.yml").read_text())
    return tmp_path


def _record(folder, accuracy, more=()):
    run = Run("p1_inspecting_attacks", {"seed": 0}, folder, edition="quick")
    run.value("accuracy", accuracy, n=10)
    run.value("count", 3)
    for id in more:
        run.value(id, 1)
    run.finish()
    (folder / "notebook.ipynb").write_text("{}")
    (folder / "status.json").write_text('{"state": "completed", "address": "x"}')


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "--edition", "slow"],
            "there is no edition 'slow'; there are embedded, paper, quick, reference",
        ),
        (
            ["run", "--edition", "quick", "-p", "epss_max", "1"],
            "unknown parameter 'epss_max'; did you mean 'eps_max'?",
        ),
        (
            ["run", "--edition", "quick", "-p", "eps_max", "abc"],
            "parameter eps_max: 'abc' is not a number or a fraction",
        ),
        (
            ["run", "--edition", "quick", "-p", "seed", "1", "-p", "seed", "2"],
            "parameter seed is given twice",
        ),
        (["run", "--edition", "quick", "--engine", "slurm"], "unknown engine 'slurm'"),
        (["build", "--edition", "slow"], "there is no edition 'slow'"),
        (["verify", "--edition", "nothing"], "no results of the edition nothing are committed"),
    ],
)
def test_what_a_user_can_mend_is_one_line(command, arguments, message):
    status, out, error = command(*arguments)
    assert status == 2
    assert out == ""
    assert error.startswith("xaibook: ")
    assert message in error
    assert error.count("\n") == 1


def test_files_and_folders_are_meant_from_where_the_command_is_typed(command, project, monkeypatch, tmp_path):
    given = {}

    def run(root, edition, **options):
        given.update(options["overrides"], store=os.environ["XAICORE_STORE"], data=os.environ["XAICORE_DATA"])
        return 0

    monkeypatch.setattr("xaicore.book.running.runner.run", run)
    monkeypatch.setenv("XAICORE_DATA", "../mine")
    monkeypatch.setenv("XAICORE_STORE", "/elsewhere")
    typed = {"data_root": "../mine", "weights": "imagenet", "second_weights": "w.pt", "model": "vgg16"}
    arguments = ["run", *(word for pair in typed.items() for word in ("-p", *pair))]
    command(*arguments, folder=project)
    assert given == {**typed, "data": "../mine", "store": "/elsewhere"}, (
        "in the project's folder nothing changes"
    )
    command(*arguments, folder=project / "notebooks")
    here = project / "notebooks"
    absolute = {"data_root": str(here / "../mine"), "second_weights": str(here / "w.pt")}
    assert given == {**typed, **absolute, "data": str(here / "../mine"), "store": "/elsewhere"}


def test_the_help_of_each_command_has_examples_that_can_be_typed(capsys):
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    names = re.findall(r"^    (\w+) ", capsys.readouterr().out, re.MULTILINE)
    assert {"run", "build", "doctor"} <= set(names) >= set(cli.EXAMPLES)
    for name in names:
        with pytest.raises(SystemExit):
            cli.main([name, "--help"])
        shown = capsys.readouterr().out.split("for example:\n")[1].splitlines()
        assert any(line.startswith(f"  xaibook {name}") for line in shown)
        for line in shown:
            program, *typed = shlex.split(line.split(">")[0])
            assert program == "xaibook"
            assert callable(cli._parser().parse_args(typed).command)


@pytest.mark.parametrize(
    ("typed", "status", "following"),
    [
        (["run", "--edition", "quick"], 0, "xaibook build --edition quick"),
        (["run"], 1, "finished batches are kept"),
        (["run"], 130, None),
        (["run", "-p", "seed", "1"], 0, "runs/custom"),
        (["run", "--seeds", "0-4"], 0, "xaibook keep --edition embedded"),
        (["build"], 0, "xaibook verify --edition embedded"),
        (["claims"], 0, "xaibook build"),
        (["claims", "--accept"], 0, "git diff claims/verdicts.yml"),
        (["doctor"], 1, "xaibook doctor"),
        (["doctor"], 0, "xaibook run --edition quick"),
    ],
)
def test_a_command_says_what_to_do_next(command, monkeypatch, typed, status, following):
    def _done(root, options):
        return status

    _done.__name__ = f"_{typed[0]}"
    monkeypatch.setattr(cli, _done.__name__, _done)
    ended, out, said = command(*typed)
    assert (ended, out) == (status, "")
    if following is None:
        assert said == ""
    else:
        assert said.startswith("next: ")
        assert following in said
        assert said.count("\n") == 1


def test_outside_the_project(command, tmp_path):
    status, _, error = command("editions", folder=tmp_path)
    assert status == 2
    assert "not inside the project" in error


def test_wrong_arguments_end_with_two(capsys):
    for arguments in ([], ["fly"], ["run", "--resume", "--fresh"]):
        with pytest.raises(SystemExit) as caught:
            cli.main(arguments)
        assert caught.value.code == 2


def test_editions_are_listed(command):
    status, out, _ = command("editions")
    assert status == 0
    named = [
        line.split()[0]
        for line in out.splitlines()
        if line.startswith(("quick", "embedded", "reference", "paper"))
    ]
    assert named[0] == "quick"
    assert sorted(named) == ["embedded", "paper", "quick", "reference"]
    assert "data: cats-vs-dogs" in out


def test_claims_are_listed_with_and_without_runs(command, project):
    (project / "claims" / "p1.yml").write_text((ROOT / "claims" / "p1.yml").read_text())
    status, out, _ = command("claims", "--edition", "quick", "--json", folder=project)
    assert status == 0
    claims = json.loads(out)
    assert {"id", "paper", "reported", "ours", "n", "networks", "interval", "edition", "verdict"} == set(
        claims[0]
    )
    assert any(claim["id"] == "p1.clean-accuracy" for claim in claims)
    status, out, _ = command("claims", "--edition", "quick", folder=project)
    assert status == 0
    assert "p1.clean-accuracy" in out


@pytest.mark.parametrize(
    ("accuracy", "more", "summary"),
    [
        (0.5, (), "2 of 2 equal the one committed run"),
        (0.5 + 1e-9, (), "2 of 2 equal the one committed run"),
        (0.6, (), "1 of 2 equal the one committed run"),
        (0.5, ("new",), "1 are missing on one side"),
    ],
)
def test_verify_holds_a_run_against_the_one_that_is_committed(command, project, accuracy, more, summary):
    _record(project / "results" / "embedded" / "p1_inspecting_attacks", 0.5)
    _record(project / "runs" / "embedded" / "p1_inspecting_attacks", accuracy, more)
    found, out, _ = command("verify", folder=project)
    assert found == 0
    assert summary in out.splitlines()[-1]


def test_verify_holds_a_run_against_what_several_predict():
    values = {"mean": (1.0, [0.0, 2.0]), "far": (1.0, [0.5, 1.5]), "gone": (1.0, [0.0, 2.0])}
    committed = {
        "values": {i: {"value": v, "runs": 3, "prediction": p, "unit": None} for i, (v, p) in values.items()}
    }
    here = {
        "notebook": "p1",
        "values": {"mean": {"value": 1.9, "unit": None}, "far": {"value": 1.6, "unit": None}},
    }
    here["values"]["seconds"] = {"value": 3.0, "unit": "s"}
    rows = {row[1]: row for row in compare(committed, here)}
    assert {id: row[-1] for id, row in rows.items()} == {
        "mean": "inside",
        "far": "outside",
        "gone": "missing",
    }
    assert rows["far"][4] == (0.5, 1.5)
    columns = ["notebook", "id", "committed", "runs", "prediction", "here", "outcome"]
    said = summary(pd.DataFrame(list(rows.values()), columns=columns))
    assert said.startswith(
        "1 of 2 values lie where the committed runs predict them; 1 are missing on one side; more than"
    )


def test_verify_without_a_run(command, project):
    _record(project / "results" / "embedded" / "p1_inspecting_attacks", 0.5)
    status, _, error = command("verify", folder=project)
    assert status == 2
    assert "run: xaibook run --edition embedded" in error
