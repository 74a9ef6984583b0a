"""How many rows of a window say something of their own: rows close in time often repeat each other.

A test that counts correlated rows as independent calls every quiet stream drifted, so such rows are thinned out.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_WINDOW = 5
"""Lags are summed up to this many correlation times (A. Sokal, 1997): further ones add noise alone."""
_DEVIATIONS = 2.5
_VARIANCE = 2 * (2 * _WINDOW + 2)
"""Of the correlation time of independent rows, times their number."""


def correlation_time(values: NDArray[np.float64]) -> float:
    """Return how many rows in a row count as one: 1 for independent ones. `values` (N,) are in the order of time."""
    rows = len(values)
    around = values - values.mean()
    spread = float(around @ around)
    if rows < 3 or spread <= 0:
        return 1.0
    spectrum = np.fft.rfft(around, 2 * rows)
    lags = np.fft.irfft(np.abs(spectrum) ** 2)[:rows] / spread
    times = 2 * np.cumsum(lags) - 1
    enough = np.flatnonzero(np.arange(rows) >= _WINDOW * times)
    return max(1.0, float(times[enough[0]] if len(enough) else times[-1]))


def stride(values: pd.Series) -> int:
    """Return of how many rows in the order of time one is kept, so that those kept are nearly independent."""
    numbers = values.rank() if pd.api.types.is_numeric_dtype(values) else values.map(values.value_counts())
    time = correlation_time(np.asarray(numbers, dtype=np.float64))
    if time <= 1 + _DEVIATIONS * math.sqrt(_VARIANCE / max(1, len(values))):
        return 1
    return math.ceil(time if time < 2 else 1.5 * time)


def thinned(values: pd.Series) -> pd.Series:
    """Return the rows of a column that are nearly independent."""
    return values.iloc[:: stride(values)]
