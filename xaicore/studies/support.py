"""What works on what: every explanation, and the attacks, called on a tiny network of each kind.

Nothing here is typed in: :func:`support` makes each network, calls each method and writes down what came of it, and
whether what must add up does.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.nn import functional

from xaicore.attacks import one_pixel, pgd
from xaicore.attribution import METHODS, deep_lift, integrated_gradients, lrp
from xaicore.attribution.titles import TITLES
from xaicore.core.errors import UserError
from xaicore.models import Classifier
from xaicore.studies.architectures import ARCHITECTURES, CLASSES, in_use

WORKS = "yes"
EXACT = 1e-3
"""Up to which share of the logit a sum that is missing counts as rounding in float32."""


class Network(nn.Module):
    """Layers for images (N, 1, 8, 8), and the forward pass that joins them."""

    def __init__(
        self, forward: Callable[["Network", Tensor], Tensor], activation: Callable[[], nn.Module] = nn.ReLU
    ) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.activation, self.other, self.pool = activation(), activation(), nn.MaxPool2d(2)
        self.batch_norm, self.layer_norm = nn.BatchNorm2d(6), nn.LayerNorm([6, 8, 8])
        self.attention, self.tokens = nn.MultiheadAttention(6, 2, batch_first=True), nn.LayerNorm(6)
        self.head, self.joined = nn.Linear(96, CLASSES), forward
        self.squeeze = nn.Conv2d(12, 6, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (N, 3)."""
        return self.head(self.pool(self.joined(self, x)).flatten(1))  # type: ignore[no-any-return]


def _plain(net: Network, x: Tensor) -> Tensor:
    return net.other(net.conv(net.activation(net.stem(x))))  # type: ignore[no-any-return]


def _residual(net: Network, x: Tensor) -> Tensor:
    x = net.activation(net.stem(x))
    return net.other(x + net.conv(x))  # type: ignore[no-any-return]


def _concatenated(net: Network, x: Tensor) -> Tensor:
    x = net.activation(net.stem(x))
    return net.squeeze(torch.cat([x, net.other(net.conv(x))], 1))  # type: ignore[no-any-return]


def _attention(net: Network, x: Tensor) -> Tensor:
    maps = net.activation(net.stem(x))
    tokens = net.tokens(maps.flatten(2).transpose(1, 2))
    seen = net.attention(tokens, tokens, tokens, need_weights=False)[0]
    return maps + seen.transpose(1, 2).reshape(maps.shape)  # type: ignore[no-any-return]


def _classifier() -> nn.Module:
    return Classifier(
        Network(_plain), classes="abc", name="tiny", mean=[0.5], std=[0.25], input_size=8, fixed_size=True
    )


def _in_use(build: Callable[[], nn.Module], *, biased: bool = True) -> nn.Module:
    return in_use(build(), biased=biased)


KINDS: dict[str, Callable[[], nn.Module]] = {
    "plain (convolutions, ReLU)": lambda: Network(_plain),
    "residual": lambda: Network(_residual),
    "concatenation (SqueezeNet's Fire module)": lambda: Network(_concatenated),
    "activations as functions": lambda: Network(
        lambda net, x: functional.relu(net.conv(functional.relu(net.stem(x))))
    ),
    "activations in place": lambda: Network(_plain, lambda: nn.ReLU(inplace=True)),
    "one activation module, shared": lambda: Network(
        lambda net, x: net.activation(net.conv(net.activation(net.stem(x))))
    ),
    "BatchNorm, ReLU, convolution (DenseNet)": lambda: Network(
        lambda net, x: (y := net.stem(x)) + net.conv(net.activation(net.batch_norm(y)))
    ),
    "normalisation in front": lambda: Network(lambda net, x: _plain(net, (x - 0.5) / 0.25)),
    "a classifier of ours": _classifier,
    "a classifier of ours, wrapped": lambda: nn.Sequential(nn.Identity(), _classifier()),
    "channels last": lambda: Network(_plain).to(memory_format=torch.channels_last),  # type: ignore[call-overload]
    "torch.compile": lambda: torch.compile(Network(_plain), backend="eager"),  # type: ignore[dict-item, return-value]
    "half precision (bfloat16)": lambda: Network(_plain).bfloat16(),
    "PReLU": lambda: Network(_plain, nn.PReLU),
    "GELU": lambda: Network(_plain, nn.GELU),
    "SiLU": lambda: Network(_plain, nn.SiLU),
    "LayerNorm": lambda: Network(
        lambda net, x: net.other(net.conv(net.activation(net.layer_norm(net.stem(x)))))
    ),
    "attention": lambda: Network(_attention),
    **{name: partial(_in_use, build) for name, build in ARCHITECTURES.items()},
}
"""Every kind of network by name, each an untrained one for 3 classes and images (N, 1, 8, 8) or (N, 3, 32, 32)."""


