r"""Attention, normalisation and softmax written out in parts that relevance can be handed through, by AttnLRP.

Each part is linear in what it is given, once its factors that are constants to the rule are held fixed; the z rule on it
is then the rule of AttnLRP (Achtibat et al., ICML 2024), with :math:`\epsilon \to 0`:

- normalisation: mean and deviation of several values (LayerNorm, GroupNorm), the deviation held fixed: their Prop. 3.4,
  with the mean as the linear function that it is and the shift as a bias, as their package ``lxt`` has it;
- softmax :math:`s = \mathrm{softmax}(x)`: its Taylor expansion at :math:`x`,
  :math:`R_i = x_i (R_i - s_i \sum_j R_j)`, Prop. 3.1; its constant term keeps its part of the relevance;
- a product of two branches, also of matrices: to each half of what the z rule gives it, Prop. 3.2 and 3.3.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from xaicore.core.errors import UserError


def layer_norm(
    values: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``functional.layer_norm``, whose gradient takes the deviation for a constant."""
    dims = tuple(range(-len(normalized_shape), 0))
    return _affine(_standardised(values, dims, eps), weight, bias)


def group_norm(
    values: Tensor,
    num_groups: int,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return ``functional.group_norm`` (N, C, ...), whose gradient takes the deviation for a constant."""
    groups = values.reshape(len(values), num_groups, -1)
    channels = (-1, *[1] * (values.ndim - 2))
    scale, shift = (None if each is None else each.view(channels) for each in (weight, bias))
    return _affine(_standardised(groups, (2,), eps).reshape(values.shape), scale, shift)


def _standardised(values: Tensor, dims: tuple[int, ...], eps: float) -> Tensor:
    deviation = (values.var(dims, correction=0, keepdim=True) + eps).sqrt().detach()
    return (values - values.mean(dims, keepdim=True)) / deviation


def _affine(values: Tensor, weight: Tensor | None, bias: Tensor | None) -> Tensor:
    scaled = values if weight is None else values * weight
    return scaled if bias is None else scaled + bias


def scores(query: Tensor, key: Tensor, scale: float | None = None) -> Tensor:
    """Return how queries (..., L, E) match keys (..., S, E), (..., L, S); ``scale`` None is 1/sqrt(E)."""
    return query @ key.transpose(-2, -1) * (query.shape[-1] ** -0.5 if scale is None else scale)


fx.wrap("scores")


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return ``functional.scaled_dot_product_attention`` of tensors, or of those that torch.fx traces.

    Raises:
        UserError: a mask, dropout, or groups of queries.
    """
    if attn_mask is not None or is_causal or dropout_p or enable_gqa:
        raise UserError("no rule for attention with a mask, dropout or grouped queries")
    return torch.matmul(functional.softmax(scores(query, key, scale), -1), value)


def multi_head_attention(
    layer: nn.MultiheadAttention,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_padding_mask: Tensor | None = None,
    need_weights: bool = True,
    attn_mask: Tensor | None = None,
    average_attn_weights: bool = True,
    is_causal: bool = False,
) -> tuple[Tensor, Any]:
    """Return what ``layer`` gives in eval mode, without its weights; arguments as in :func:`attention`."""
    if key_padding_mask is not None or layer.bias_k is not None or layer.add_zero_attn:
        raise UserError("no rule for attention with masked or added keys")
    size, parts = layer.embed_dim, [query, key, value]
    for place, name in enumerate("qkv"):
        rows = slice(place * size, (place + 1) * size)
        joint = layer.in_proj_weight is not None
        weight = layer.in_proj_weight[rows] if joint else getattr(layer, f"{name}_proj_weight")
        bias = None if layer.in_proj_bias is None else layer.in_proj_bias[rows]
        tokens = parts[place] if layer.batch_first else parts[place].transpose(0, 1)
        heads = functional.linear(tokens, weight, bias).unflatten(-1, (layer.num_heads, -1))
        parts[place] = heads.transpose(1, 2)
    query, key, value = parts
    joined = attention(query, key, value, attn_mask, is_causal=is_causal).transpose(1, 2).flatten(2)
    tokens = functional.linear(joined, layer.out_proj.weight, layer.out_proj.bias)
    return tokens if layer.batch_first else tokens.transpose(0, 1), None
