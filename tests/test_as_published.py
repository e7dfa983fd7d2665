"""What the published code of paper 3 does: its arithmetic worked by hand, its pictures by Keras' rules."""

import matplotlib as mpl
import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial.distance import cosine

from xaicore import models
from xaicore.attribution import grad_cam
from xaicore.metrics import cosine_similarity
from xaicore.studies import as_published
from xaicore.studies.as_published import AS_PUBLISHED, CORRECTED, Deviations
from xaicore.studies.layer_similarity import Pair, Version, layer_similarity, needed, versions_of

STRENGTHS = [0.25, 0.5, 1, 2, 4]


def test_the_drift_of_the_five_strengths():
    adversarial, gaussian = zip(*as_published.drifted(STRENGTHS), strict=True)
    assert adversarial == (0.25, -0.25, -0.25, 0.75, 3.75)
    assert gaussian == (0, -0.75, -1.25, -1.25, -0.25)


def test_the_drift_is_that_of_the_loop():
    image, noise = np.array([7.0, -3.0]), np.array([1.0, 0.5])
    held = image + noise
    for strength, (adversarial, base) in zip(STRENGTHS, as_published.drifted(STRENGTHS), strict=True):
        rest = held - noise
        held = rest + noise * strength
        assert rest == pytest.approx(image + base * noise)
        assert held == pytest.approx(image + adversarial * noise)


def test_each_deviation_stands_alone():
    each = Deviations.each()
    assert list(each) == ["drift", "pictures", "threshold", "truncation", "softmax", "pooled"]
    for name, deviations in each.items():
        on = [field for field in each if getattr(deviations, field)]
        assert on == [name]
    assert not any(getattr(CORRECTED, name) for name in each)
    assert all(getattr(AS_PUBLISHED, name) for name in each)


def test_truncation_turns_an_eighth_of_a_grey_level_into_a_half():
    """Gaussian noise of RMS 0.125: half of the values lose a whole level, so mean -1/2 and RMS sqrt(1/2)."""
    rng = np.random.default_rng(0)
    clean = torch.full((1, 1, 400, 400), 128 / 255, dtype=torch.float64)
    noise = torch.from_numpy(rng.normal(0, 0.125 / 255, clean.shape))
    stored = 255 * (as_published.truncate(clean + noise) - clean)
    assert (255 * noise).square().mean().sqrt().item() == pytest.approx(0.125, abs=1e-3)
    assert stored.mean().item() == pytest.approx(-0.5, abs=0.01)
    assert stored.square().mean().sqrt().item() == pytest.approx(0.707, abs=0.01)


def test_what_is_a_whole_grey_level_stays():
    levels = (torch.arange(256) / 255).float()
    assert torch.equal(as_published.truncate(levels), levels)
    assert 255 * as_published.truncate(torch.tensor([0.999])).item() == pytest.approx(254)


def blobs():
    """Two maps of 10 x 20 cells that are 1 in 31 cells each, none in common."""
    maps = torch.zeros(2, 10, 20)
    maps[0].view(-1)[:31] = 1
    maps[1].view(-1)[100:131] = 1
    return maps


def test_disjoint_maps_have_nothing_in_common_but_their_pictures_have():
    """jet(0) is (0, 0, 1/2) and jet(1) is (1/2, 0, 0), stretched to pure blue and red.

    Where both maps are 0, 138 of 200 cells, the pictures are both blue; elsewhere red meets blue, and their product is 0.
    """
    maps = blobs()
    images = torch.rand(2, 3, 10, 20, generator=torch.Generator().manual_seed(0))
    first, second = as_published.pictures(maps, images, overlay=False)
    assert cosine_similarity(maps[:1], maps[1:]).item() == 0
    assert 1 - cosine(first.flatten(), second.flatten()) == pytest.approx(138 / 200)  # 0.69
    measure = as_published.coloured(lambda: images[:1], overlay=False)
    assert measure.compare(measure.prepare(maps[:1]), measure.prepare(maps[1:])).item() == pytest.approx(0.69)


def test_the_photograph_makes_pictures_more_alike_still():
    photograph = torch.rand(1, 3, 10, 20, generator=torch.Generator().manual_seed(0)).expand(2, -1, -1, -1)
    first, second = as_published.pictures(blobs(), photograph, overlay=True)
    assert 1 - cosine(first.flatten(), second.flatten()) > 0.69


def keras_picture(heat, photograph):
    """The steps of ``Grad_CAM.py`` in its own order, with Keras' array_to_img written out."""

    def array_to_img(array):
        array = np.asarray(array, dtype=np.float32)
        array = array - array.min()
        if array.max() != 0:
            array = array / array.max()
        return Image.fromarray((array * 255).astype(np.uint8))

    heat = np.uint8(255 * (np.maximum(heat, 0) / heat.max()))
    colours = array_to_img(mpl.colormaps["jet"](np.arange(256))[:, :3][heat])
    colours = np.asarray(colours.resize((photograph.shape[1], photograph.shape[0])), dtype=np.float32)
    return np.asarray(array_to_img(colours * 0.4)), np.asarray(array_to_img(colours * 0.4 + photograph))


