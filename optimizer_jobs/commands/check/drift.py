"""Which columns of a window have drifted: Evidently's numbers, with a guarantee about false alarms.

The guarantee is about windows, not columns: without drift, at most one window in 1000 is called drifted, whatever the
dependence between the columns (Benjamini-Yekutieli). All windows are compared with the same reference, so an unusual
reference would make every window look drifted. A second drifted window in a row therefore proves little, and the
evidence of a single window must be strong enough.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from optimizer_jobs.commands.check.appearance import looks_like
from optimizer_jobs.commands.check.column_statistics import Kind, effect, load, p_value
from optimizer_jobs.commands.check.columns import Cause, NotCompared, Pair, moved_away, pairs
from optimizer_jobs.commands.check.guard import guarded
from retune.api.monitoring import Drift

ANSWERS = ("prediction", "confidence")
"""Columns that the model answers; a single one that drifts is enough for a verdict."""
TARGET = "label"
"""Column of the labels, which only some windows have."""
_GUESSED = 0.01
"""Largest p-value of a column alone at which it is guessed what its change looks like."""
_STRICTER = 20
"""A whole window is called drifted only at a false discovery rate this many times smaller than for a column."""


@dataclass(frozen=True)
class Compared:
    """How far a column, or a wide input with all its components, moved, and how strong the evidence is."""

    name: str
    measure: str
    """Name of the measure of the size."""
    size: float
    """How far it moved."""
    p_value: float
    """p-value of the column alone."""
    rows: int
    """Number of nearly independent rows in the window."""
    kind: Kind
    adjusted: float = 1.0
    """p-value adjusted for the number of columns."""
    drifted: bool = False
    sure: bool = False
    """Whether it drifted by evidence that is strong enough for the whole window."""
    parts: tuple[str, ...] = ()
    """Names of the components of a wide input."""
    strange: bool = False
    """Whether it moved to where the reference has hardly any rows."""
    looks_like: str = ""
    """What the change looks like, as a clause, where it looks like a fault that has a name."""
    carries: float | None = None
    """What it carries of the answers (0..1) at most; None where that is not known, and of answers."""
    weight: float = 0.0
    """How much it counts, where columns count by what they carry."""


@dataclass(frozen=True)
class Weighed:
    """What the inputs of a window carry of the answers, at most."""

    drifted: float
    """Share (0..1) of what all compared ones carry that the drifted ones do."""
    sure: float
    """The same of those whose evidence is strong enough for the whole window."""
    left_out: float
    """Share (0..1) of what all inputs carry that those do which could not be compared."""


@dataclass(frozen=True)
class Findings:
    """The comparison of all columns."""

    inputs: tuple[Compared, ...]
    answers: tuple[Compared, ...]
    not_compared: tuple[NotCompared, ...]
    proven: bool
    """Whether the evidence for at least one input is strong enough for the whole window."""
    prediction: bool
    """Whether the evidence for a column that the model answers is strong enough for the whole window."""
    targets: tuple[Compared, ...] = ()
    """The comparison of the labels, if there are any; it is reported and never counts for the verdict."""
    weighed: Weighed | None = None
    """What the inputs carry; None where each counts alike."""
    alike_because: str = ""
    """Why each counts alike, as a clause; empty where nothing is to say of it."""

    @property
    def share(self) -> float:
        """Share (0..1) of the compared inputs that drifted."""
        return sum(column.drifted for column in self.inputs) / max(1, len(self.inputs))

    @property
    def counted(self) -> float:
        """Share (0..1) that the drifted inputs carry of the answers, or where that is not known, of the inputs."""
        return self.share if self.weighed is None else self.weighed.drifted

    @property
    def compared(self) -> tuple[Compared, ...]:
        """All compared columns: first those that drifted, by how much they count, then the largest sizes.

        One label a row leads its group, and where columns are weighed, answers count more than any input.
        """
        first = self.targets[0].name if len(self.targets) == 1 else None
        every = [*self.inputs, *self.answers, *self.targets]
        return tuple(sorted(every, key=lambda one: (not one.drifted, one.name != first, -self._counts(one), -one.size)))

    def _counts(self, column: Compared) -> float:
        if self.weighed is None:
            return 0.0
        return column.weight if column in self.inputs else 1.0


@dataclass(frozen=True)
class Measured:
    """The measurements of all columns, before it is decided which of them drifted."""

    columns: tuple[Compared, ...]
    not_compared: tuple[NotCompared, ...]


def compare(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    drift: Drift,
    *,
    names: Sequence[str],
    wide: Mapping[str, Sequence[str]] | None = None,
    answers: Collection[str] = ANSWERS,
) -> Findings:
    """Compare the columns of a window with the reference.

    Args:
        reference: Rows of the reference.
        current: Rows of the window in the order of time.
        drift: Drift settings of the spec.
        names: Names of the columns.
        wide: Names of the components of each wide input, by its name; they count as one column.
        answers: Columns that the model answers.
    """
    return decide(measure(reference, current, drift, names=names, wide=wide), drift, answers=answers)


def measure(
    reference: pd.DataFrame,
    current: pd.DataFrame,
    drift: Drift,
    *,
    names: Sequence[str],
    wide: Mapping[str, Sequence[str]] | None = None,
) -> Measured:
    """Measure how far the columns of a window moved, as `compare` does, without deciding which of them drifted."""
    load()
    columns: list[Compared] = []
    not_compared: list[NotCompared] = []
    for name in names:
        result = guarded(
            partial(_column, reference, current, name, drift),
            partial(NotCompared, name, Cause.FAILED),
            what="the comparison broke",
        )
        if isinstance(result, NotCompared):
            not_compared.append(result)
        else:
            columns.append(result)
    return Measured(tuple(_grouped(columns, drift, wide or {})), tuple(not_compared))


def decide(measured: Measured, drift: Drift, *, answers: Collection[str] = ANSWERS) -> Findings:
    """Decide which columns drifted, with p-values adjusted for the number of columns; `answers` are the model's."""
    rate = float(drift.false_discovery_rate)
    inputs = [column for column in measured.columns if column.name not in answers]
    answered = [column for column in measured.columns if column.name in answers]
    adjusted = tuple(
        replace(column, sure=column.drifted and column.adjusted <= rate / _STRICTER)
        for column in _adjusted(inputs, drift, rate=rate)
    )
    adjusted_answers = _adjusted(answered, drift, rate=rate / _STRICTER)
    return Findings(
        inputs=adjusted,
        answers=adjusted_answers,
        not_compared=measured.not_compared,
        proven=any(column.sure for column in adjusted),
        prediction=any(column.drifted for column in adjusted_answers),
    )