def _attacked(model: nn.Module, images: Tensor, targets: Tensor) -> Tensor:
    """Return adversarial images of an attack by gradients and of one by outputs alone."""
    images = images.float()
    results = [
        pgd(model, images, targets, eps=8 / 255, steps=2),
        one_pixel(model, images, targets, population=4, generations=2),
    ]
    return torch.cat([result.adversarial for result in results])


CALLS: dict[str, Callable[[nn.Module, Tensor, Tensor], Tensor]] = {
    **{TITLES[name]: method for name, method in METHODS.items()},
    "LRP epsilon": partial(lrp, preset="epsilon"),
    "attacks": _attacked,
}
"""Title to call (model, images, targets) -> images or maps."""


SUMS: dict[str, Callable[..., Any]] = {
    "integrated gradients": partial(integrated_gradients, n_steps=32),
    "DeepLIFT": deep_lift,
    "LRP z": partial(lrp, preset="z"),
    "LRP alpha1-beta0": partial(lrp, preset="alpha1-beta0"),
    "LRP flat": partial(lrp, preset="flat"),
    "LRP deep-taylor": partial(lrp, preset="deep-taylor"),
}
"""Title to call, of explanations whose values must add up: to the logit, or to what it exceeds that of black by."""


def support(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame, pd.DataFrame]:
    """Call every method on every kind of network.

    Args:
        seed: of the networks' weights and the two images.

    Returns:
        A table with a row for each kind of network and a column for each method: "yes" where it returned finite maps,
        else the number of the reason; one with a row for each of today's architectures, without biases, and a column for
        each explanation that has to add up: "exact" or what is missing at most; and the table of the reasons, each with
        the message that the user sees. A reason that begins with "fails" is no refusal but a fault.
    """
    reasons = dict[str, int]()
    works, sums = [dict[str, Any](network=kind) for kind in KINDS], list[dict[str, Any]]()
    for row in works:
        model, images = _made(KINDS[row["network"]], seed)
        row |= {title: _outcome(call, model, images, reasons) for title, call in CALLS.items()}
    for kind, build in ARCHITECTURES.items():
        model, images = _made(partial(_in_use, build, biased=False), seed)
        outcomes = {title: _outcome(call, model, images, reasons, adds=True) for title, call in SUMS.items()}
        sums.append({"network": kind, **outcomes})
    listed = [{"number": str(number), "reason": reason} for reason, number in reasons.items()]
    return pd.DataFrame(works), pd.DataFrame(sums), pd.DataFrame(listed, columns=["number", "reason"])


def _made(build: Callable[[], nn.Module], seed: int) -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = build().eval()
        first = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
        images = torch.rand(2, first.in_channels, *(8, 8) if first.in_channels == 1 else (32, 32))
    return model, images.to(first.weight.dtype)


def _outcome(
    call: Callable[[nn.Module, Tensor, Tensor], Tensor],
    model: nn.Module,
    images: Tensor,
    reasons: dict[str, int],
    adds: bool = False,
) -> str:
    """Return whether a call works, or what is missing of its sums, or the number of the reason why not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = call(model, images.clone(), torch.tensor([0, 1]))
            if bool(torch.isfinite(result).all()):
                return _missing(model, images, result) if adds else WORKS
            reason = "fails: the result is not finite"
        except UserError as error:
            reason = str(error)
        except Exception as error:
            reason = f"fails, {type(error).__name__}: " + str(error).partition("\n")[0]
    return str(reasons.setdefault(reason, len(reasons) + 1))


def _missing(model: nn.Module, images: Tensor, maps: Tensor) -> str:
    """Return by how much the sums miss the logits; those of a black image are 0 without biases."""
    with torch.no_grad():
        logits = model(images)[[0, 1], [0, 1]]
    share = float((maps.sum((1, 2, 3)) / logits - 1).abs().max())
    return "exact" if share < EXACT else f"within {100 * share:.1f} %"
