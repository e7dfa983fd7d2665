"""Changes of the size of an attack: what each kind keeps of the perturbation, and that all have the attack's size."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies
from subjects import trained

from xaicore.attacks import bim
from xaicore.run import engine
from xaicore.run.store import Store
from xaicore.studies import matched_noise


def drawn(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_shuffled_pixels_keep_their_values_and_their_channels():
    noise = drawn(0, (2, 3, 5, 5))
    found = matched_noise.shuffled_pixels(noise, seed=1)
    assert not torch.equal(found, noise)
    for row in range(2):
        pixels, before = ({tuple(p) for p in each[row].flatten(1).T.tolist()} for each in (found, noise))
        assert pixels == before
    assert torch.equal(matched_noise.shuffled_pixels(noise[:1], seed=1), found[:1])


def test_a_transplanted_perturbation_is_anothers_at_ones_own_length():
    noise = drawn(0, (3, 1, 4, 4)) * torch.tensor([1.0, 2, 4]).view(3, 1, 1, 1)
    found = matched_noise.transplanted(noise)
    torch.testing.assert_close(found.flatten(1).norm(dim=1), noise.flatten(1).norm(dim=1))
    for row, other in enumerate((2, 0, 1)):
        likeness = torch.cosine_similarity(found[row].flatten(), noise[other].flatten(), dim=0)
        assert likeness == pytest.approx(1, abs=1e-6)
    assert not matched_noise.transplanted(torch.zeros(2, 1, 4, 4)).any()  # nothing, not NaN


@given(strategies.integers(0, 99), strategies.integers(2, 9), strategies.integers(2, 9))
def test_noise_of_the_same_spectrum_keeps_spectra_mean_and_length(seed: int, height: int, width: int):
    noise = drawn(seed, (2, 3, height, width)) + 0.3
    found = matched_noise.same_spectrum(noise, seed=seed)
    before, after = (np.fft.fft2(each.double().numpy()) for each in (noise, found))
    np.testing.assert_allclose(abs(after), abs(before), atol=1e-5)
    for one, other in ((0, 1), (1, 2)):  # between channels, too
        spectra = [each[:, one] * each[:, other].conj() for each in (before, after)]
        np.testing.assert_allclose(spectra[1], spectra[0], atol=1e-4)
    torch.testing.assert_close(found.mean((2, 3)), noise.mean((2, 3)), atol=1e-6, rtol=1e-5)
    assert torch.equal(matched_noise.same_spectrum(noise[:1], seed=seed), found[:1])


def test_noise_of_the_same_spectrum_has_another_shape():
    noise = drawn(0, (4, 1, 16, 16))
    found = matched_noise.same_spectrum(noise)
    assert torch.cosine_similarity(found.flatten(1), noise.flatten(1)).abs().max() < 0.3


@pytest.mark.parametrize("kind", ["gaussian", *matched_noise.KINDS])
def test_every_kind_has_the_attacks_size_after_clipping(kind: str, tmp_path):
    model, images, labels = trained("coarse-digits")
    images, labels = images[:12], labels[:12]
    attacked = bim(model, images, labels, eps=0.2, steps=5, early_stop=False)
    local = engine.get(store=Store(tmp_path))
    given = local, model, images, labels, attacked.adversarial
    found, factor = matched_noise.noise_of_equal_size(*given, batch_size=5, kind=kind)
    taken = ~found.info["initially_wrong"]
    assert found.l2[taken].median().item() == pytest.approx(attacked.l2[taken].median().item(), rel=0.05)
    assert factor > 1  # clipping took some
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    answers = model(found.adversarial).argmax(1)
    assert torch.equal(found.success, answers != labels)
