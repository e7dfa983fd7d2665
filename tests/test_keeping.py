"""What is committed of a slow edition: complete, small, free of the machine, and all or nothing."""

import base64
import gzip
import io
import json
import shutil
from pathlib import Path

import nbformat
import numpy as np
import pytest
from PIL import Image

from tests.kept import P1, figure, project, run
from xaicore.book import cli, keeping
from xaicore.book.claims.ledger import read_verdicts
from xaicore.book.compact import JPEG, PNG, SVG, WIDTH, compact_figure, compact_notebook, machine_paths
from xaicore.book.keeping import keep, kept_runs
from xaicore.core.errors import UserError
from xaicore.run.evidence import load_evidence


def _files(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def _pixels(content: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"), dtype=float)


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype("uint8")).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_kept_run_has_all_that_a_page_needs_and_nothing_more(tmp_path: Path) -> None:
    root = project(tmp_path)
    folder = run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    (folder / "assets").mkdir()
    (folder / "assets" / "tiles.png").write_bytes(figure())
    (folder / "tables" / "leftover.csv").write_text("a\n")
    kept = keep(root, "reference")
    assert kept.notebooks == {P1: 1}
    assert "p2_gradcam_shift" in kept.left_out
    files = _files(root / "results" / "reference" / P1)
    assert set(files) == {"notebook.ipynb", "record.json", "status.json", "tables/p1.counts.csv"}
    assert kept.size == sum(map(len, files.values()))
    for name in ("record.json", "status.json", "tables/p1.counts.csv"):
        assert files[name] == (folder / name).read_bytes()
    assert kept_runs(root, "reference") == {P1: root / "results" / "reference" / P1}
    assert not list(root.glob("_build/*"))
    verdicts = read_verdicts(root)
    assert verdicts["p1.onepixel-drop"] == "reproduced"


def test_of_the_embedded_edition_records_and_tables_are_committed(tmp_path: Path) -> None:
    root = project(tmp_path)
    folder = run(root, "embedded", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    keep(root, "embedded")
    run(root, "embedded", {"p1.drop.onepixel": (31.0, 500, (28.0, 32.0))})
    size = keep(root, "embedded").size
    files = _files(root / "results")
    names = ("record.json", "tables/p1.counts.csv")
    assert files == {f"embedded/{P1}/{name}": (folder / name).read_bytes() for name in names}
    assert size == sum(map(len, files.values()))
    assert kept_runs(root, "embedded") == {}


def test_runs_of_several_seeds_are_pooled_and_their_outcomes_kept(tmp_path: Path) -> None:
    root = project(tmp_path)
    for seed, value in enumerate((30.0, 32.0, 34.0)):
        folder = run(root, "embedded", {"p1.drop.onepixel": (value, 500, (value - 2, value + 2))}, seed=seed)
        (folder / "outcomes.csv").write_text(f"id,group,image,outcome\np1.drop.onepixel,,7,{value:g}\n")
    kept = keep(root, "embedded")
    assert kept.notebooks == {P1: 3}
    results = root / "results" / "embedded" / P1
    found = load_evidence(results)
    assert found["seeds"] == [0, 1, 2]
    drop = found["values"]["p1.drop.onepixel"]
    assert (drop["value"], drop["each"], drop["runs"], drop["n"]) == (32.0, [30.0, 32.0, 34.0], 3, 1)
    assert gzip.decompress((results / "outcomes.csv.gz").read_bytes()).decode().splitlines() == [
        "id,group,image,outcome,seed",
        *(f"p1.drop.onepixel,,7,{value},{seed}" for seed, value in enumerate((30, 32, 34))),
    ]
    shutil.rmtree(root / "runs" / "embedded" / "seed-2")
    fewer = keep(root, "embedded")
    assert fewer.notebooks == {}
    assert fewer.noticed == (f"{P1}: 2 complete runs, the committed evidence has 3 and stays",)
    assert load_evidence(results) == found
    run(root, "embedded", {}, seed=1, parameters={"n_images": 5})
    shutil.rmtree(root / "results")
    with pytest.raises(UserError, match="differ in more than their seed \\(n_images\\); run them again"):
        keep(root, "embedded")


def test_to_keep_twice_changes_nothing(tmp_path: Path) -> None:
    root = project(tmp_path)
    run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    keep(root, "reference")
    before = _files(root / "results") | _files(root / "claims")
    assert keep(root, "reference").changes == ()
    assert _files(root / "results") | _files(root / "claims") == before


def test_a_changed_verdict_is_said_and_an_older_notebook_stays(tmp_path: Path) -> None:
    root = project(tmp_path)
    run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    old = run(root, "reference", {}, name="p2_gradcam_shift")
    keep(root, "reference")
    (old / "status.json").unlink()
    run(root, "reference", {"p1.drop.onepixel": (14.0, 500, (10.0, 18.0))})
    kept = keep(root, "reference")
    assert kept.notebooks == {P1: 1}
    assert "p1.onepixel-drop: reproduced → inconclusive" in kept.changes
    assert set(kept_runs(root, "reference")) == {P1, "p2_gradcam_shift"}


def test_results_from_other_images_are_pointed_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path)

    def looked_at(n: int, fingerprint: str) -> None:
        record = run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))}) / "record.json"
        content = json.loads(record.read_text())
        content["provenance"]["data"] = [
            {"name": "cats-vs-dogs", "split": "test", "n": n, "fingerprint": fingerprint}
        ]
        record.write_text(json.dumps(content))

    looked_at(2000, "a")
    assert keep(root, "reference").noticed == ()
    assert keep(root, "reference").noticed == (), "the same images again"
    looked_at(24, "b")
    monkeypatch.chdir(root)
    assert cli.main(["keep"]) == 0
    line = (
        f"noticed: {P1} looked at other images than the results it replaces "
        "(cats-vs-dogs test: 24 images, before 2,000)"
    )
    assert line in capsys.readouterr().out.splitlines()


