"""The explorer: its numbers against SciPy and scikit-image, its tiles against the arrays they show, its files."""

import hashlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from PIL import Image
from scipy.stats import entropy, spearmanr
from skimage.metrics import structural_similarity

from xaicore import data, models
from xaicore.core.errors import UserError
from xaicore.figures import tiles
from xaicore.run import engine, explorer_page
from xaicore.run.params import ExplorerParameters
from xaicore.run.store import Store
from xaicore.studies import explorer, map_shift
from xaicore.studies.explorer import ANSWER, TRUE
from xaicore.studies.subjects import Subject

SIZES = ("0.15", "0.4")


@pytest.fixture(scope="module")
def subject() -> Subject:
    """An untrained network, which is taken to be right: what is tested does not depend on what it has learned."""
    test = data.load("mnist-5k", split="test", n=3)
    model = models.load("small_cnn", classes=test.classes, channels=1, input_size=28)
    images, _ = test.stack()
    labels = models.predict(model, images).argmax(dim=1)
    return Subject(model, images, labels, tuple("0123456789"), 1.0, 3, torch.arange(3))


@pytest.fixture(scope="module")
def explored(subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> explorer.Explored:
    local = engine.get(store=Store(tmp_path_factory.mktemp("store")))
    return explorer.explore(
        local,
        subject,
        attacks=["bim", "cw_l2"],
        eps=[0.15, 0.4],
        explanations=["preset-a-flat", "grad_cam", "integrated_gradients"],
        iterations=4,
        samples=4,
    )


@pytest.fixture(scope="module")
def page(
    subject: Subject, explored: explorer.Explored, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("assets")
    sheets = explorer_page.Sheets(folder)
    table = explorer.comparisons(explored, subject)
    described = explorer_page.describe(sheets, "digits", subject, explored, table, about="three digits")
    explorer_page.write_data(sheets, {"digits": described})
    for row in sheets.table().to_dict("records"):
        content = (folder / row["file"]).read_bytes()
        assert len(content) == row["bytes"]
        assert hashlib.sha256(content).hexdigest() == row["sha256"]
    script = (folder / explorer_page.DATA).read_text(encoding="utf-8")
    return folder, json.loads(script.removeprefix("window.xaicoreExplorer = ").removesuffix(";\n"))


def test_every_attack_has_noise_of_its_size_beside_it(explored: explorer.Explored, subject: Subject) -> None:
    kinds = [(version.attack, version.size, version.kind) for version in explored.versions]
    cases = [*(("bim", size) for size in SIZES), ("cw_l2", explorer.SMALLEST)]
    assert kinds == [(*case, kind) for case in cases for kind in ("attack", "noise")]
    for hit, noise in zip(explored.versions[::2], explored.versions[1::2], strict=True):
        perturbation, added = hit.images - subject.images, noise.images - subject.images
        if hit.attack == "bim":
            assert (perturbation.abs().amax(dim=(1, 2, 3)) <= float(hit.size) + 1e-6).all()
        sizes = [float(each.flatten(1).norm(dim=1).median()) for each in (perturbation, added)]
        assert sizes[1] == pytest.approx(sizes[0], rel=0.1)


def test_a_map_explains_the_class_it_says(explored: explorer.Explored, subject: Subject) -> None:
    changed = 0
    for number, version in enumerate(explored.versions, start=1):
        logits = models.predict(subject.model, version.images)
        assert torch.allclose(logits.double().softmax(1), explored.probabilities[number], atol=1e-6)
        for image, label in enumerate(subject.labels.tolist()):
            answer = int(logits[image].argmax())
            there = {
                explained for at, k, explained in explored.maps["grad_cam"] if (at, k) == (number, image)
            }
            assert there == ({ANSWER} if answer == label else {ANSWER, TRUE})
            changed += answer != label
            for explained in there:
                # Relevance by preset-a-flat starts from the logit of its class; gradients of two classes differ.
                target = answer if explained == ANSWER else label
                given = version.images[image : image + 1]
                again = explorer.METHODS["grad_cam"](subject.model, given, torch.tensor([target]))
                assert torch.allclose(
                    explored.maps["grad_cam"][number, image, explained], again[0, 0], atol=1e-5
                )
    assert changed, "no attack changed an answer: nothing was tested"


def test_numbers_of_the_page_are_those_of_others(
    page: tuple[Path, dict[str, Any]], explored: explorer.Explored, subject: Subject
) -> None:
    described = page[1]["subjects"]["digits"]
    compared = 0
    for image, shown in enumerate(described["images"]):
        for number, version in enumerate(explored.versions, start=1):
            case = shown["attacks"][version.attack]["cases"][f"{version.size}|{version.kind}"]
            change = (version.images[image] - subject.images[image]).double().numpy()
            assert case["l2"] == pytest.approx(np.linalg.norm(change), rel=1e-3, abs=1e-9)
            assert case["linf"] == pytest.approx(np.abs(change).max(), rel=1e-3, abs=1e-9)
            answer = int(explored.probabilities[number, image].argmax())
            assert case["answer"] == str(answer)
            assert case["fooled"] == (answer != int(subject.labels[image]))
            for name, before, after in case["classes"]:
                assert before == pytest.approx(float(explored.probabilities[0, image, int(name)]), rel=1e-3)
                assert after == pytest.approx(
                    float(explored.probabilities[number, image, int(name)]), rel=1e-3
                )
            for explanation, maps in explored.maps.items():
                for explained, found in case["shifts"][explanation].items():
                    pair = (maps[0, image, ANSWER], maps[number, image, explained])
                    one, other = (each.double().numpy() for each in pair)
                    for name, value in _shifts(one, other).items():
                        if math.isnan(value):
                            assert found[name] is None
                            continue
                        assert found[name] == pytest.approx(value, rel=2e-3, abs=2e-4), (name, explanation)
                        compared += 1
    assert compared > 200


def _shifts(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    if not one.any() or not other.any():
        return {}
    shares = [np.abs(each) / np.abs(each).max() for each in (one, other)]
    ssim = structural_similarity(*shares, win_size=7, data_range=1.0)
    masks = [np.abs(each) > np.abs(each).mean() + 2 * np.abs(each).std() for each in (one, other)]
    bits = [entropy(np.histogram(share, bins=256, range=(0, 1))[0], base=2) for share in shares]
    union = int((masks[0] | masks[1]).sum())
    return {
        "cosine": float((one * other).sum() / np.linalg.norm(one) / np.linalg.norm(other)),
        "rank": float(spearmanr(one.ravel(), other.ravel()).statistic),
        "nissim": (1 - float(ssim)) / 2,
        "iou": int((masks[0] & masks[1]).sum()) / union if union else math.nan,
        "entropy": float(bits[1] - bits[0]),
    }


def _tile(page: tuple[Path, dict[str, Any]], sheet: dict[str, Any], place: str) -> np.ndarray:
    """Cut a tile out as the page does."""
    width, height = page[1]["subjects"]["digits"]["tile"]
    left = sheet["places"][place] % sheet["columns"] * width
    top = sheet["places"][place] // sheet["columns"] * height
    with Image.open(page[0] / sheet["file"]) as picture:
        return np.asarray(picture.convert("RGB"))[top : top + height, left : left + width].astype(float)


def test_tiles_show_what_was_computed(
    page: tuple[Path, dict[str, Any]], explored: explorer.Explored, subject: Subject
) -> None:
    described = page[1]["subjects"]["digits"]
    for image, shown in enumerate(described["images"]):
        clean = subject.images[image, 0].double().numpy()
        assert np.abs(_tile(page, shown["picture"], "clean")[..., 0] / 255 - clean).max() <= 0.51 / 255
        for number, version in enumerate(explored.versions, start=1):
            attack = shown["attacks"][version.attack]
            case = f"{version.size}|{version.kind}"
            changed = version.images[image, 0].double().numpy()
            assert np.abs(_tile(page, attack["pictures"], case)[..., 0] / 255 - changed).max() <= 0.51 / 255
            factor = attack["cases"][case]["factor"]
            added = 0.5 + factor * (changed - clean)
            assert (
                np.abs(_tile(page, attack["pictures"], f"{case}|change")[..., 0] / 255 - added).max() < 0.003
            )
            for explanation in described["explanations"]:
                before = explored.maps[explanation][0, image, ANSWER].double().numpy()
                after = explored.maps[explanation][number, image, ANSWER].double().numpy()
                shares = [np.clip(each / np.quantile(np.abs(each), 0.995), -1, 1) for each in (before, after)]
                place = f"{case}|{explanation}|answer"
                wanted = 255 * colormaps["RdBu_r"](0.5 + shares[1] / 2)[..., :3]
                assert np.abs(_tile(page, attack["maps"], place) - wanted).mean() < 2.5
                difference = np.clip(shares[1] - shares[0], -1, 1)
                wanted = 255 * colormaps["PuOr_r"](0.5 + difference / 2)[..., :3]
                assert np.abs(_tile(page, attack["maps"], f"{place}|difference") - wanted).mean() < 2.5


def test_a_photograph_comes_back_as_it_was() -> None:
    generator = np.random.default_rng(0)
    pictures = [torch.tensor(generator.random((3, 9, 7))) for _ in range(3)]
    sheet = tiles.picture_sheet([tiles.picture_tile(each) for each in pictures])
    with Image.open(io.BytesIO(sheet)) as opened:
        assert opened.format == "WEBP"
        pixels = np.asarray(opened.convert("RGB"))
    assert pixels.shape == (18, 14, 3)
    for k, each in enumerate(pictures):
        cut = pixels[k // 2 * 9 : k // 2 * 9 + 9, k % 2 * 7 : k % 2 * 7 + 7]
        assert (cut == np.rint(each.numpy().transpose(1, 2, 0) * 255)).all()
    tile, factor = tiles.perturbation_tile(torch.zeros(3, 4, 4))
    assert factor == 0
    assert set(np.unique(tile)) == {128}
    assert (tiles.share_of_scale(np.zeros((4, 4))) == 0).all()


def test_undefined_measures_are_said_to_be_so() -> None:
    found = map_shift.compare(torch.zeros(1, 8, 8), torch.rand(1, 8, 8, generator=torch.Generator()))
    assert math.isnan(found["cosine"][0])
    assert explorer_page.rounded(float(found["cosine"][0])) is None
    assert explorer_page.rounded(0.123456) == 0.1235


def test_names_and_sizes_make_links() -> None:
    assert explorer_page.slugs(["bald eagle", "7", "Bald Eagle", "dung-beetle (x)"]) == [
        "bald-eagle",
        "7",
        "bald-eagle-2",
        "dung-beetle-x",
    ]
    assert [explorer.size_text(eps) for eps in (8 / 255, 0.15, 0.2, 0.3, 1 / 255, 1.0)] == [
        "8/255",
        "0.15",
        "0.2",
        "0.3",
        "1/255",
        "1",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"attacks": "fgsm,boundary"}, "there is no 'boundary'"),
        ({"explanations": ["smooth_grad"]}, "there is no 'smooth_grad'"),
        ({"photograph_explanations": ["grad_cam", "grad_cam"]}, "must not name one twice"),
        ({"eps": [0.3, 0.1]}, "must rise"),
        ({"photograph_eps": "8/255,2"}, "must rise, above 0 and at most to 1"),
    ],
)
def test_parameters_that_do_not_fit_are_told(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        ExplorerParameters.check(given)
