"""Layer-wise relevance propagation written out naively, in float64, straight from the formulas of the papers.

Every layer becomes an explicit matrix, filled tap by tap; every rule is a sum over pairs (input j, output k).
Slow, and independent of the package: no zennit, no autograd, no convolution. For one small image at a time.
"""

import numpy as np
from numpy.typing import NDArray
from torch import nn

Array = NDArray[np.float64]
EPSILON = 0.1


def matrix(layer: nn.Module, shape: tuple[int, ...]) -> tuple[Array, Array, tuple[int, ...]]:
    """Return weights (outputs, inputs), bias (outputs,) and output shape of a layer."""
    if isinstance(layer, nn.Linear):
        weight = layer.weight.detach().numpy().astype(np.float64)
        bias = np.zeros(len(weight)) if layer.bias is None else layer.bias.detach().numpy().astype(np.float64)
        return weight, bias, (len(weight),)
    channels, height, width = shape
    if isinstance(layer, nn.AvgPool2d):
        size = int(layer.kernel_size)
        kernel = np.zeros((channels, channels, size, size))
        kernel[range(channels), range(channels)] = 1 / size**2
        bias, (down, right), (top, left), groups = (
            np.zeros(channels),
            (layer.stride,) * 2,
            (layer.padding,) * 2,
            1,
        )
    else:
        assert isinstance(layer, nn.Conv2d)
        kernel = layer.weight.detach().numpy().astype(np.float64)
        bias = np.zeros(len(kernel)) if layer.bias is None else layer.bias.detach().numpy().astype(np.float64)
        (down, right), (top, left), groups = layer.stride, layer.padding, layer.groups
    filters, depth, rows, cols = kernel.shape
    out_height, out_width = (height + 2 * top - rows) // down + 1, (width + 2 * left - cols) // right + 1
    weights = np.zeros((filters, out_height, out_width, channels, height, width))
    for f in range(filters):
        for y in range(out_height):
            for x in range(out_width):
                for c in range(depth):
                    for r in range(rows):
                        for s in range(cols):
                            i, j = y * down + r - top, x * right + s - left
                            if 0 <= i < height and 0 <= j < width:
                                channel = c + depth * (f // (filters // groups))
                                weights[f, y, x, channel, i, j] = kernel[f, c, r, s]
    outputs = filters * out_height * out_width
    return (
        weights.reshape(outputs, -1),
        np.repeat(bias, out_height * out_width),
        (filters, out_height, out_width),
    )


def share_out(shares: Array, denominator: Array, relevance: Array) -> Array:
    """R_j = sum_k q_jk / Q_k R_k with the shares (outputs, inputs); a denominator of 0 counts as 1e-7."""
    result = np.zeros(shares.shape[1])
    for k in range(len(shares)):
        result += shares[k] / (denominator[k] if denominator[k] != 0 else 1e-7) * relevance[k]
    return result


def apply_rule(rule: str, weights: Array, bias: Array, seen: Array, a: Array, relevance: Array) -> Array:
    """Return the relevance of the inputs ``a``; ``seen`` marks the connected pairs (output, input)."""
    products = weights * a
    z = products.sum(1) + bias
    positive, negative = np.maximum(products, 0), np.minimum(products, 0)
    if rule == "z":
        return share_out(products, z, relevance)
    if rule == "epsilon":
        return share_out(products, z + np.where(z >= 0, EPSILON, -EPSILON), relevance)
    if rule == "w-square":
        return share_out(weights**2, (weights**2).sum(1), relevance)
    if rule == "flat":
        return share_out(seen, seen.sum(1), relevance)
    if rule == "z-plus":
        return share_out(positive, positive.sum(1), relevance)
    attracting = share_out(positive, positive.sum(1) + bias, relevance)
    if rule == "alpha1-beta0":
        return attracting
    assert rule == "alpha2-beta1"
    return 2 * attracting - share_out(negative, negative.sum(1) + bias, relevance)


def bounded(weights: Array, a: Array, low: float, high: float, relevance: Array) -> Array:
    """The z-B rule for inputs between ``low`` and ``high``."""
    shares = a * weights - low * np.maximum(weights, 0) - high * np.minimum(weights, 0)
    return share_out(shares, shares.sum(1), relevance)


def rule_of(preset: str, layer: nn.Module, first: bool) -> str:
    """Return the rule that iNNvestigate's analyser of that name uses for a layer."""
    if preset.startswith("deep-taylor"):
        return "bounded" if first and preset == "deep-taylor-bounded" else "z-plus"
    if not preset.startswith("preset-"):
        return preset
    if first and preset.endswith("-flat"):
        return "flat"
    if isinstance(layer, nn.Linear):
        return "epsilon"
    return "alpha1-beta0" if preset.startswith("preset-a") else "alpha2-beta1"


def lrp(
    layers: list[nn.Module], image: Array, target: int | None, preset: str, low: float, high: float
) -> Array:
    """Return the relevance (C, H, W) of one image (C, H, W) for a network given as the list of its layers."""
    shape: tuple[int, ...] = image.shape
    a = image.astype(np.float64).ravel()
    steps = []
    for layer in layers:
        before = a
        if isinstance(layer, (nn.Conv2d, nn.Linear, nn.AvgPool2d)):
            weights, bias, new_shape = matrix(layer, shape)
            a = weights @ a + bias
            ones = type(layer)(**_same_geometry(layer))
            nn.init.ones_(ones.weight) if hasattr(ones, "weight") else None
            steps.append((layer, before, weights, bias, (matrix(ones, shape)[0] != 0).astype(np.float64)))
            shape = new_shape
        elif isinstance(layer, nn.MaxPool2d):
            size, (channels, height, width) = int(layer.kernel_size), shape
            picked = np.zeros((channels, height // size, width // size, channels, height, width))
            maps = a.reshape(shape)
            for c in range(channels):
                for y in range(height // size):
                    for x in range(width // size):
                        window = maps[c, y * size : (y + 1) * size, x * size : (x + 1) * size]
                        i, j = np.unravel_index(window.argmax(), window.shape)
                        picked[c, y, x, c, y * size + i, x * size + j] = 1
            selection = picked.reshape(channels * (height // size) * (width // size), -1)
            a, shape = selection @ a, (channels, height // size, width // size)
            steps.append((layer, before, selection, None, None))
        elif isinstance(layer, nn.ReLU):
            a = np.maximum(a, 0)
        elif isinstance(layer, nn.Flatten):
            shape = (a.size,)
    chosen = int(a.argmax()) if target is None else target
    relevance = np.zeros(a.size)
    relevance[chosen] = max(a[chosen], 0) if preset.startswith("deep-taylor") else a[chosen]
    first = next(layer for layer in layers if isinstance(layer, (nn.Conv2d, nn.Linear)))
    for layer, before, weights, bias, seen in reversed(steps):
        if isinstance(layer, nn.MaxPool2d) or (
            isinstance(layer, nn.AvgPool2d) and preset.startswith("deep-taylor")
        ):
            relevance = weights.T @ relevance
            continue
        rule = "z" if isinstance(layer, nn.AvgPool2d) else rule_of(preset, layer, layer is first)
        if rule == "bounded":
            relevance = bounded(weights, before, low, high, relevance)
        else:
            relevance = apply_rule(rule, weights, bias, seen, before, relevance)
    return relevance.reshape(image.shape)


def _same_geometry(layer: nn.Module) -> dict[str, object]:
    if isinstance(layer, nn.Linear):
        return {"in_features": layer.in_features, "out_features": layer.out_features}
    if isinstance(layer, nn.AvgPool2d):
        return {"kernel_size": layer.kernel_size, "stride": layer.stride, "padding": layer.padding}
    assert isinstance(layer, nn.Conv2d)
    names = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "groups")
    return {name: getattr(layer, name) for name in names}
