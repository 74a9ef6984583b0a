"""What a change of a column looks like, where it looks like a fault that has a name: a guess, which changes no verdict.

Most sudden drift is a broken pipeline, and most broken pipelines do one of a few things: another unit, another
spelling, a sensor at its end, a value that stands for none.
"""

import math
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import ks_2samp

from optimizer_jobs.commands.check.column_statistics import Kind
from optimizer_jobs.commands.check.columns import Pair
from optimizer_jobs.errors import printable

Floats = NDArray[np.float64]

_UNITS: dict[float, str] = {
    1e3: "seconds to milliseconds",
    1e6: "seconds to microseconds",
    60.0: "minutes to seconds",
    3600.0: "hours to seconds",
    86400.0: "days to seconds",
    24.0: "days to hours",
    100.0: "shares to percent",
    2.54: "inches to centimetres",
    3.28084: "metres to feet",
    1.609344: "miles to kilometres",
    2.204623: "kilograms to pounds",
}
_DEGREES: dict[str, tuple[float, float]] = {
    "as if degrees Celsius were Fahrenheit": (1.8, 32.0),
    "as if degrees Fahrenheit were Celsius": (1 / 1.8, -32 / 1.8),
    "as if degrees Celsius were kelvins": (1.0, 273.15),
    "as if kelvins were degrees Celsius": (1.0, -273.15),
}
_NEAR = 1.4
"""A unit's factor is tried where the ratio of both samples is at most so many times away from it."""
_SAME_SPREAD = 1.5
"""Spreads that differ at most by this factor are alike."""
_NAMELESS = 2.0
"""Smallest factor, or its inverse, that is told although it is no unit's."""
_ALIKE = 0.05
"""Kolmogorov-Smirnov distance at which samples are alike, whatever the number of their rows."""
_UNLIKE = 0.1
"""Distance from which samples are not alike, however few their rows are."""
_FAR = 0.8
"""Distance from which a change may be one of degrees: their offsets fit many a smaller one."""
_LARGEST = 1e9
"""Largest factor, and the inverse of the smallest."""
_GRAIN = 1e-6
"""Share of the spread within which numbers are equal."""
_BETTER = 3.0
"""Times as far apart that they must have been before."""
_AT_END, _USUALLY = 0.05, 0.01
"""Share of a window at its end that is told, and the largest share of the reference that has that value."""
_MOST = 0.5
"""Smallest share of the rows with unseen categories that are known ones in another spelling."""
_LIMIT = 40


def looks_like(pair: Pair) -> str:
    """Return what a column that drifted looks like, as a clause; empty where it looks like nothing that has a name."""
    guesses: tuple[Callable[[Pair], str], ...] = (_constant, _respelled)
    if all(pd.api.types.is_numeric_dtype(values) for values in (pair.reference, pair.current)):
        guesses = (_constant, _at_an_end, _cut_off, _converted)
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite or no number is like nothing
        return next((words for guess in guesses if (words := guess(pair))), "")


def _constant(pair: Pair) -> str:
    if len(pair.current.unique()) > 1 or len(pair.reference.unique()) < 2:
        return ""
    return f"one value alone: {_shown(pair.current.iloc[0])}"


def _at_an_end(pair: Pair) -> str:
    """Return that a part of the window has exactly one of its ends: a sensor's limit, or what stands for no value."""
    before, now = pair.reference, pair.current
    if pair.kind is not Kind.NUMERIC:
        return ""
    for end in (float(now.min()), float(now.max())):
        share = float((now == end).mean())
        if share >= _AT_END and float((before == end).mean()) <= _USUALLY:
            inside = float(before.min()) <= end <= float(before.max())
            words = f"as if {'cut off at' if inside else 'filled with'} {end:.6g}"
            return f"{words} ({100 * share:.0f} % of the values)"
    return ""


def _cut_off(pair: Pair) -> str:
    """Return that values were cut off at a value that is usual: the reference is like the window once it is, too."""
    before, now = pair.reference.to_numpy(np.float64), pair.current.to_numpy(np.float64)
    if not _spread(before):
        return ""
    for end, beyond in ((float(now.min()), before < now.min()), (float(now.max()), before > now.max())):
        share, cut = float((now == end).mean()), np.where(beyond, end, before)
        if not _spread(cut) or min(share, float(beyond.mean())) < _AT_END or share <= float((before == end).mean()):
            continue
        if _apart(cut, now) <= min(_limit(len(before), len(now)), _apart(before, now) / _BETTER):
            return f"as if cut off at {end:.6g} ({100 * share:.0f} % of the values)"
    return ""