def compare_targets(reference: pd.DataFrame, current: pd.DataFrame, drift: Drift) -> tuple[Compared, ...]:
    """Compare columns of labels, as strictly as the model's answers; none with too few, or of different types."""
    measured = measure(reference, current, drift, names=[str(name) for name in reference])
    return _adjusted(measured.columns, drift, rate=float(drift.false_discovery_rate) / _STRICTER)


def _column(reference: pd.DataFrame, current: pd.DataFrame, name: str, drift: Drift) -> Compared | NotCompared:
    (pair,) = pairs(reference, current, [name])
    return pair if isinstance(pair, NotCompared) else _compared(pair, drift)


def _compared(pair: Pair, drift: Drift) -> Compared | NotCompared:
    p = p_value(pair.reference, pair.current, pair.kind, drift.method)
    measure, size = effect(pair.reference, pair.current, pair.kind, drift.method)
    if not np.isfinite([p, size]).all():
        return NotCompared(pair.name, Cause.FAILED, "the comparison gives no number")
    found = Compared(pair.name, measure, size, p, len(pair.current), pair.kind, strange=moved_away(pair))
    if p > _GUESSED or size < _least(drift):
        return found
    return replace(found, looks_like=guarded(partial(looks_like, pair), str, what="its change could not be named"))


def _grouped(columns: list[Compared], drift: Drift, wide: Mapping[str, Sequence[str]]) -> list[Compared]:
    """Return the columns, with one column for each wide input in place of its components."""
    input_of = {component: name for name, components in wide.items() for component in components}
    single = [column for column in columns if column.name not in input_of]
    groups = {name: [column for column in columns if input_of.get(column.name) == name] for name in wide}
    return single + [_together(name, parts, drift) for name, parts in groups.items() if parts]


def _together(name: str, parts: Sequence[Compared], drift: Drift) -> Compared:
    """Return a wide input as one column, with the numbers of its most significant component.

    Components that moved far enough are preferred. Its p-value is adjusted for the number of components.
    """
    adjusted = false_discovery_control([part.p_value for part in parts], method="by")
    p, strongest = min(zip(adjusted, parts, strict=True), key=lambda part: (part[1].size < _least(drift), part[0]))
    return replace(strongest, name=name, p_value=float(p), looks_like="", parts=tuple(part.name for part in parts))


def _adjusted(columns: Sequence[Compared], drift: Drift, *, rate: float) -> tuple[Compared, ...]:
    if not columns:
        return ()
    adjusted = false_discovery_control([column.p_value for column in columns], method="by")
    return tuple(
        replace(column, adjusted=float(p), drifted=bool(p <= rate and column.size >= _least(drift)))
        for column, p in zip(columns, adjusted, strict=True)
    )


def _least(drift: Drift) -> float:
    return float(drift.min_effect)
