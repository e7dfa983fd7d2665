"""Two loops over maps, compiled for the CPU: structural similarity under the uniform window, and histograms.

As tensor operations they take ten to fifty passes over every map, each bound by memory; here each map is read twice.
They hold no lock, so that threads can share the maps out (:mod:`xaicore.metrics.threads`).
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

SIDE = 7
AREA = SIDE * SIDE
REORDERED = {"contract", "reassoc", "nsz", "arcp"}
"""What the compiler may do to sums, so that it vectorises them; NaN and infinity keep their meaning."""


@njit(cache=True, nogil=True, fastmath=REORDERED, error_model="numpy")
def uniform_ssim(
    first: NDArray[np.floating],
    second: NDArray[np.floating],
    c1: float,
    c2: float,
    result: NDArray[np.float64],
) -> None:
    """Write each pair's structural similarity, the mean over all places of the window, into ``result`` (N,).

    The sums of a window come from running sums down the columns, one row in and one row out, in float64. The formula
    stands multiplied by AREA squared: sums for means, and AREA / (AREA - 1) for sample covariances.

    Args:
        first: (N, H, W), contiguous, H and W at least SIDE.
        second: likewise.
        c1: the constant of the means.
        c2: the constant of the variances.
        result: where the similarities go.
    """
    count, height, width = first.shape
    places = width - SIDE + 1
    constant, other = c1 * AREA * AREA, c2 * (AREA - 1)
    columns = np.empty((4, width))
    a, b, ab, squares = columns[0], columns[1], columns[2], columns[3]
    for i in range(count):
        columns[:] = 0.0
        total = 0.0
        for y in range(height):
            into, also = first[i, y], second[i, y]
            if y < SIDE:
                for x in range(width):
                    u, v = np.float64(into[x]), np.float64(also[x])
                    a[x] += u
                    b[x] += v
                    ab[x] += u * v
                    squares[x] += u * u + v * v
            else:
                out, too = first[i, y - SIDE], second[i, y - SIDE]
                for x in range(width):
                    u, v, p, q = (
                        np.float64(into[x]),
                        np.float64(also[x]),
                        np.float64(out[x]),
                        np.float64(too[x]),
                    )
                    a[x] += u - p
                    b[x] += v - q
                    ab[x] += u * v - p * q
                    squares[x] += (u * u - p * p) + (v * v - q * q)
            if y < SIDE - 1:
                continue
            for x in range(np.uint64(places)):
                sum_a = sum_b = sum_ab = sum_squares = 0.0
                for k in range(SIDE):
                    sum_a += a[x + k]
                    sum_b += b[x + k]
                    sum_ab += ab[x + k]
                    sum_squares += squares[x + k]
                product, square = sum_a * sum_b, sum_a * sum_a + sum_b * sum_b
                means = (2 * product + constant) / (square + constant)
                total += (
                    means * (2 * (sum_ab - product / AREA) + other) / (sum_squares - square / AREA + other)
                )
        result[i] = total / (places * (height - SIDE + 1))


@njit(cache=True, nogil=True, error_model="numpy")
def histograms(maps: NDArray[np.floating], counts: NDArray[np.int64]) -> None:
    """Add to ``counts`` how many absolute values of each map, over its largest, lie in equal bins over [0, 1].

    The largest value itself belongs to the last bin; all values of a map of zeros belong to the first.

    Args:
        maps: (N, H, W), finite, contiguous.
        counts: (N, bins) zeros.
    """
    n, height, width = maps.shape
    bins = counts.shape[1]
    levels = np.empty(width, dtype=np.int64)
    found = np.empty((2, bins + 1), dtype=np.int64)
    for i in range(n):
        largest = 0.0
        for y in range(height):
            row = maps[i, y]
            for x in range(width):
                largest = max(largest, abs(np.float64(row[x])))
        if largest == 0:
            largest = 1.0
        found[:] = 0
        for y in range(height):
            row = maps[i, y]
            for x in range(width):
                levels[x] = np.int64(abs(np.float64(row[x])) / largest * bins)
            # Neighbours are often in the same bin: two histograms in turn need not wait for each other.
            for x in range(width):
                found[x & 1, levels[x]] += 1
        for level in range(bins + 1):
            counts[i, min(level, bins - 1)] += found[0, level] + found[1, level]
