"""Violations of the reference's schema: columns, missing values, infinities, unseen categories, values out of range.

They mostly come from a broken pipeline, so they are reported as such and never count as drift. Each is compared with
what happens by chance: even without a change, some values of a window lie outside a finite reference.
"""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pandas as pd
from scipy.stats import beta

from optimizer_jobs.commands.check.columns import FEW_VALUES, is_text, present
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.stats import wilson

_CHANCE = 1e-4
"""Probability that a column without a change is reported."""
_LEAST_SHARE = 0.01
"""Smallest share of rows that is reported."""
_SHOWN = 3


def violations(reference: pd.DataFrame, current: pd.DataFrame) -> tuple[str, ...]:
    """Return a sentence for each violation; missing and new columns come first."""
    sentences = list(_columns(reference, current))
    if len(current) and len(reference):
        for name in current.columns.intersection(reference.columns):
            sentences += _values(str(name), reference[name], current[name])
    return tuple(printable(sentence, limit=300) for sentence in sentences)


def _columns(reference: pd.DataFrame, current: pd.DataFrame) -> Iterator[str]:
    missing = [str(name) for name in reference.columns if name not in current]
    new = [str(name) for name in current.columns if name not in reference]
    if missing:
        yield f"{_named(missing)} missing in the window."
    if new:
        yield f"{_named(new)} new in the window: the reference has no such column."


def _values(name: str, reference: pd.Series, current: pd.Series) -> Iterator[str]:
    shown = printable(name, limit=64)
    if current.isna().all():
        if reference.notna().any():
            yield f"{shown} has no value in all {len(current)} rows of the window."
        return
    if is_text(reference) != is_text(current) and reference.notna().any():
        yield f"{shown} changed its type from {reference.dtype} to {current.dtype}."
        return
    yield from _missing(shown, reference, current)
    before, now = present(reference), present(current)
    if before.empty or now.empty:
        return
    if is_text(reference):
        yield from _unseen(shown, before, now)
    elif before.nunique() > FEW_VALUES:
        yield from _outside(shown, before, now)


def _missing(name: str, reference: pd.Series, current: pd.Series) -> Iterator[str]:
    for word, counted in (("missing", pd.Series.isna), ("infinite", _infinite)):
        before, now = counted(reference), counted(current)
        if _more(int(now.sum()), len(now), beyond=_upper(int(before.sum()), len(before))):
            yield f"{name} is {word} in {now.mean():.1%} of the rows; in the reference, in {before.mean():.1%}."


def _infinite(values: pd.Series) -> pd.Series:
    if is_text(values):
        return pd.Series(data=False, index=values.index)
    return pd.Series(np.isinf(values.to_numpy(np.float64, na_value=np.nan)), index=values.index)


def _unseen(name: str, reference: pd.Series, current: pd.Series) -> Iterator[str]:
    """Report categories that the reference does not have, if they are more than expected by chance (Good-Turing)."""
    known = set(reference.unique())
    new = current[~current.isin(known)]
    once = int((reference.value_counts() == 1).sum())
    if _more(len(new), len(current), beyond=_upper(once, len(reference))):
        shown = ", ".join(printable(value, limit=40) for value in new.value_counts().index[:_SHOWN])
        yield f"{name} has {new.nunique()} unseen categories in {len(new) / len(current):.1%} of the rows: {shown}."


def _outside(name: str, reference: pd.Series, current: pd.Series) -> Iterator[str]:
    """Report values outside the reference's range, if they are more than expected by chance (a beta distribution)."""
    values, (low, high) = current.to_numpy(), (float(reference.min()), float(reference.max()))
    outside = int(((values < low) | (values > high)).sum())
    if _more(outside, len(current), beyond=_outside_by_chance(len(reference))):
        yield (
            f"{name} lies outside the reference's {low:g} to {high:g} in {outside / len(current):.1%} of the rows, "
            f"from {current.min():g} to {current.max():g}."
        )


@lru_cache(maxsize=64)
def _outside_by_chance(rows: int) -> float:
    """Return the share of values that lie outside so many of the reference by chance; kept, for columns are alike."""
    return float(beta.isf(_CHANCE, 2, max(1, rows - 1)))


def _more(count: int, rows: int, *, beyond: float) -> bool:
    """Return whether a share of rows is large enough to report, and proven to be larger than another share."""
    if count < _LEAST_SHARE * rows or not count:
        return False
    return wilson(count, rows, confidence=1 - 2 * _CHANCE).low > beyond


def _upper(count: int, rows: int) -> float:
    return wilson(count, rows, confidence=1 - 2 * _CHANCE).high if rows else 0.0


def _named(names: list[str]) -> str:
    shown = ", ".join(printable(name, limit=40) for name in names[:_SHOWN])
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{'Column' if len(names) == 1 else 'Columns'} {shown}{rest} {'is' if len(names) == 1 else 'are'}"
