"""Tensors, images and wide inputs as a few columns: their principal components, computed on both samples together.

Components that are computed on the reference alone fit the reference better than any window, so every window would
look drifted. Computed on both samples, they favour neither, and a test of each component keeps its level.
"""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_COMPONENTS = 30
_NUMBERS = 40_000_000
"""Most numbers in a sample; a larger sample is reduced to a random part of its rows."""


def components(
    name: str, reference: NDArray[Any], current: NDArray[Any], *, seed: int
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both samples as columns `name[component k]`, at most 30 of them.

    Args:
        name: Name of the input.
        reference: Values (M, ...) of the reference.
        current: Values (N, ...) of the window.
        seed: Seed of the components and of the random part of a large sample.

    Returns:
        Tables of at most M and N rows; a row with a missing or infinite value has no values.
    """
    samples = [_flat(reference, seed), _flat(current, seed)]
    complete = [np.isfinite(sample).all(axis=1) for sample in samples]
    rows = np.concatenate([sample[mask] for sample, mask in zip(samples, complete, strict=True)])
    projected = _projected(rows, seed)
    names = [f"{name}[component {index + 1}]" for index in range(projected.shape[1])]
    frames, start = [], 0
    for sample, mask in zip(samples, complete, strict=True):
        columns = np.full((len(sample), len(names)), np.nan)
        columns[mask] = projected[start : start + mask.sum()]
        start += int(mask.sum())
        frames.append(pd.DataFrame(columns, columns=names))
    return frames[0], frames[1]


def _flat(values: NDArray[Any], seed: int) -> NDArray[np.float32]:
    """Return values (N, ...) as (N, F); if there are too many, a random part of the rows in their order."""
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