def test_too_much_is_refused_in_one_line_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path)
    run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    keep(root, "reference")
    before = _files(root / "results") | _files(root / "claims")
    run(root, "reference", {"p1.drop.onepixel": (14.0, 500, (10.0, 18.0))})
    monkeypatch.setattr(keeping, "LIMIT_BYTES", 1000)
    with pytest.raises(
        UserError, match=rf"more than the 0\.0 MB that may be committed; {P1} takes most"
    ) as no:
        keep(root, "reference")
    assert "\n" not in str(no.value)
    assert _files(root / "results") | _files(root / "claims") == before
    assert not list(root.glob("_build/*"))


def test_a_run_that_breaks_off_leaves_the_results_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = project(tmp_path)
    run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    keep(root, "reference")
    before = _files(root / "results")

    def full(path: Path, content: bytes, *, what: str) -> None:
        raise UserError(f"the disk is full: {what} was not written")

    monkeypatch.setattr(keeping, "write_atomically", full)
    with pytest.raises(UserError, match="the disk is full"):
        keep(root, "reference")
    assert _files(root / "results") == before


@pytest.mark.parametrize(
    ("edition", "message"),
    [
        ("reference", "there is no complete run of the edition reference; run: xaibook run --edition"),
        ("quick", "only paper, reference, embedded are kept"),
        ("slow", "there is no edition 'slow'"),
    ],
)
def test_what_cannot_be_kept_is_one_line(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    edition: str,
    message: str,
) -> None:
    monkeypatch.chdir(project(tmp_path))
    assert cli.main(["keep", "--edition", edition]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_command_says_what_it_kept_and_what_it_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path)
    run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    monkeypatch.chdir(root)
    assert cli.main(["keep"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"kept {P1} (1 run); results/reference takes 0.0 MB" in lines[-1]
    assert "left out: arena has no complete run; run: xaibook run --edition reference" in lines
    assert cli.main(["verify", "--edition", "reference"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 of 1 equal the one committed run"
    shutil.rmtree(root / "runs")
    assert cli.main(["claims", "--json"]) == 0
    (drop,) = [row for row in json.loads(capsys.readouterr().out) if row["id"] == "p1.onepixel-drop"]
    assert (drop["ours"], drop["edition"], drop["verdict"]) == (25.0, "reference", "reproduced")


def test_this_machines_run_alone_is_judged_where_it_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = project(tmp_path)
    run(root, "reference", {"p1.drop.onepixel": (25.0, 500, (23.0, 27.0))})
    keep(root, "reference")
    run(root, "embedded", {"p1.drop.onepixel": (14.0, 500, (10.0, 18.0))})
    monkeypatch.chdir(root)
    assert cli.main(["claims", "--edition", "embedded", "--json"]) == 0
    (drop,) = [row for row in json.loads(capsys.readouterr().out) if row["id"] == "p1.onepixel-drop"]
    assert (drop["ours"], drop["networks"], drop["verdict"]) == (14.0, 1, "inconclusive")


def test_no_path_of_the_machine_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XAICORE_DATA", "/mnt/disk 1/photos/")
    paths = machine_paths(tmp_path)
    cell = nbformat.v4.new_code_cell('data_root = "/mnt/disk 1/photos"', execution_count=1)
    shown = f"<p>{tmp_path}/runs of {tmp_path}-old and {Path.home()}/x; /a{Path.home()}/y</p>"
    cell.outputs = [nbformat.v4.new_output("display_data", data={"text/html": shown, PNG: _b64(figure())})]
    notebook = nbformat.v4.new_notebook(cells=[cell])
    compact = compact_notebook(notebook, paths)
    assert compact.cells[0].source == 'data_root = "photos"'
    text = compact.cells[0].outputs[0].data["text/html"]
    assert text.startswith("<p>./runs of ")
    assert "~/x;" in text
    assert f"/a{Path.home()}/y" in text  # another path that only ends like it
    assert notebook.cells[0].outputs[0].data["text/html"] == shown, "the run itself is left as it is"


def _b64(content: bytes) -> str:
    return base64.b64encode(content).decode("ascii")


def test_outputs_that_need_files_stay_out_and_a_large_svg_too() -> None:
    panel = nbformat.v4.new_output("display_data", data={"text/html": '<b></b><script src="x.js"></script>'})
    drawn = nbformat.v4.new_output("display_data", data={PNG: _b64(figure()), SVG: "<svg>" + "x" * 10_000})
    small = nbformat.v4.new_output("display_data", data={PNG: _b64(figure()), SVG: "<svg/>"})
    cell = nbformat.v4.new_code_cell("1", outputs=[panel, drawn, small])
    outputs = compact_notebook(nbformat.v4.new_notebook(cells=[cell]), {}).cells[0].outputs
    assert [set(output.data) for output in outputs] == [{PNG}, {PNG, SVG}]


def test_lines_get_a_palette_and_photographs_keep_their_colours() -> None:
    lines = np.full((300, 400, 3), 255)
    lines[::40] = (0, 90, 160)
    kind, content = compact_figure(_png(lines))
    assert kind == PNG
    with Image.open(io.BytesIO(content)) as image:
        assert image.mode == "P"
    np.testing.assert_array_equal(_pixels(content), lines)

    generator = np.random.default_rng(0)
    coarse = generator.uniform(0, 255, size=(15, 20, 3)).astype("uint8")
    photograph = np.asarray(Image.fromarray(coarse).resize((800, 600), Image.Resampling.BICUBIC), dtype=float)
    photograph = np.clip(photograph + generator.normal(0, 2, photograph.shape), 0, 255)
    kind, content = compact_figure(_png(photograph))
    assert kind == JPEG
    assert len(content) < len(_png(photograph)) / 4
    assert np.sqrt(np.mean((_pixels(content) - photograph) ** 2)) < 4


def test_wide_figures_shrink_and_transparency_becomes_white() -> None:
    clear = np.zeros((100, 2 * WIDTH, 4))
    clear[:, :, 3] = 0
    _, content = compact_figure(_png(clear))
    pixels = _pixels(content)
    assert pixels.shape == (50, WIDTH, 3)
    assert pixels.min() == 255
