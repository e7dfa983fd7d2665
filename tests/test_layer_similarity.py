"""The similarity of maps against a plain loop with Captum and scipy, and its parts against hand-worked numbers."""

import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from scipy import stats
from scipy.spatial.distance import cosine

from xaicore import models
from xaicore.attacks import gaussian, noise_like
from xaicore.attribution import grad_cam
from xaicore.core.errors import UserError
from xaicore.metrics import coverage_progress
from xaicore.run.engine import LocalEngine
from xaicore.run.store import Store
from xaicore.studies import layer_findings, steps
from xaicore.studies.layer_names import literature_names, short_names
from xaicore.studies.layer_similarity import INTERPOLATED, Version, layer_similarity, similarity_to_others


@pytest.fixture(scope="module")
def subject():
    generator = torch.Generator().manual_seed(0)
    clean = torch.randint(40, 200, (5, 1, 28, 28), generator=generator) / 255
    attack = 0.2 * torch.randn(5, 1, 28, 28, generator=generator)
    return clean, attack, noise_like(attack, seed=7)


VERSIONS = [Version(1.0), Version(adversarial=-0.25, gaussian=2.0), Version(gaussian=1.0)]


def by_hand(model, name, before, after, *, target=None):
    module = dict(model.network.named_modules())[name]
    maps = []
    for image in (before, after):
        chosen = int(model(image[None]).argmax()) if target is None else target
        raw = LayerGradCam(model, module).attribute(image[None], target=chosen, relu_attributions=True)
        maps.append(raw.detach().flatten().double().numpy())
    return 1 - cosine(*maps) if all(each.any() for each in maps) else float("nan")


@pytest.mark.parametrize("hold", [False, True])
def test_equals_a_loop_of_captum_and_scipy(model, subject, hold):
    clean, attack, noise = subject
    modules = dict(model.network.named_modules())
    relus = [name for name, module in modules.items() if isinstance(module, torch.nn.ReLU)][:3]
    found = layer_similarity(model, *subject, VERSIONS, layers=relus, hold_class=hold)
    assert found.layers == tuple(relus)
    assert found.similarity.shape == (5, 3, 3, 1, 1)
    after = [
        (clean + attack).clamp(0, 1),
        (clean - 0.25 * attack + 2 * noise).clamp(0, 1),
        (clean + noise).clamp(0, 1),
    ]
    for version, images in enumerate(after):
        for row in range(5):
            target = int(model(clean[row][None]).argmax()) if hold else None
            for position, name in enumerate(relus):
                expected = by_hand(model, name, clean[row], images[row], target=target)
                got = found.similarity[row, version, position, 0, 0].item()
                assert got == pytest.approx(expected, abs=2e-5, nan_ok=True)


def test_a_copy_is_the_same_in_every_layer_and_an_empty_map_has_no_similarity(model, subject):
    clean, attack, noise = subject
    found = layer_similarity(model, clean, attack, noise, [Version()])
    known = found.valid[:, 0] & found.clean_valid[:, :, 0]
    values = found.similarity[:, 0, :, 0, 0]
    assert known.any()
    assert torch.equal(values.isnan(), ~known)
    assert values[known].numpy() == pytest.approx(1, abs=1e-6)


def test_the_step_keeps_what_the_function_computes(model, subject, tmp_path):
    engine = LocalEngine(Store(tmp_path), workers=1)
    options = {"measures": ("maps", "pictures"), "heads": ("logits", "softmax")}
    direct = layer_similarity(model, *subject, VERSIONS, **options)
    for _ in range(2):
        kept = steps.similar(engine, model, *subject, VERSIONS, batch_size=2, **options)
        assert kept.layers == direct.layers
        for name in ("valid", "clean_valid", "targets", "targets_after"):
            assert torch.equal(getattr(kept, name), getattr(direct, name)), name
        assert torch.allclose(kept.similarity, direct.similarity, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"measures": ("jet",)}, "measures must be among"),
        ({"heads": ()}, "heads must be among"),
        ({"versions": []}, "versions must hold at least one"),
        ({"adversarial_noise": torch.zeros(4, 1, 28, 28)}, "must have the shape of clean"),
    ],
)
def test_what_does_not_fit_is_named(model, subject, change, message):
    given = dict(zip(("clean", "adversarial_noise", "gaussian_noise"), subject, strict=True))
    given |= {"versions": VERSIONS, **change}
    with pytest.raises((ValueError, UserError), match=message):
        layer_similarity(model, **given)


