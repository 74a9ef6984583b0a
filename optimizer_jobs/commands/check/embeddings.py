"""Tensors, images and wide inputs as few columns: their principal components, found on both samples together.

Found on the reference alone, the components would fit the reference better than any window, and every window would
look drifted. Found on both, neither is favoured, so a test of each component keeps its level.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

WIDE = 100
"""Values a row from which an input is compared by its components."""
_COMPONENTS = 30
_NUMBERS = 40_000_000
"""Numbers that are worked on at once: rows are sampled where there are more."""


def is_wide(values: NDArray[Any]) -> bool:
    """Whether an input (N, ...) is no table of columns: a tensor, or more numbers a row than can be told apart."""
    numeric = values.dtype.kind in "biuf"
    return numeric and (values.ndim > 2 or (values.ndim == 2 and values.shape[1] > WIDE))


def components(
    name: str, reference: NDArray[Any], current: NDArray[Any], *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both samples (M, ...) and (N, ...) as columns `name[component k]`, at most 30 of them.

    Rows with a value that is missing or infinite become rows without values; rows are sampled where a row is large.
    """
    both = [_flat(reference, seed), _flat(current, seed)]
    whole = [np.isfinite(part).all(axis=1) for part in both]
    projected = _projected(np.concatenate([part[mask] for part, mask in zip(both, whole, strict=True)]), seed)
    names = [f"{name}[component {index + 1}]" for index in range(projected.shape[1])]
    frames, start = [], 0
    for part, mask in zip(both, whole, strict=True):
        filled = np.full((len(part), len(names)), np.nan)
        filled[mask] = projected[start : start + mask.sum()]
        start += int(mask.sum())
        frames.append(pd.DataFrame(filled, columns=names))
    return frames[0], frames[1]


def _flat(values: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """Return (N, F), of large rows a sample in the order they have."""
    rows = values.reshape(len(values), -1)
    most = max(1, _NUMBERS // max(1, rows.shape[1]))
    if len(rows) > most:
        rows = rows[np.sort(np.random.default_rng(seed).choice(len(rows), most, replace=False))]
    with np.errstate(over="ignore"):
        return np.asarray(rows, dtype=np.float32)


def _projected(rows: NDArray[np.float32], seed: int) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA

    varying = rows[:, rows.min(axis=0) < rows.max(axis=0)] if len(rows) else rows
    count = min(_COMPONENTS, *varying.shape)
    if count < 1 or len(varying) < 2:
        return np.zeros((len(rows), 0))
    solver = PCA(n_components=count, svd_solver="randomized", random_state=seed)
    return np.asarray(solver.fit_transform(varying), dtype=np.float64)