def test_the_pictures_are_those_of_the_steps_in_order():
    generator = torch.Generator().manual_seed(1)
    heat, images = torch.rand(3, 5, 5, generator=generator), torch.rand(3, 3, 16, 16, generator=generator)
    images = (images * 255).round() / 255
    for row in range(3):
        photograph = 255 * images[row].permute(1, 2, 0).numpy()
        expected = keras_picture(heat[row].numpy(), photograph)
        for overlay in (False, True):
            found = as_published.pictures(heat[row][None], images[row][None], overlay=overlay)[0].numpy()
            assert np.array_equal(found, expected[overlay])


def test_a_map_without_content_is_one_colour():
    picture = as_published.pictures(torch.zeros(1, 4, 4), torch.rand(1, 1, 8, 8), overlay=False)[0]
    assert torch.equal(picture, torch.tensor([0.0, 0, 255]).expand(8, 8, 3))


def test_random_noise_is_compared_with_itself_beyond_the_first_strength():
    # Layer means under noise 0.8, 0.9, 0.4 (mean 0.7), at both strengths; the attack leaves 0.1 everywhere.
    noise = np.array([[[0.75, 0.9, 0.45]] * 2, [[0.85, 0.9, 0.35]] * 2])
    attack = np.full((2, 2, 3), 0.1)
    assert as_published.compromise(attack, noise).tolist() == pytest.approx([1, 1 / 3])
    flags = as_published.compromised(attack, noise)
    assert flags[:, 0].all()
    assert flags[:, 1].tolist() == [[0, 0, 1], [0, 0, 1]]


def test_the_softmax_head_mixes_the_classes(model):
    """The map of p_t is ReLU of p_t (map of z_t - sum p_k map of z_k), signed maps."""
    images = torch.rand(3, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    found = as_published.softmax_grad_cam(model, images)
    assert list(found) == list(grad_cam(model, images))
    name = list(found)[-1]
    probabilities = model(images).softmax(1).detach()
    chosen = probabilities.argmax(1)
    assert torch.equal(found.targets, chosen)
    signed = torch.stack([_signed(model, name, images, k) for k in range(4)], 1)
    mean = (probabilities[:, :, None, None] * signed).sum(1)
    rows = torch.arange(3)
    expected = (probabilities[rows, chosen, None, None] * (signed[rows, chosen] - mean)).relu()
    assert torch.allclose(found[name], expected, atol=1e-6)


def _signed(model, name, images, target):
    """Grad-CAM of a class without the last ReLU."""
    kept = {}
    relu = _relu_after(model, name)
    handle = relu.register_forward_hook(lambda module, given, output: kept.update(a=output))
    logits = model(images)
    handle.remove()
    slope = torch.autograd.grad(logits[:, target].sum(), kept["a"])[0]
    return (slope.mean((2, 3), keepdim=True) * kept["a"]).sum(1).detach()


def _relu_after(model, name):
    modules = list(model.network.named_modules())
    start = next(position for position, (each, _) in enumerate(modules) if each == name)
    return next(module for _, module in modules[start:] if isinstance(module, torch.nn.ReLU))


def test_a_certain_answer_leaves_no_clean_map(model):
    """Where the probability rounds to 1 the softmax has no gradient."""
    sharp = models.load("small_cnn", classes=4, channels=1, input_size=28, seed=3)
    last = [module for module in sharp.network.modules() if isinstance(module, torch.nn.Linear)][-1]
    with torch.no_grad():
        last.weight.mul_(1e4)
        last.bias.mul_(1e4)
    clean = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    noise = torch.zeros_like(clean)
    found = layer_similarity(
        sharp, clean, noise, noise, [Version()], measures=("maps", "pictures"), heads=("logits", "softmax")
    )
    assert not found.clean_valid[:, :, 1].any()
    assert found.similarity[..., 1, 0].isnan().all()
    assert found.similarity[..., 1, 1].isfinite().all()
    assert found.clean_valid[:, :, 0].any()


def test_a_stored_version_is_cut_off_to_grey_levels(model):
    clean = torch.randint(60, 190, (2, 1, 28, 28), generator=torch.Generator().manual_seed(4)) / 255
    noise = torch.full_like(clean, -0.25 / 255)
    image = Version(1.0, truncated=True).image(clean, noise, noise)
    assert torch.allclose(image, clean - 1 / 255, atol=1e-6)
    assert torch.allclose(Version(1.0).image(clean, noise, noise), clean + noise)


def test_what_each_analysis_compares():
    corrected, published = versions_of(STRENGTHS), versions_of(STRENGTHS, AS_PUBLISHED)
    assert corrected.adversarial == tuple(Version(s) for s in STRENGTHS)
    assert corrected.gaussian == tuple(Version(0, s) for s in STRENGTHS)
    assert published.adversarial[1] == published.adversarial[2] == Version(-0.25, 0, True)
    assert published.gaussian[3] == Version(-1.25, 2, True)
    both = needed([corrected, published, corrected])
    assert len(both) == 10 + 9
    assert needed([Pair(both, both)]) == both