def test_the_noise_is_the_one_that_the_attack_adds(model, subject):
    clean, attack, _ = subject
    labels = model(clean).argmax(1)
    index = torch.tensor([4, 0, 9, 2, 3])
    added = gaussian(model, clean, labels, like=attack, seed=11, index=index).adversarial
    assert torch.allclose((clean + noise_like(attack, seed=11, index=index)).clamp(0, 1), added, atol=1e-6)
    noise = noise_like(attack, seed=11, index=index).double()
    assert torch.allclose(noise.mean((1, 2, 3)), attack.double().mean((1, 2, 3)), atol=1e-6)
    assert torch.allclose(noise.std((1, 2, 3)), attack.double().std((1, 2, 3)), atol=1e-6)


def test_vgg16_has_the_names_of_the_literature():
    network = models.load("vgg16", classes=3, width=0.05, input_size=32).fold_batchnorm()
    names = literature_names(network)
    assert list(names) == list(grad_cam(network, torch.rand(1, 3, 32, 32)))
    expected = [
        f"block{b}_conv{c}" for b, depth in enumerate((2, 2, 3, 3, 3), 1) for c in range(1, depth + 1)
    ]
    assert list(names.values()) == expected
    assert short_names(expected)[7] == "4-1"
    other = models.load("small_cnn", classes=3, channels=1, input_size=28)
    assert all(name == module for module, name in literature_names(other).items())
    assert short_names(list(literature_names(other)))[:2] == ["1", "2"]


def test_findings_of_numbers_worked_by_hand():
    # Two images, strengths 0.5 and 1, three layers.
    noise = np.array([[[1.0, 0.9, 0.8], [0.9, 0.8, 0.7]], [[1.0, 0.7, 0.6], [0.7, 0.6, 0.3]]])
    attack = np.array([[[0.9, 0.9, 0.9], [0.8, 0.6, 0.1]], [[1.0, 0.8, 0.5], [0.6, 0.2, 0.1]]])
    found = layer_findings.findings(attack, noise, 1, n_resamples=50)
    assert [e.value for e in found.gap] == pytest.approx([0.1, 0.3, 0.4])
    assert [e.value for e in found.rank] == [3, 2, 1]
    assert [e.value for e in found.log_variance_ratio] == pytest.approx([0, 2, np.nan], nan_ok=True)
    assert (found.smallest_log_ratio.value, found.middle_log_ratio.value) == pytest.approx((0, 1))
    assert (found.smallest_gap.value, found.middle_gap.value) == pytest.approx((0.1, 0.3))
    assert [e.value for e in found.gaussian_rank] == [3, 2, 1]
    # The lowest of each example and strength: layers 1 (the first of three equals), 3, 3, 3.
    assert [e.value for e in found.lowest] == [0.25, 0, 0.75]
    assert [e.value for e in found.gaussian_lowest] == [0, 0, 1]
    assert found.strength_gap[1].value == pytest.approx((0.1 + 0.3 + 0.4) / 3)
    assert found.shift[0, 1].value == pytest.approx((0.25 + 0.45 + 0.6) / 3)
    assert found.gaussian_depth_correlation.value == -1
    assert found.adversarial[1].value == pytest.approx(1 - (0.7 + 0.4 + 0.1) / 3)
    assert found.gaussian[0].value == pytest.approx(1 - (1 + 0.8 + 0.7) / 3)
    assert found.adversarial_change.value == pytest.approx(
        found.adversarial[1].value - found.adversarial[0].value
    )
    assert found.depth_correlation.value == -1
    assert found.distance[0, 1] == pytest.approx((0.25 + 0.45 + 0.6) / 3)
    # Medians of strength 0.5: 1, 0.8, 0.7; of strength 1: 0.8, 0.7, 0.5.
    expected = [[[1, 0, 0], [0, 1, 1]], [[0, 0, 1], [1, 1, 1]]]
    assert layer_findings.compromised(attack, noise).tolist() == expected
    assert [e.value for e in found.compromise] == pytest.approx([2 / 6, 5 / 6])


