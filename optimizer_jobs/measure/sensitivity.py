"""How much of a model's answers each column carries: what changes when its values are drawn anew.

What a column carries is its total effect, as a share of the change when all columns are drawn anew (T. Homma and
A. Saltelli, 1996; the estimator is M. Jansen's, 1999). It contains what the column does only together with others. Two
states of the rows are measured, and the larger share counts: the rows as they are, and rows in which every column is
drawn by itself, so that no column stands in for another that says the same. In the second, columns together never
carry more than the sum of their shares. A share must not be too small: it would silence a drift that matters.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Floats = NDArray[np.float64]
Inputs = Mapping[str, Array]
Ask = Callable[[Inputs], Any]
"""Returns the answers to rows."""
Distance = Callable[[Any, Any], Floats]
"""Returns how far two sets of answers to the same R rows lie apart, (R,), as a squared distance."""

ROWS_ASKED = 40_000
"""Most rows that are asked to measure a model, but for the last question."""
LEAST_ROWS, MOST_ROWS = 64, 512
UNITS_LIMIT = 256
SECONDS_LIMIT = 120.0
BYTES_LIMIT = 64 << 20
"""Largest sample; four are held at a time."""
_FEW_VALUES = 64
"""Most values of a column that count alike where columns are drawn apart; of others, rows count alike."""
_LITTLE = 0.01
"""Columns that show less of the answers are asked together once more."""
_TOGETHER = 4
"""Times as many rows as for one column."""
_ERRORS = 2.0
"""Standard errors that are added to a share."""


class UnmeasurableError(Exception):
    """What columns carry cannot be measured; the message is a clause that says why."""


@dataclass(frozen=True)
class Unit:
    """What is drawn anew at a time: one number of each row of an input, or all of them."""

    name: str
    place: int | None = None
    """Its place in the row, in row-major order; None for the whole input."""

    def values(self, inputs: Inputs) -> Array:
        """Return its values: (N,), or (N, ...) for a whole input."""
        whole = inputs[self.name]
        return whole if self.place is None else whole.reshape(len(whole), -1)[:, self.place]

    def replaced(self, inputs: Inputs, values: Array) -> dict[str, Array]:
        """Return the inputs with other values of this unit."""
        if self.place is None:
            return {**inputs, self.name: values}
        changed = inputs[self.name].copy()
        changed.reshape(len(changed), -1)[:, self.place] = values
        return {**inputs, self.name: changed}


def carried(
    ask: Ask, distance_from: Callable[[Any], Distance], inputs: Inputs, units: Sequence[Unit], *, seed: int
) -> dict[Unit, float | None]:
    """Return the share (0..1) of the answers that each unit carries at most; None where it has one value alone.

    Args:
        ask: Returns the model's answers to rows.
        distance_from: Returns the distance between answers, given the answers to the rows as they are.
        inputs: Values (N, ...) of the reference by input.
        units: The units, which cover all inputs.
        seed: Seed of all draws.

    Raises:
        UnmeasurableError: There are too few rows or too many units, the model is too slow, or its answers never change.
    """
    varying = [unit for unit in units if _varies(unit.values(inputs))]
    if len(varying) < 2:
        return {unit: 1.0 if unit in varying else None for unit in units}
    draws = _Draws(inputs, varying, np.random.default_rng(seed), rows=_rows_asked(inputs, len(varying)))
    began = time.monotonic()
    usual = ask(draws.here)
    _require_fast(time.monotonic() - began, passes=2 * len(varying) + 3 + 4 * _TOGETHER)
    states = _states(ask, distance_from(usual), draws, usual)
    shares = {unit: max(_share(state, unit) for state in states) for unit in varying}
    shares |= _together(ask, distance_from(usual), draws, {u: s for u, s in shares.items() if s < _LITTLE}, states)
    return {unit: min(1.0, shares[unit]) if unit in shares else None for unit in units}


class _Draws:
    """Rows of the reference, and what replaces their values."""

    def __init__(self, inputs: Inputs, units: Sequence[Unit], generator: np.random.Generator, *, rows: int) -> None:
        self._inputs, self.units, self._generator = inputs, units, generator
        order = generator.permutation(len(next(iter(inputs.values()))))
        self.here = self._rows(order[:rows])
        self.elsewhere = self._rows(np.roll(order, -max(1, len(order) // 2))[:rows])
        self.apart, self.apart_again = self._apart(rows), self._apart(rows)

    def pairs(self, rows: int) -> Iterator[tuple[Inputs, Inputs]]:
        """Yield other rows and what replaces their values, in both states."""
        order = np.resize(self._generator.permutation(len(next(iter(self._inputs.values())))), rows + 1)
        yield self._rows(order[:-1]), self._rows(order[1:])
        yield self._apart(rows), self._apart(rows)

    def _rows(self, places: Array) -> dict[str, Array]:
        return {name: values[places] for name, values in self._inputs.items()}

    def _apart(self, rows: int) -> Inputs:
        """Return rows in which every unit is drawn by itself; each of few values is as frequent as the others."""
        drawn: Inputs = self._rows(self._generator.integers(0, len(next(iter(self._inputs.values()))), rows))
        for unit in self.units:
            pool = _pool(unit.values(self._inputs))
            drawn = unit.replaced(drawn, pool[self._generator.integers(0, len(pool), rows)])
        return drawn


@dataclass(frozen=True)
class _State:
    """How far answers moved in one state, by unit, beside the mean when all units are drawn anew."""

    all: float
    units: Mapping[Unit, Floats]


def _states(ask: Ask, distance: Distance, draws: _Draws, usual: Any) -> tuple[_State, _State]:
    """Return what is seen on the rows as they are, and on rows whose units are drawn apart."""
    here = _state(ask, distance, draws.units, usual, draws.here, draws.elsewhere)
    apart = _state(ask, distance, draws.units, ask(draws.apart), draws.apart, draws.apart_again)
    if max(here.all, apart.all) <= 0:
        raise UnmeasurableError("the model's answers are the same whatever its inputs")
    return here, apart


def _state(ask: Ask, distance: Distance, units: Sequence[Unit], before: Any, rows: Inputs, others: Inputs) -> _State:
    moved = {unit: distance(before, ask(unit.replaced(rows, unit.values(others)))) for unit in units}
    return _State(float(distance(before, ask(others)).mean()), moved)


def _share(state: _State, unit: Unit) -> float:
    """Return what a unit carries, with its standard errors; exactly 0 where no answer changed."""
    moved = state.units[unit]
    if state.all <= 0:
        return 0.0
    error = float(moved.std()) / math.sqrt(len(moved))
    return (float(moved.mean()) + _ERRORS * error) / state.all


def _together(
    ask: Ask, distance: Distance, draws: _Draws, little: Mapping[Unit, float], states: tuple[_State, _State]
) -> dict[Unit, float]:
    """Return the shares of units that show little, after all of them were drawn anew together on more rows."""
    if len(little) < 2:
        return dict(little)
    missing = 0.0
    rows = _TOGETHER * len(next(iter(draws.here.values())))
    for (before, others), state in zip(draws.pairs(rows), states, strict=True):
        after = before
        for unit in little:
            after = unit.replaced(after, unit.values(others))
        if state.all > 0:
            moved = float(distance(ask(before), ask(after)).mean()) / state.all
            missing = max(missing, moved - sum(little.values()))
    return {unit: share + missing / len(little) for unit, share in little.items()}


def _rows_asked(inputs: Inputs, units: int) -> int:
    """Return how many rows are asked at a time."""
    if units > UNITS_LIMIT:
        raise UnmeasurableError(f"the model has {units} columns, and at most {UNITS_LIMIT} are measured")
    rows = len(next(iter(inputs.values())))
    row_bytes = max(1, sum(values.nbytes for values in inputs.values()) // max(1, rows))
    wanted = min(MOST_ROWS, max(LEAST_ROWS, ROWS_ASKED // (2 * units + 4)), BYTES_LIMIT // row_bytes, rows)
    if wanted < LEAST_ROWS:
        what = f"the reference has {rows} rows" if rows < LEAST_ROWS else f"a row has {row_bytes >> 20} MiB"
        raise UnmeasurableError(f"{what}, and at least {LEAST_ROWS} must be held at a time")
    return wanted


def _require_fast(seconds: float, *, passes: int) -> None:
    if seconds * passes > SECONDS_LIMIT:
        raise UnmeasurableError(
            f"the model would take {seconds * passes:.0f} s, and at most {SECONDS_LIMIT:.0f} s are spent on it"
        )


def _varies(values: Array) -> bool:
    first = values[:1]
    same = (values == first) | ((values != values) & (first != first))  # noqa: PLR0124 - NaN alone differs from itself
    return not bool(np.all(same))


def _pool(values: Array) -> Array:
    """Return what a unit is drawn from where it is drawn by itself: its different values, or if many, all rows'."""
    if values.ndim > 1:
        return values
    different = np.unique(values)
    return different if len(different) <= _FEW_VALUES else values
