"""Which columns of a window have moved: Evidently's numbers, held to a promise about false alarms.

The promise is about windows, not columns: without drift, at most one window in 1000 is called drifted, however the
columns hang together (Benjamini-Yekutieli) and although every window is compared with one and the same reference. An
unlucky reference makes all windows look alike, so a second window in a row proves little: the first must.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from optimizer_jobs.commands.check.columns import Cause, Left, Pair, pairs
from optimizer_jobs.commands.check.statistics import Kind, effect, load, p_value
from optimizer_jobs.errors import printable
from optimizer_jobs.progress import say
from retune.api.monitoring import Drift

ANSWERS = ("prediction", "confidence")
"""Columns that the model made: their drift counts alone."""
TARGET = "label"
"""Column of the labels, which only some windows have."""
_STRICTER = 20
"""A window is called drifted only by evidence this many times rarer than a column's."""


@dataclass(frozen=True)
class Compared:
    """One column, or all components of one wide input: how far it moved, and how sure that is."""

    name: str
    measure: str
    """Name of the size."""
    size: float
    p: float
    """p-value of the column alone."""
    rows: int
    """Nearly independent rows of the window."""
    kind: Kind
    adjusted: float = 1.0
    """p-value with regard to the other columns."""
    drifted: bool = False
    parts: tuple[str, ...] = ()
    """Components of a wide input."""


@dataclass(frozen=True)
class Findings:
    """What all columns say; the most drifted first."""

    inputs: tuple[Compared, ...]
    answers: tuple[Compared, ...]
    left: tuple[Left, ...]
    sure: bool
    """Whether some input moved so surely that it cannot be one of many chances."""
    prediction: bool
    """Whether what the model answers moved as surely."""
    target: Compared | None = None
    """What the labels themselves say, where they came: told, and never counted."""

    @property
    def share(self) -> float:
        """Share of the comparable inputs that drifted."""
        return sum(each.drifted for each in self.inputs) / max(1, len(self.inputs))

    @property
    def compared(self) -> tuple[Compared, ...]:
        """All columns, the most drifted first, the labels before their equals."""
        every = [*self.inputs, *self.answers, *([self.target] if self.target else [])]
        return tuple(sorted(every, key=lambda each: (not each.drifted, each is not self.target, -each.size)))


@dataclass(frozen=True)
class Measured:
    """What was measured of each column, before anything is decided."""

    found: tuple[Compared, ...]
    left: tuple[Left, ...]


def compare(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    drift: Drift,
    *,
    names: Sequence[str],
    wide: Mapping[str, Sequence[str]] | None = None,
) -> Findings:
    """Compare the named columns; those of a group in `wide` count as one column of the group's name."""
    return decide(measure(reference, current, drift, names=names, wide=wide), drift)


def measure(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    drift: Drift,
    *,
    names: Sequence[str],
    wide: Mapping[str, Sequence[str]] | None = None,
) -> Measured:
    """Measure how far the named columns moved, and how sure that is of each alone."""
    load()
    found: list[Compared] = []
    left: list[Left] = []
    for pair in pairs(reference, current, names):
        result = pair if isinstance(pair, Left) else _compared(pair, drift)
        if isinstance(result, Left):
            left.append(result)
        else:
            found.append(result)
    return Measured(tuple(_grouped(found, drift, wide or {})), tuple(left))


def decide(measured: Measured, drift: Drift) -> Findings:
    """Return which columns drifted, all of them regarded."""
    rate = float(drift.false_discovery_rate)
    inputs = _adjusted([each for each in measured.found if each.name not in ANSWERS], drift, rate=rate)
    answers = _adjusted([each for each in measured.found if each.name in ANSWERS], drift, rate=rate / _STRICTER)
    return Findings(
        inputs=inputs,
        answers=answers,
        left=measured.left,
        sure=any(each.drifted and each.adjusted <= rate / _STRICTER for each in inputs),
        prediction=any(each.drifted for each in answers),
    )


def compare_target(reference: pd.Series, current: pd.Series, drift: Drift) -> Compared | None:
    """Compare the labels themselves, as strictly as an answer; None where there are too few, or of another type."""
    measured = measure(reference.to_frame(TARGET), current.to_frame(TARGET), drift, names=[TARGET])
    rate = float(drift.false_discovery_rate) / _STRICTER
    return next(iter(_adjusted(measured.found, drift, rate=rate)), None)


def _compared(pair: Pair, drift: Drift) -> Compared | Left:
    """Return what a column says; whatever a library raises is this column's alone."""
    try:
        p = p_value(pair.reference, pair.current, pair.kind, drift.method)
        measure, size = effect(pair.reference, pair.current, pair.kind, drift.method)
    except Exception as error:  # noqa: BLE001 - one bad column must not sink the others
        say(f"  {printable(pair.name, limit=64)}: {printable(str(error), limit=200)}")
        return Left(pair.name, Cause.FAILED, f"the comparison broke ({type(error).__name__})")
    if not np.isfinite([p, size]).all():
        return Left(pair.name, Cause.FAILED, "the comparison gives no number")
    return Compared(pair.name, measure, size, p, len(pair.current), pair.kind)


def _grouped(found: list[Compared], drift: Drift, wide: Mapping[str, Sequence[str]]) -> list[Compared]:
    """Return the columns, with one in place of each group."""
    member = {column: group for group, columns in wide.items() for column in columns}
    single = [each for each in found if each.name not in member]
    groups = {name: [each for each in found if member.get(each.name) == name] for name in wide}
    return single + [_together(name, parts, drift) for name, parts in groups.items() if parts]


def _together(name: str, parts: Sequence[Compared], drift: Drift) -> Compared:
    """Return a group as one column: as sure as its surest part that moved far enough, and as far as that."""
    adjusted = false_discovery_control([part.p for part in parts], method="by")
    ranked = sorted(zip(adjusted, parts, strict=True), key=lambda each: (each[1].size < _least(drift), each[0]))
    p, part = ranked[0]
    return replace(part, name=name, p=float(p), parts=tuple(each.name for each in parts))


def _adjusted(found: Sequence[Compared], drift: Drift, *, rate: float) -> tuple[Compared, ...]:
    if not found:
        return ()
    adjusted = false_discovery_control([each.p for each in found], method="by")
    return tuple(
        replace(each, adjusted=float(p), drifted=bool(p <= rate and each.size >= _least(drift)))
        for each, p in zip(found, adjusted, strict=True)
    )


def _least(drift: Drift) -> float:
    return float(drift.min_effect)