def test_pooled_strengths_are_one_group():
    rng = np.random.default_rng(3)
    noise, attack = rng.random((6, 2, 4)), rng.random((6, 2, 4))
    pooled = layer_findings.findings(attack, noise, 1, pooled=True, n_resamples=20)
    alone = layer_findings.findings(attack, noise, 1, n_resamples=20)
    assert [e.value for e in pooled.gap] == pytest.approx((noise - attack).mean((0, 1)))
    ratio = attack.reshape(12, 4).var(0) / noise.reshape(12, 4).var(0)
    assert [e.value for e in pooled.log_variance_ratio] == pytest.approx(np.log2(ratio))
    by_strength = [layer_findings.depth_correlation(curve) for curve in attack.mean(0)]
    assert pooled.depth_correlation.value == pytest.approx(np.mean(by_strength))
    assert [e.value for e in pooled.adversarial] == [e.value for e in alone.adversarial]


def test_what_is_above_chance_has_the_floor_taken_off():
    own, others = np.array([[0.6, 0.9], [0.8, 0.7]]), np.array([[0.2, 0.6], [0.4, 0.6]])
    floor, above, (depth, of_floor) = layer_findings.chance_corrected(own, others, n_resamples=20)
    assert floor == pytest.approx([0.3, 0.6])
    assert above == pytest.approx([0.4 / 0.7, 0.2 / 0.4])
    assert depth.value == pytest.approx(-1)
    assert of_floor.value == pytest.approx(1)
    assert layer_findings.depth_correlation(own.mean(0)) == pytest.approx(1)


def test_a_layer_with_maps_in_few_images_is_left_out():
    rng = np.random.default_rng(0)
    noise = 0.9 - 0.01 * rng.random((30, 2, 3))
    attack = noise - 0.3
    attack[3:, :, 1] = np.nan
    attack[:3, :, 1] = 0.95
    found = layer_findings.findings(attack, noise, 1, n_resamples=20)
    assert np.isnan(found.gap[1].value)
    assert found.smallest_gap.value == pytest.approx(0.3)
    few = layer_findings.findings(attack[:3], noise[:3], 1, n_resamples=20)
    assert few.smallest_gap.value < 0


def test_the_floor_is_the_cosine_with_other_images(model, subject):
    clean = subject[0]
    found = similarity_to_others(model, clean, batch_size=2)
    maps = grad_cam(model, clean)
    for position, heat in enumerate(maps.values()):
        flat = heat.flatten(1).double().numpy()
        there = [row for row in range(len(flat)) if flat[row].any()]
        for row in range(len(flat)):
            others = [1 - cosine(flat[row], flat[k]) for k in there if k != row]
            expected = np.mean(others) if row in there and others else np.nan
            assert found[row, position].item() == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_maps_enlarged_to_the_image_are_compared_as_torch_enlarges_them(model, subject):
    found = layer_similarity(model, *subject, [Version(1.0)], measures=(INTERPOLATED,))
    before, after = grad_cam(model, subject[0]), grad_cam(model, (subject[0] + subject[1]).clamp(0, 1))
    name = found.layers[-1]
    large = [
        torch.nn.functional.interpolate(maps[name][:, None], (28, 28), mode="bilinear").flatten(1)
        for maps in (before, after)
    ]
    expected = torch.nn.functional.cosine_similarity(*large)
    known = found.similarity[:, 0, -1, 0, 0].isfinite()
    assert known.any()
    assert torch.allclose(found.similarity[:, 0, -1, 0, 0][known].float(), expected[known], atol=1e-5)


