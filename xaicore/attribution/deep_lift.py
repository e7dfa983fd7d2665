r"""DeepLIFT with the rescale rule: by how much each pixel's difference from a baseline moved the logit.

Where the gradient of a nonlinear function :math:`f` would stand stands its multiplier
:math:`(f(x) - f(x^0)) / (x - x^0)`, and pixel i contributes :math:`m_i (x_i - x_i^0)`: Shrikumar et al., ICML
2017, Sec. 3.2 to 3.5. Too close to :math:`x^0` for a quotient the multiplier is the derivative. In max-pooling
what the maximum rose by goes to the pixel that is the maximum, what it fell by to the one that was, which is
Captum's rule; but Captum 0.9 loses it where a pool follows a ReLU directly or its windows overlap.

The contributions add up to :math:`z_t(x) - z_t(x^0)`; networks where they do not, and functions without a rule,
are refused. The baseline runs first, and the k-th nonlinear call of the images is held against its k-th.
"""

import torch
from torch import Tensor, nn

from xaicore.attribution.batches import Batch, explained, logits_of, target_logits
from xaicore.attribution.calls import check_visible
from xaicore.attribution.inputs import check_baselines, check_call, network_input, network_of
from xaicore.attribution.rescale import Recording, Rescaling
from xaicore.core.errors import UserError


def deep_lift(
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int | None = None,
    *,
    baselines: float | Tensor | None = None,
    return_convergence_delta: bool = False,
    batch_size: int = 32,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the DeepLIFT contributions (rescale rule) of every value of the network's input.

    Arguments, result and errors are those of :func:`~xaicore.attribution.integrated_gradients`, without ``n_steps``.

    Raises:
        UserError: the network calls a function that has no rule (softmax, layer normalisation, products of two
            branches), holds scripted or compiled modules, or the contributions do not add up; the message
            says what.
    """
    indices = check_call(model, images, targets, batch_size)
    starts = check_baselines(baselines, images, paired=True)
    network = network_of(model)
    check_visible(network, "deep_lift")
    deltas = [images.new_empty(0)]

    def explain(batch: Batch) -> Tensor:
        start = (starts if len(starts) == 1 else starts[batch.rows]).to(batch.inputs.device)
        contributions, delta = _contributions(network, batch, network_input(model, start))
        deltas.append(delta.to(images.device))
        return contributions

    maps = explained(explain, model, images, indices, batch_size)
    return (maps, torch.cat(deltas)) if return_convergence_delta else maps


def _contributions(network: nn.Module, batch: Batch, start: Tensor) -> tuple[Tensor, Tensor]:
    """Return the contributions and the completeness error of a batch; ``start`` is one or one for each."""
    recording = Recording()
    with torch.no_grad():
        reference = logits_of(network, start, recording)
    inputs, rescaling = batch.inputs.requires_grad_(), Rescaling(recording.given)
    chosen, values = target_logits(network, inputs, batch.targets, rescaling)
    rescaling.check_finished()
    (multipliers,) = torch.autograd.grad(values.sum(), inputs)
    contributions = multipliers * (inputs.detach() - start)
    before, values = reference.expand(len(chosen), -1).gather(1, chosen[:, None])[:, 0], values.detach()
    delta = contributions.sum((1, 2, 3)) - (values - before)
    scale = contributions.abs().sum((1, 2, 3)) + values.abs() + before.abs()
    missed = delta.abs() / scale.where(scale > 0, 1)
    # Rounding leaves some units of the last place (1e-7 in float32, measured up to ResNet-101), a function left to
    # its gradient tens of percent; half the digits lie between.
    if not bool((missed <= torch.finfo(inputs.dtype).eps ** 0.5).all()):
        raise UserError(
            f"deep_lift: the contributions miss the difference of the logits by {float(missed.max()):.0%}: this "
            "network computes something that the rule does not see (comparisons, custom autograd functions)"
        )
    return contributions, delta
