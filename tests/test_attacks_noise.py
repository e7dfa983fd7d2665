"""gaussian: its moments, image by image, their match to a perturbation, and what clipping leaves of them."""

import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from subjects import digits
from torch import Tensor, nn

from xaicore import attacks


class Even(nn.Module):
    """Class 1 where the mean is over a half; knows where it was asked."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        brightness = x.mean(dim=(1, 2, 3))
        return torch.stack([torch.full_like(brightness, 0.5), brightness], dim=1)


def grey(count: int, channels: int = 1, side: int = 16, value: float = 0.4) -> tuple[Tensor, Tensor]:
    return torch.full((count, channels, side, side), value), torch.zeros(count, dtype=torch.int64)


def moments(batch: Tensor) -> tuple[Tensor, Tensor]:
    flat = batch.double().flatten(1)
    return flat.mean(1), flat.std(1, correction=0)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    channels=st.sampled_from([1, 3]),
    mean=st.floats(-0.05, 0.05),
    std=st.floats(1e-4, 0.06),
    scale=st.floats(0.1, 1.0),
)
def test_moments_are_exact_in_the_sample(
    seed: int, channels: int, mean: float, std: float, scale: float
) -> None:
    """Images of 0.5 and noise within 7 deviations: nothing is clipped, and nothing is left to chance."""
    images, labels = grey(4, channels, value=0.45)
    result = attacks.gaussian(Even(), images, labels, mean=mean, std=std, scale=scale, seed=seed)
    assert result.linf.max() < 0.5
    found_mean, found_std = moments(result.adversarial - images)
    assert (found_mean - scale * mean).abs().max() < 1e-7 + 1e-6 * scale * std
    assert (found_std - scale * std).abs().max() < 1e-7 + 1e-5 * scale * std
    torch.testing.assert_close(result.info["mean"].double(), found_mean, atol=1e-8, rtol=1e-6)
    torch.testing.assert_close(result.info["std"].double(), found_std, atol=1e-8, rtol=1e-6)
    assert (result.queries == 0).all()


def test_noise_is_normal_independent_and_its_own_for_each_image_and_seed() -> None:
    images, labels = grey(6, 3, 32)
    first = attacks.gaussian(Even(), images, labels, std=0.05)
    second = attacks.gaussian(Even(), images, labels, std=0.05, seed=1)
    noise = torch.cat([first.adversarial, second.adversarial]).sub(0.4).flatten(1).double() / 0.05
    for row in noise:
        assert scipy.stats.kstest(row, "norm").pvalue > 0.01
    # 12 rows of 3072 values: correlations of independent rows have a deviation of 0.018.
    off_diagonal = torch.corrcoef(noise) - torch.eye(12)
    assert off_diagonal.abs().max() < 0.08
    pixels = noise.view(12, 3, 32, 32)
    for shifted in (pixels.roll(1, 1), pixels.roll(1, 2), pixels.roll(1, 3)):
        assert (pixels * shifted).mean().abs() < 0.03


def test_the_same_noise_is_moved_stretched_and_scaled() -> None:
    images, labels = grey(3, 1, 16)
    unit = attacks.gaussian(Even(), images, labels, std=0.01).adversarial - images
    other = attacks.gaussian(Even(), images, labels, mean=0.02, std=0.03, scale=2.0).adversarial - images
    torch.testing.assert_close(other, 2 * (0.02 + 3 * unit), atol=1e-6, rtol=0)


def test_like_is_matched_row_by_row_also_when_images_are_left_out() -> None:
    """Three images are misclassified and three not; each noise must be like its own row."""
    images, labels = grey(6, 2, 12)
    labels[[0, 2, 3]] = 1
    generator = torch.Generator().manual_seed(0)
    strengths = torch.tensor([0.08, 0.01, 0.07, 0.06, 0.02, 0.04]).view(-1, 1, 1, 1)
    like = strengths * torch.randn(images.shape, generator=generator) + strengths / 10
    result = attacks.gaussian(Even(), images, labels, like=like)
    kept = torch.tensor([1, 4, 5])
    wanted_mean, wanted_std = moments(like[kept])
    torch.testing.assert_close(result.info["mean"][kept].double(), wanted_mean, atol=1e-7, rtol=0)
    torch.testing.assert_close(result.info["std"][kept].double(), wanted_std, atol=1e-7, rtol=0)
    assert torch.equal(result.adversarial[[0, 2, 3]], images[[0, 2, 3]])
    assert result.info["std"][[0, 2, 3]].isnan().all()

    means, stds = (m.float() for m in moments(like))
    same = attacks.gaussian(Even(), images, labels, mean=means, std=stds)
    assert torch.equal(same.adversarial, result.adversarial)
    order = torch.tensor([5, 3, 1, 0, 4, 2])
    shuffled = attacks.gaussian(Even(), images[order], labels[order], like=like[order], index=order)
    assert torch.equal(shuffled.adversarial, result.adversarial[order])
    alone = attacks.gaussian(Even(), images[4:5], labels[4:5], like=like[4:5], index=torch.tensor([4]))
    assert torch.equal(alone.adversarial, result.adversarial[4:5])


def test_groups_keep_rows_together(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = grey(7, 1, 8)
    std = torch.arange(1, 8) / 200
    whole = attacks.gaussian(Even(), images, labels, std=std)
    monkeypatch.setattr("xaicore.attacks.base.GROUP", 2 * 64)
    parts = attacks.gaussian(Even(), images, labels, std=std)
    assert torch.equal(whole.adversarial, parts.adversarial)
    torch.testing.assert_close(whole.info["std"], std, atol=1e-7, rtol=0)


def test_clipping_is_reported() -> None:
    """On black, noise of deviation s keeps its upper half: mean s / sqrt(2 pi), deviation s (1/2 - 1/2pi)^0.5."""
    images, labels = grey(4, 1, 64, value=0.0)
    result = attacks.gaussian(Even(), images, labels, std=0.1)
    torch.testing.assert_close(result.info["mean"], torch.full((4,), 0.1 * 0.398942), atol=0.002, rtol=0)
    torch.testing.assert_close(result.info["std"], torch.full((4,), 0.1 * 0.583797), atol=0.002, rtol=0)
    assert result.adversarial.min() == 0


def test_success_is_measured_and_the_model_asked_for_that_alone() -> None:
    images, labels = grey(5, 1, 8, value=0.48)
    model = Even()
    result = attacks.gaussian(
        model, images, labels, mean=torch.tensor([0.0, 0.01, 0.03, 0.04, 0.05]), std=0.01
    )
    assert result.success.tolist() == [False, False, True, True, True]
    assert model.calls == 2
    assert attacks.gaussian(Even(), images, labels, mean=0.05, std=0.0, target=1).success.all()


def test_like_an_attack_on_digits_is_as_strong_and_fools_less() -> None:
    model, images, labels = digits(32)
    adversarial = attacks.bim(model, images, labels, eps=0.2, early_stop=False)
    like = adversarial.adversarial - images
    result = attacks.gaussian(model, images, labels, like=like)
    assert result.success.sum() < adversarial.success.sum() / 2
    wanted = moments(like)[1]
    # Clipping on the black ground takes more from the noise than from the attack, whose values were clipped.
    assert (result.info["std"] < wanted).all()
    assert (result.info["std"] > 0.5 * wanted).all()


def test_no_perturbation_is_no_noise_and_one_value_has_no_deviation() -> None:
    images, labels = grey(2, 1, 4)
    still = attacks.gaussian(Even(), images, labels, like=torch.zeros_like(images))
    assert torch.equal(still.adversarial, images)
    single = attacks.gaussian(Even(), images[..., :1, :1], labels, mean=0.05, std=0.2)
    torch.testing.assert_close(single.adversarial.flatten(), torch.full((2,), 0.45))


IMAGES, LABELS = grey(3, 1, 4)


@pytest.mark.parametrize(
    ("parameter", "message"),
    [
        ({"like": IMAGES.numpy()}, "like must be a torch.Tensor"),
        ({"like": IMAGES[:2]}, "like must have the shape of images"),
        ({"like": IMAGES[:, 0]}, "like must have the shape of images"),
        ({"like": IMAGES.long()}, "like must be a floating-point"),
        ({"like": IMAGES * torch.nan}, "like must be finite"),
        ({"like": IMAGES / 0}, "like must be finite"),
        ({"like": IMAGES, "std": 0.1}, "like must be given without"),
        ({"like": IMAGES, "mean": 0.0}, "like must be given without"),
        ({"std": -0.1}, "std must hold finite numbers of at least 0"),
        ({"std": torch.tensor([0.1, -0.1, 0.1])}, "std must hold finite numbers"),
        ({"std": torch.tensor([0.1, torch.nan, 0.1])}, "std must hold finite numbers"),
        ({"std": torch.ones(3, dtype=torch.int64)}, "std must hold finite numbers"),
        ({"std": torch.tensor([0.1, 0.1])}, "std must have shape"),
        ({"std": "0.1"}, "std must be a number"),
        ({"std": True}, "std must be a number"),
        ({"mean": float("inf"), "std": 0.1}, "mean must hold finite numbers"),
        ({"mean": [0.1] * 3, "std": 0.1}, "mean must be a number"),
        ({"std": 0.1, "scale": 0}, "scale must be"),
        ({"std": 0.1, "scale": float("nan")}, "scale must be"),
    ],
)
def test_bad_parameter_is_one_clear_error(parameter: dict[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message) as caught:
        attacks.gaussian(Even(), IMAGES, LABELS, **parameter)
    assert "\n" not in str(caught.value)