def _converted(pair: Pair) -> str:
    """Return the change of unit after which the window is like the reference."""
    before, now = pair.reference.to_numpy(np.float64), pair.current.to_numpy(np.float64)
    if not _spread(before) or not 1 / _LARGEST <= _spread(now) / _spread(before) <= _LARGEST:
        return ""
    limit = _limit(len(before), len(now))
    apart = _apart(before, now)
    for conversions in (_degrees(now) if apart >= _FAR else (), _units(before, now), _nameless(before, now)):
        found = [
            (_apart(before, restored), words)
            for words, restored in conversions
            if 1 / _SAME_SPREAD <= _spread(restored) / _spread(before) <= _SAME_SPREAD
        ]
        distance, words = min(found, default=(1.0, ""))
        if distance <= min(limit, apart / _BETTER):
            return words
    return ""


def _limit(before: int, now: int) -> float:
    """Return up to which distance samples of these sizes are alike, as they are by chance in 99 of 100 cases."""
    return min(_UNLIKE, max(_ALIKE, 1.63 * math.sqrt((before + now) / (before * now))))


def _degrees(now: Floats) -> Iterator[tuple[str, Floats]]:
    """Yield what may have happened to degrees, with the window as it would have been without; so do the next two."""
    for words, (factor, offset) in _DEGREES.items():
        yield words, (now - offset) / factor


def _units(before: Floats, now: Floats) -> Iterator[tuple[str, Floats]]:
    for factor, unit in _factors():
        if 1 / _NEAR <= _spread(now) / _spread(before) / factor <= _NEAR:
            yield f"as if multiplied by {factor:.6g}, like {unit}", now / factor


def _nameless(before: Floats, now: Floats) -> Iterator[tuple[str, Floats]]:
    centre = float(np.median(before))
    centres = float(np.median(now)) / centre if centre else 1.0
    for factor in (_spread(now) / _spread(before), centres):
        if _NAMELESS <= factor <= _LARGEST or 1 / _LARGEST <= factor <= 1 / _NAMELESS:
            yield f"as if multiplied by about {float(f'{factor:.2g}'):g}", now / factor


def _factors() -> Iterator[tuple[float, str]]:
    for factor, unit in _UNITS.items():
        small, large = unit.split(" to ")
        yield factor, unit
        yield 1 / factor, f"{large} to {small}"


def _apart(before: Floats, now: Floats) -> float:
    """Return the Kolmogorov-Smirnov distance of two samples, in which what rounding has parted is equal again."""
    grain = _spread(before) * _GRAIN
    return float(ks_2samp(np.round(before / grain), np.round(now / grain), method="asymp").statistic)


def _spread(values: Floats) -> float:
    """Return the distance of the quartiles, or the standard deviation where they are equal."""
    low, high = np.quantile(values, [0.25, 0.75])
    return float(high - low) or float(values.std())


def _respelled(pair: Pair) -> str:
    """Return an example where most rows with unseen categories have a known one in another spelling."""
    known = {_plain(value): value for value in pair.reference.astype(str).unique()}
    now = pair.current.astype(str)
    unseen = now[~now.isin(set(known.values()))]
    if unseen.empty:
        return ""
    meant = unseen.map(lambda value: known.get(_plain(value)))
    if float(meant.notna().mean()) < _MOST:
        return ""
    first = str(unseen[meant.notna()].value_counts().index[0])
    return f'as if spelled otherwise: "{_shown(first)}" for "{_shown(known[_plain(first)])}"'


def _plain(value: str) -> str:
    """Return a category without capitals, spaces, hyphens and underscores; a number in its shortest form."""
    try:
        number = float(value)
    except ValueError:
        return "".join(letter for letter in value.casefold() if letter not in "-_" and not letter.isspace())
    return f"{number:g}"


def _shown(value: object) -> str:
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    kept = printable(text, limit=_LIMIT)
    return f"{kept} " if text.endswith(" ") and len(text) <= _LIMIT else kept
