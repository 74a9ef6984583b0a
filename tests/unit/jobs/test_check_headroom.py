"""Headroom without a store: gains and their verdicts, and a correction that learns what answers are off by."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.check.correction import MOST_CLASSES, Lesson, corrected
from optimizer_jobs.commands.check.headroom import Gain, gain_of, verdict_of
from retune.api.model import Task
from retune.api.monitoring import Headroom
from retune.api.watched import Verdict

ROWS = 3000


def lesson(seed: int, *, off: float, classes: int = 1, texts: bool = False) -> Lesson:
    """Return rows whose answers miss by `off` times a column that the learner sees."""
    generator = np.random.default_rng(seed)
    column = generator.normal(size=ROWS)
    answered = np.tile(generator.normal(size=(ROWS, 1)), classes)
    truth = answered + off * np.sign(column)[:, np.newaxis] + generator.normal(scale=0.1, size=(ROWS, classes))
    names = np.where(column > 0, "above", "below") if texts else column
    return Lesson(pd.DataFrame({"x": names}), answered, truth)


@pytest.mark.slow
@pytest.mark.parametrize("texts", [False, True])
def test_a_correction_takes_off_what_the_inputs_say(texts: bool) -> None:  # noqa: FBT001
    """Also where a column is text, and where later rows have texts that nobody taught."""
    taught, asked = lesson(0, off=0.5, texts=texts), lesson(1, off=0.5, texts=texts)
    if texts:
        asked.table.loc[:9, "x"] = "never seen"
    before, after = asked.losses(asked.answered), asked.losses(corrected(taught, asked, seed=0))
    assert after.mean() < 0.2 * before.mean()


def test_where_nothing_is_to_be_learned_answers_stay_nearly_as_they_are() -> None:
    """So a model that lags behind nothing shows no headroom."""
    taught, asked = lesson(0, off=0.0), lesson(1, off=0.0)
    before, after = asked.losses(asked.answered), asked.losses(corrected(taught, asked, seed=0))
    assert gain_of([(before, after)]).value < 0.01


def test_of_many_classes_the_frequent_ones_are_corrected() -> None:
    """Each takes a learner, so their number is bounded; the others keep what was answered."""
    taught, asked = (lesson(seed, off=0.5, classes=MOST_CLASSES + 5) for seed in (0, 1))
    found = corrected(taught, asked, seed=0)
    assert (found != asked.answered).any(axis=0).sum() == MOST_CLASSES


@given(st.floats(-0.5, 0.5), st.integers(0, 2**32 - 1))
def test_a_gain_lies_within_its_interval_and_a_perfect_champion_has_none(level: float, seed: int) -> None:
    """Gains are shares of the champion's error; without an error there is no share."""
    generator = np.random.default_rng(seed)
    before = generator.uniform(0.0, 2.0, size=500)
    gain = gain_of([(before, before - level * generator.uniform(size=500))])
    assert gain.low <= gain.value <= gain.high
    nothing = gain_of([(np.zeros(500), np.ones(500))])
    assert (nothing.value, nothing.low, nothing.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("value", "low", "loss", "task", "verdict", "reason"),
    [
        (0.06, 0.01, 0.2, Task.CLASSIFICATION, Verdict.BREACH, "HeadroomProven"),
        (0.06, -0.01, 0.2, Task.CLASSIFICATION, Verdict.BETWEEN, "HeadroomNotProven"),
        (0.01, 0.005, 0.2, Task.CLASSIFICATION, Verdict.CLEAR, "HeadroomSmall"),
        (0.06, 0.01, 0.02, Task.CLASSIFICATION, Verdict.CLEAR, "HeadroomSmall"),
        (0.06, 0.01, 0.02, Task.REGRESSION, Verdict.BREACH, "HeadroomProven"),
    ],
)
def test_a_window_is_bad_by_a_gain_that_is_proven_and_matters(
    value: float, low: float, loss: float, task: Task, verdict: Verdict, reason: str
) -> None:
    """A share of an error that is hardly there does not matter; of an error in the owner's unit, only they know."""
    found = verdict_of(Gain(value, low, 2 * value - low, loss, 600), Headroom(), task=task, learned=5000)
    assert (found.verdict, found.reason) == (verdict, reason)


def test_correlated_rows_widen_the_interval() -> None:
    """Rows of one hour that all gain, and of the next that all lose, prove nothing, however many they are."""
    gains = np.repeat(np.random.default_rng(3).normal(0.02, 0.2, 10), 300)
    found = gain_of([(np.ones(3000), 1 - gains)])
    assert found.low < 0 < found.high


def test_windows_that_prove_nothing_alone_may_prove_it_together() -> None:
    """A gain about as large as its spread over blocks of time, three times in a row."""
    gains = np.repeat(0.05 + 0.06 * np.tile([1, -1], 5), 100)
    windows = [(np.ones(1000), 1 - gains)] * 3
    alone = [gain_of([window]) for window in windows]
    together = gain_of(windows)
    assert not any(gain.low > 0 for gain in alone)
    assert together.low > 0
    assert (together.rows, together.windows) == (3000, 3)
    assert together.value == pytest.approx(np.mean([gain.value for gain in alone]))


@given(st.integers(0, 2**32 - 1))
def test_windows_that_contradict_each_other_prove_nothing(seed: int) -> None:
    """One that gains as much as another loses leaves no gain, however many rows there are."""
    gains = np.random.default_rng(seed).normal(0.0, 0.1, 500)
    found = gain_of([(np.ones(500), 1 - gains), (np.ones(500), 1 + gains)])
    assert found.value == pytest.approx(0.0, abs=1e-9)
    assert found.low <= 0 <= found.high
