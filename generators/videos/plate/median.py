"""The median of a pile of pictures in which some pixels are hidden."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_BLOCK = 16384
"""columns sorted together: so many fit a processor's cache"""


def _network(n: int) -> list[tuple[int, int]]:
    """Comparisons that sort n values: Batcher's odd-even merge (1968)."""
    pairs, p = [], 1
    while p < n:
        k = p
        while k >= 1:
            pairs += [
                (i, i + k) for j in range(k % p, n - k, 2 * k) for i in range(j, min(j + k, n - k)) if i // (2 * p) == (i + k) // (2 * p)
            ]
            k //= 2
        p *= 2
    return pairs


def _sort_columns(rows_NM: Array) -> None:
    """Sort every column in place. All columns take each step of a network together, block by block."""
    pairs, low = _network(len(rows_NM)), np.empty(_BLOCK, rows_NM.dtype)
    for start in range(0, rows_NM.shape[1], _BLOCK):
        rows = rows_NM[:, start : start + _BLOCK]
        for i, j in pairs:
            smaller = np.minimum(rows[i], rows[j], out=low[: rows.shape[1]])
            np.maximum(rows[i], rows[j], out=rows[j])
            rows[i] = smaller


def median_of_free(values_NCM: Array, hidden_NM: Array, most: int) -> Array:
    """Median over the samples that are not hidden, of more than `most` over the first ones (C, M, uint8); every place must have one.

    Of two middles the lower.
    """
    if len(hidden_NM) > most:
        first = np.argsort(hidden_NM, axis=0, kind="stable")[:most]
        values_NCM, hidden_NM = np.take_along_axis(values_NCM, first[:, None], 0), np.take_along_axis(hidden_NM, first, 0)
    veil = hidden_NM.view(np.uint8) * np.uint8(255)  # so the hidden come last, or among their equals
    ordered = np.ascontiguousarray(values_NCM | veil[:, None])
    _sort_columns(ordered.reshape(len(ordered), -1))
    middle = (len(hidden_NM) - np.count_nonzero(hidden_NM, axis=0) - 1) // 2
    out: Array = ordered[0]
    for k in range(1, (len(hidden_NM) - 1) // 2 + 1):
        np.copyto(out, ordered[k], where=middle == k)
    return out
