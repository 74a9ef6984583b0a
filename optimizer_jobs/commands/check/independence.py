"""How many rows of a window are independent: rows that are close in time often resemble each other.

A test that counts correlated rows as independent would find drift in every stream, so such rows are thinned out.
"""

import math

import numpy as np
import pandas as pd
from numpy.typing import NDArray

_WINDOW = 5
"""Lags are summed up to this many correlation times (A. Sokal, 1997); further lags add only noise."""
_DEVIATIONS = 2.5
_VARIANCE = 2 * (2 * _WINDOW + 2)
"""Variance of the estimated correlation time of independent rows, multiplied by their number."""


def correlation_time(values: NDArray[np.float64]) -> float:
    """Return how many consecutive rows count as one independent row; 1 if the rows are independent.

    Args:
        values: Values (N,) in the order of time.
    """
    rows = len(values)
    centred = values - values.mean()
    power = float(centred @ centred)
    if rows < 3 or power <= 0:
        return 1.0
    spectrum = np.fft.rfft(centred, 2 * rows)
    autocorrelation = np.fft.irfft(np.abs(spectrum) ** 2)[:rows] / power
    times = 2 * np.cumsum(autocorrelation) - 1
    enough = np.flatnonzero(np.arange(rows) >= _WINDOW * times)
    return max(1.0, float(times[enough[0]] if len(enough) else times[-1]))


def stride(values: pd.Series) -> int:
    """Return k, so that every k-th value of a column is nearly independent of the others.

    Args:
        values: Values (N,) in the order of time, without missing values.
    """
    numbers = values.rank() if pd.api.types.is_numeric_dtype(values) else values.map(values.value_counts())
    time = correlation_time(np.asarray(numbers, dtype=np.float64))
    if time <= 1 + _DEVIATIONS * math.sqrt(_VARIANCE / max(1, len(values))):
        return 1
    return math.ceil(time if time < 2 else 1.5 * time)


def thinned(values: pd.Series) -> pd.Series:
    """Return the values of a column, in the order of time, thinned so that they are nearly independent."""
    return values.iloc[:: stride(values)]
