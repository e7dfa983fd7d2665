"""Shifts of every layer's maps as a table, and as a profile over the depth of a network."""

import numpy as np
import pandas as pd
import torch

from xaicore import metrics
from xaicore.metrics.shift import LayerShift

TENTHS = tuple(f"{10 * k}–{10 * (k + 1)} %" for k in range(10))


def layer_table(found: LayerShift, cells: list[int], sizes: list[float]) -> pd.DataFrame:
    """Return a row for each layer: its depth from 1, mean NISSIM at each attack size, and mean VID, ε = 0 included.

    Args:
        found: of the attacked versions, one a size; maps of a single cell, in which nothing can move, count as undefined.
        cells: of each layer's map.
        sizes: of the attack, ε.
    """
    values = movable(found, cells)
    among = torch.cat([torch.zeros_like(values[:, :1]), values], 1)  # the clean map lies at distance 0
    spread = torch.stack([metrics.vid(each) for each in among.unbind(2)], 1).nanmean(0)
    columns = {f"ε = {eps:g}": values[:, k].nanmean(0).numpy() for k, eps in enumerate(sizes)}
    empty = values[:, :, :].isnan().sum((0, 1)).numpy()
    depth = np.arange(1, len(cells) + 1)
    frame = {"layer": list(found.layers), "depth": depth, "cells": cells, **columns}
    return pd.DataFrame({**frame, "VID": spread.numpy(), "maps without content": empty})


def movable(found: LayerShift, cells: list[int]) -> torch.Tensor:
    """Return the dissimilarity (N, V, L) with NaN for layers whose map has a single cell."""
    return found.dissimilarity.masked_fill(torch.tensor([count == 1 for count in cells]), torch.nan)


def by_tenths(table: pd.DataFrame, column: str) -> dict[str, float]:
    """Return the mean of a column of :func:`layer_table` over the layers of each tenth of the depth."""
    share = (table["depth"] - 0.5) / table["depth"].max()
    tenth = np.minimum((10 * share).astype(int), 9)
    return {name: float(table[column][tenth == k].mean()) for k, name in enumerate(TENTHS)}
