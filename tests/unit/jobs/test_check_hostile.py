"""Columns as nobody wishes them: the parts of a check that learn from rows answer, with finite numbers, or say why not.

What scikit-learn refuses (a column without a value, numbers whose squares are none any more) is met before it is asked.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer_jobs.commands.check.appearance import looks_like
from optimizer_jobs.commands.check.columns import Pair, pairs
from optimizer_jobs.commands.check.correction import Lesson, _readable, corrected
from optimizer_jobs.commands.check.estimated_quality import Seen, Unlabelled
from optimizer_jobs.commands.check.segment_choice import choose
from optimizer_jobs.commands.check.segment_cuts import cuts, masks
from optimizer_jobs.commands.check.selection import selection_of
from optimizer_jobs.measure.answers import Answers, Predictions
from retune.api.metrics import Metric
from retune.api.monitoring import Quality
from retune.api.watched import Verdict

ROWS = 160
Column = Callable[[np.random.Generator], Any]
ODD: tuple[Any, ...] = ("a", 1, 2.5, None, b"x", (1, 2), True, float("nan"))

COLUMNS: Mapping[str, Column] = {
    "usual": lambda chance: chance.normal(size=ROWS),
    "all equal": lambda _: np.full(ROWS, 3.0),
    "zeros of both signs": lambda _: np.where(np.arange(ROWS) % 2, 0.0, -0.0),
    "largest numbers": lambda chance: chance.choice([1.7e308, -1.7e308, 1.0], ROWS),
    "large numbers": lambda chance: chance.normal(size=ROWS) * 1e160,
    "one large number": lambda chance: np.where(np.arange(ROWS) == 7, 1.7e308, chance.normal(size=ROWS)),
    "denormal numbers": lambda chance: chance.normal(size=ROWS) * 5e-322,
    "no value": lambda _: np.full(ROWS, np.nan),
    "hardly a value": lambda _: np.where(np.arange(ROWS) % 9, np.nan, 1.5),
    "infinities": lambda chance: chance.choice([np.inf, -np.inf, 1.0], ROWS),
    "infinities alone": lambda _: np.full(ROWS, np.inf),
    "mixed types": lambda _: pd.Series([ODD[place % len(ODD)] for place in range(ROWS)], dtype=object),
    "thousands of categories": lambda chance: [f"c{number}" for number in chance.integers(0, 5000, ROWS)],
    "texts like ids": lambda chance: [f"id-{number}" for number in chance.permutation(ROWS)],
    "yes and no": lambda chance: chance.random(ROWS) < 0.5,
    "largest whole numbers": lambda chance: chance.choice([2**63 - 1, -(2**63), 0], ROWS),
    "long texts": lambda _: ["x" * 10_000, "y\x00\n", ""] * (ROWS // 3) + [""] * (ROWS % 3),
    "nothing at all": lambda _: pd.Series([None] * ROWS, dtype=object),
}
kinds = st.sampled_from(sorted(COLUMNS))
odd = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
each = pytest.mark.parametrize("kind", COLUMNS)


def tables(before: str, now: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return rows of a reference and of a window with one usual column and one of a kind each."""
    chance = np.random.default_rng(0)
    return tuple(
        pd.DataFrame({"usual": COLUMNS["usual"](chance), "odd": COLUMNS[kind](chance)}) for kind in (before, now)
    )  # type: ignore[return-value]


def lesson(table: pd.DataFrame, seed: int) -> Lesson:
    """Return rows with answers and labels."""
    chance = np.random.default_rng(seed)
    answered = chance.random((len(table), 1))
    return Lesson(_readable(table), answered, (chance.random((len(table), 1)) < answered).astype(np.float64))


def seen(table: pd.DataFrame, seed: int) -> Seen:
    """Return rows with a classifier's answers."""
    second = np.random.default_rng(seed).random(len(table))
    shares = np.column_stack([1 - second, second])
    labels = (second > 0.5).astype(np.int64)
    return Seen(table, Answers(Predictions(labels=labels, probabilities=shares, classes=(0, 1))))


@pytest.mark.slow
@odd
@given(before=kinds, now=kinds)
def test_a_correction_is_finite_whatever_columns_hold(before: str, now: str) -> None:
    """Also where a column of numbers has become one of text."""
    taught, asked = (lesson(table, seed) for seed, table in enumerate(tables(before, now)))
    assert np.isfinite(corrected(taught.unlike(asked), asked, seed=0)).all()


@pytest.mark.slow
@each
def test_columns_that_came_or_went_teach_nothing(kind: str) -> None:
    """Only those that both have are learned from."""
    taught, asked = (lesson(table, seed) for seed, table in enumerate(tables("usual", kind)))
    gone = lesson(tables(kind, kind)[0][["odd"]], 2)
    for known, other in ((gone, asked), (taught, gone)):
        assert np.isfinite(corrected(known, other, seed=0)).all()


@odd
@given(before=kinds, now=kinds)
def test_whether_labelled_rows_are_like_the_others_can_be_told(before: str, now: str) -> None:
    """Weights, where there are any, are finite numbers."""
    rows = pd.concat(tables(before, now), ignore_index=True)
    found = selection_of(rows, np.arange(len(rows)) < ROWS, seed=0)
    assert found is None or np.isfinite(found.weights).all()


@settings(odd, max_examples=15)
@given(before=kinds, now=kinds)
def test_an_estimate_is_finite_or_says_why_there_is_none(before: str, now: str) -> None:
    """Rows far from the reference are not judged, and nothing breaks."""
    reference, window = (seen(table, seed) for seed, table in enumerate(tables(before, now)))
    labels = np.random.default_rng(3).integers(0, 2, ROWS)
    verdict = Unlabelled(Metric.ACCURACY, Quality()).verdict(reference, labels, window)
    assert verdict is not None
    assert verdict.message
    assert verdict.verdict is Verdict.UNTRUSTED or np.isfinite(float(verdict.value or "nan"))


@each
def test_what_a_change_looks_like_is_words(kind: str) -> None:
    """From usual numbers to odd ones and back."""
    for before, now in ((kind, "usual"), ("usual", kind)):
        for pair in pairs(*tables(before, now), ["odd"]):
            assert not isinstance(pair, Pair) or isinstance(looks_like(pair), str)


@odd
@given(before=kinds, now=kinds)
def test_every_row_is_in_one_segment_of_a_column(before: str, now: str) -> None:
    """Of the reference, and of a window whose column holds something else."""
    reference, window = tables(before, now)
    chosen = choose(reference, np.random.default_rng(1).random(ROWS), {})
    for table in (reference, window):
        for column in chosen:
            every = masks(cuts(reference, [column]), table)
            assert (np.sum(list(every.values()), axis=0) == 1).all()
