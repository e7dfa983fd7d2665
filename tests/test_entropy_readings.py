"""Every reading of paper 5's rule, against the libraries and numbers worked by hand."""

import numpy as np
import pytest
import torch
from skimage.measure import shannon_entropy as entropy_of_values
from skimage.restoration import denoise_nl_means
from subjects import trained

from xaicore.core.errors import UserError
from xaicore.detectors import Explainer
from xaicore.metrics import shannon_entropy
from xaicore.metrics.proportions import difference_of_shares
from xaicore.run.params.chapter5 import LIBRARIES, QUANTISATIONS
from xaicore.studies import denoising
from xaicore.studies import entropy_readings as readings


def digits(count: int) -> tuple[torch.nn.Module, torch.Tensor, torch.Tensor]:
    model, images, labels = trained("coarse-digits")
    return model, images[:count], labels[:count]


def test_names_are_those_of_the_parameters() -> None:
    assert tuple(readings.LIBRARIES) == LIBRARIES
    assert tuple(readings.QUANTISATIONS) == QUANTISATIONS


def test_the_readings_hold_the_detectors_own() -> None:
    model, images, _ = digits(5)
    detector = Explainer(model, "integrated_gradients", strength=1.6, n_points=3)
    cleaned = readings.denoised(images, strengths=[1.6], libraries=["scikit_image"])
    options = {"detector": detector, "quantisations": ["absolute_256", "raw"]}
    found = readings.reading_scores(images, **options, **cleaned)
    assert list(found) == [f"{a}.{b}" for a in ("nlm_16", "scikit_image") for b in ("absolute_256", "raw")]
    torch.testing.assert_close(found["nlm_16.absolute_256"], detector.score(images))


def test_denoising_is_scikit_images_by_default() -> None:
    _, images, _ = digits(2)
    found = readings.LIBRARIES["scikit_image"](images)
    assert found.shape == images.shape
    np.testing.assert_array_equal(found[1, 0].numpy(), denoise_nl_means(images[1, 0].numpy()))


def test_histograms_by_hand() -> None:
    maps = torch.tensor([[[-1.0, 1.0], [0.0, 0.0004]]])
    entropy = {name: float(of(maps)) for name, of in readings.QUANTISATIONS.items()}
    assert entropy["raw"] == pytest.approx(2)  # four different floats
    assert entropy["decimals_3"] == pytest.approx(1.5)  # the last two are one
    assert entropy["absolute_256"] == entropy["absolute_16"] == pytest.approx(1)
    assert entropy["signed_256"] == pytest.approx(1.5)
    assert entropy["raw"] == pytest.approx(entropy_of_values(maps[0].numpy()))
    assert float(readings.QUANTISATIONS["signed_256"](torch.ones(1, 2, 2))) == 0


def test_the_weakest_attack_of_a_reading() -> None:
    flags = {
        "r": {
            "clean": np.array([True, False, False, False]),
            "a": np.array([True, True]),
            "b": np.array([True, False]),
            "c": np.array([False, False]),
        }
    }
    (found,) = readings.readings_of(flags)
    assert found.false_alarms == 0.25
    assert found.weakest(["a", "b", "c"], 2) == (0.25, "b")
    assert found.weakest(["a", "b", "c"], 3) == (-0.25, "c")


def test_the_images_themselves_are_a_reading_too() -> None:
    _, images, _ = digits(3)
    darker = images * 0.5 + 0.25  # its histogram begins at a half
    options = {"detector": None, "quantisations": ["absolute_256", "raw"]}
    found = readings.reading_scores(images, **options, darker=darker)
    ours = shannon_entropy(darker[:, 0]) - shannon_entropy(images[:, 0])
    torch.testing.assert_close(found["darker.absolute_256"], ours)
    literally = [
        entropy_of_values(b) - entropy_of_values(a)
        for a, b in zip(images.numpy(), darker.numpy(), strict=True)
    ]
    np.testing.assert_allclose(found["darker.raw"].numpy(), literally, atol=1e-12)


def test_likeness_of_equal_and_of_other_maps() -> None:
    model, images, _ = digits(4)
    detector = Explainer(model, "integrated_gradients", n_points=3)
    same = denoising.entropies(images, images, detector=detector)
    other = denoising.entropies(images, images.flip(0), detector=detector)["cosine"]
    torch.testing.assert_close(same["cosine"], torch.ones(4).to(same["cosine"]))
    assert bool((other < 0.9).all())
    assert torch.equal(*same["map"].unbind(1))
    torch.testing.assert_close(same["image"][:, 0], shannon_entropy(images))


def test_difference_of_shares_is_newcombes() -> None:
    """The example of Newcombe 1998, Table II (a): 56 of 70 against 48 of 80, method 10."""
    first, second = np.arange(70) < 56, np.arange(80) < 48
    found = difference_of_shares(first, second)
    np.testing.assert_allclose(found[:3], (0.2, 0.0524, 0.3339), atol=5e-5)
    assert found.n == 70
    still = difference_of_shares(np.ones(10), np.ones(20))
    assert still.low < -0.1
    assert still.high > 0.1
    with pytest.raises(UserError, match="an outcome"):
        difference_of_shares([], [True])
