"""Models and settings under which an attack could return something else than it says, in silence."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from xaicore import attacks, metrics, models
from xaicore.core.errors import UserError
from xaicore.core.randomness import stream


class Standardised(nn.Conv2d):
    """A convolution with standardised weights: a subclass that is no plain convolution."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        mean, deviation = self.weight.mean((1, 2, 3), keepdim=True), self.weight.std((1, 2, 3), keepdim=True)
        return functional.conv2d(images, (self.weight - mean) / deviation, self.bias, padding=1)


class Leaky(nn.ReLU):
    """A ReLU by class, and none."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(values, 0.5)


class Average(nn.MaxPool2d):
    """A pool that takes means."""

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        return functional.avg_pool2d(values, 2)


class Whole(nn.Module):
    """A network whose layers nobody sees."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images)


def chain(convolution: nn.Module, activation: nn.Module, pool: nn.Module) -> nn.Sequential:
    return nn.Sequential(convolution, activation, pool, nn.Flatten(), nn.Linear(8 * 14 * 14, 5)).eval()


@pytest.mark.parametrize("odd", ["convolution", "activation", "pool"])
def test_one_pixel_on_layers_that_are_subclasses(odd: str) -> None:
    plain, other = {}, {"convolution": Standardised, "activation": Leaky, "pool": Average}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        plain = {"convolution": nn.Conv2d, "activation": nn.ReLU, "pool": nn.MaxPool2d} | {odd: other[odd]}
        model = chain(plain["convolution"](3, 8, 3, padding=1), plain["activation"](), plain["pool"](2))
    images = torch.rand(6, 3, 28, 28, generator=torch.Generator().manual_seed(1))
    labels, options = models.predict(model, images).argmax(1), {"population": 20, "generations": 5}
    found = attacks.one_pixel(model, images, labels, **options)
    wanted = attacks.one_pixel(Whole(model), images, labels, **options)
    assert torch.equal(found.success, wanted.success)
    torch.testing.assert_close(found.adversarial, wanted.adversarial)
    torch.testing.assert_close(
        found.info["history"], wanted.info["history"], rtol=1e-4, atol=1e-5, equal_nan=True
    )


def test_statistics_of_the_batch_are_refused() -> None:
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten())
    images, labels = torch.rand(3, 1, 4, 4), torch.zeros(3, dtype=torch.int64)
    with pytest.raises(UserError, match="'1' normalises by the images of its batch"):
        attacks.fgsm(model.eval(), images, labels)


class Double(nn.Module):
    """Logits of another type."""

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.network, self.dtype = network, dtype

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.network(images).to(self.dtype)


EVERY = ["fgsm", "pgd", "fab", "cw_l2", "cw_linf", "one_pixel", "dlfuzz", "deepfool", "square", "autoattack"]
SHORT = {"cw_l2": {"steps": 10}, "cw_linf": {"steps": 5}, "one_pixel": {"population": 10, "generations": 2}}


def result_of(name: str, model: nn.Module) -> attacks.AttackResult:
    drawn = torch.Generator().manual_seed(0)
    images = torch.rand(3, 1, 28, 28, generator=drawn, dtype=torch.float32)
    labels = models.predict(model, images).argmax(1)
    options = {"eps": 0.3} if attacks.ATTACKS[name].accepts("eps") else {}
    return attacks.ATTACKS[name](model, images, labels, **options, **SHORT.get(name, {}))


@pytest.mark.parametrize("name", EVERY)
def test_double_logits_and_a_double_default_change_nothing(name: str, model: models.Classifier) -> None:
    wanted = result_of(name, model)
    found = result_of(name, Double(model, torch.float64))
    assert torch.equal(found.success, wanted.success)
    torch.set_default_dtype(torch.float64)
    try:
        again = result_of(name, model)
    finally:
        torch.set_default_dtype(torch.float32)
    assert again.adversarial.dtype == torch.float32
    assert torch.equal(again.success, wanted.success)


def test_logits_in_half_precision_are_refused(model: models.Classifier) -> None:
    with pytest.raises(UserError, match=r"model must return float32 logits, not torch\.float16"):
        result_of("pgd", Double(model, torch.float16))


def test_a_wrong_number_of_channels_is_one_line() -> None:
    model = chain(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
    with pytest.raises(UserError, match=r"images of shape \(1, 28, 28\) do not fit the model: .* channels"):
        attacks.fgsm(model, torch.rand(2, 1, 28, 28), torch.zeros(2, dtype=torch.int64))


@pytest.mark.parametrize("eps", [8 / 255, 0.1, 0.3])
def test_fgsm_keeps_its_bound_to_the_last_bit(eps: float, model: models.Classifier) -> None:
    images = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    result = attacks.fgsm(model, images, models.predict(model, images).argmax(1), eps=eps)
    assert ((result.adversarial - images).abs() <= eps).all()
    assert (result.linf <= eps).all()


def test_large_seeds_have_streams_of_their_own() -> None:
    drawn = [stream(seed, 0).random() for seed in (0, 2**63, 2**63 + 1, 2**64 - 1)]
    assert len(set(drawn)) == len(drawn)
    with pytest.raises(UserError, match="seed must be below"):
        stream(2**64, 0)


def test_metrics_refuse_what_does_not_belong_together() -> None:
    with pytest.raises(UserError, match="one shape"):
        metrics.separation([1, 2, 3], [1, 0])
    for order in (-1, 2):
        with pytest.raises(UserError, match=r"orders must lie in 0\.\.1"):
            metrics.coverage_progress([[True], [False]], [[0, order]])
    with pytest.raises(UserError, match="be whole"):
        metrics.proportion_ci(2.5, 5)


def test_scores_in_bfloat16_are_ranked() -> None:
    clean, attacked = torch.tensor([0.25, 0.5]), torch.tensor([0.375, 2.0])
    assert metrics.auroc(clean.bfloat16(), attacked.bfloat16()) == metrics.auroc(clean, attacked) == 0.75
