"""How much of an explanation is left when the network's weights are drawn anew (Adebayo et al., NeurIPS 2018)."""

from collections.abc import Callable

from torch import Tensor, nn

from xaicore.attribution.sanity import randomised
from xaicore.metrics.maps import rank_correlation


def randomisation_curve(
    method: Callable[..., Tensor],
    model: nn.Module,
    images: Tensor,
    targets: Tensor | int,
    *,
    cascading: bool = True,
    seed: int = 0,
    batch_size: int = 32,
) -> dict[str, Tensor]:
    """Return how alike maps are before and after the weights of layers are drawn anew, from the logits down.

    Args:
        method: an entry of :data:`~xaicore.attribution.METHODS`.
        model: the classifier; it stays as it is.
        images: (N, C, H, W).
        targets: the neurons to explain, the same before and after: one index for all or (N,) indices.
        cascading: whether layers stay drawn while the next ones are, or each is drawn alone.
        seed: of the weights.
        batch_size: of the method.

    Returns:
        Layer name to (N,) float64: Spearman's rank correlation of the absolute relevance of the pixels
        (channels added up first), NaN where a map is constant. The layer named is the last drawn.

    Raises:
        ValueError: as ``method`` does.
    """
    before = method(model, images, targets, batch_size=batch_size).sum(1).abs()
    return {
        name: rank_correlation(before, method(changed, images, targets, batch_size=batch_size).sum(1).abs())
        for name, changed in randomised(model, cascading=cascading, seed=seed)
    }