def test_a_layer_without_a_map_is_neither_compromised_nor_not():
    flags = np.array([[[1, np.nan, 1]], [[1, 0, np.nan]], [[np.nan] * 3]])
    count, defined = layer_findings.compromised_layers(flags)
    assert count.ravel().tolist() == [2, 1, 0]
    assert defined.ravel().tolist() == [2, 2, 0]


def test_undefined_similarities_are_left_out_not_counted():
    noise = np.array([[[0.9, np.nan]], [[0.7, np.nan]], [[0.5, 0.4]]])
    attack = np.array([[[0.8, 0.2]], [[np.nan, 0.2]], [[0.2, np.nan]]])
    found = layer_findings.findings(attack, noise, 0, n_resamples=20)
    assert found.gap[0].value == pytest.approx((0.1 + 0.3) / 2)
    assert np.isnan(found.gap[1].value)
    flags = layer_findings.compromised(attack, noise)
    assert np.isnan(flags[1, 0, 0])
    assert flags[0, 0].tolist() == [0, 1]
    tests = layer_findings.paired_tests(attack[:, 0], noise[:, 0])
    assert tests[0][0].n == 2
    assert (tests[1][0].n, tests[1][1]) == (0, 1)


def test_the_paired_test_is_scipys():
    rng = np.random.default_rng(1)
    noise, attack = rng.normal(0.8, 0.1, (20, 3)), rng.normal(0.7, 0.1, (20, 3))
    found = layer_findings.paired_tests(attack, noise)
    plain = [stats.wilcoxon(noise[:, k], attack[:, k]).pvalue for k in range(3)]
    assert [test.p_value for test, _ in found] == pytest.approx(plain)
    ordered = sorted(p for _, p in found)
    assert ordered[0] == pytest.approx(min(1, 3 * min(plain)))


numbers = arrays.arrays(np.float64, (7, 4), elements=st.sampled_from([np.nan, 0.1, 0.25, 0.5, 0.75, 1.0]))


@given(numbers)
@settings(max_examples=60, deadline=None)
def test_means_and_medians_are_numpys(values):
    known = np.isfinite(values).any(0)
    assert np.array_equal(np.isnan(layer_findings.median_of_known(values)), ~known)
    assert layer_findings.median_of_known(values)[known] == pytest.approx(np.nanmedian(values[:, known], 0))
    assert layer_findings.mean_of_known(values, 0)[known] == pytest.approx(np.nanmean(values[:, known], 0))


@given(numbers)
@settings(max_examples=60, deadline=None)
def test_depth_is_correlated_as_scipy_does(values):
    curve = values[:, 0]
    known = np.isfinite(curve)
    if known.sum() < 2 or np.ptp(curve[known]) == 0:
        assert np.isnan(layer_findings.depth_correlation(curve))
    else:
        expected = stats.spearmanr(np.flatnonzero(known), curve[known]).statistic
        assert layer_findings.depth_correlation(curve) == pytest.approx(expected)


@given(numbers)
@settings(max_examples=40, deadline=None)
def test_against_its_own_median_at_most_half_is_compromised(values):
    share = layer_findings.compromise_probability(values[:, None], values[:, None])
    assert np.isnan(share[0]) or 0 <= share[0] <= 0.5


def test_coverage_grows_image_by_image():
    covered = np.array([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]], dtype=bool)
    progress = coverage_progress(covered, [[0, 1, 2], [2, 2, 0]])
    assert progress.tolist() == [[0.25, 0.5, 0.75], [0.25, 0.25, 0.5]]
    both = coverage_progress(np.stack([covered, np.eye(3, 4, dtype=bool)], 1), [[1, 2, 0]])
    assert both.tolist() == [[0.5, 0.75, 0.75]]
    with pytest.raises(ValueError, match="orders"):
        coverage_progress(covered, [0, 1])
