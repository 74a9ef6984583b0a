"""Labels that come selectively: weighted so that they speak for all, or told to speak for none; at random as before."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_wine

from optimizer_jobs.commands.check.selection import LEAST_EFFECTIVE, selection_of

X, Y = load_breast_cancer(return_X_y=True, as_frame=True)


def window(rows: int, seed: int) -> pd.DataFrame:
    """Return real rows of a window, with an answer and a confidence."""
    generator = np.random.default_rng(seed)
    chosen = pd.DataFrame(X.iloc[generator.integers(0, len(X), rows), :8]).reset_index(drop=True)
    height = (chosen["mean radius"] - 14) / 3.5
    answers = {"prediction": np.where(height > 0, "0", "1"), "confidence": 1 / (1 + np.exp(-np.abs(height) * 2))}
    return pd.DataFrame(chosen.assign(**answers))


@pytest.mark.slow
@given(seed=st.integers(0, 2**31 - 1), share=st.floats(0.1, 0.9), rows=st.integers(300, 800))
@example(seed=103, share=0.390625, rows=395)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_labels_that_come_at_random_change_nothing(seed: int, share: float, rows: int) -> None:
    """So what was proven by such labels is proven still; always the same draws, as chance may tell one apart.

    The first is one of those that look selective by four standard errors of two samples that nobody has fitted to.
    """
    labelled = np.random.default_rng(seed).random(rows) < share
    assert selection_of(window(rows, seed % 1000), labelled, seed=0) is None


@pytest.mark.parametrize("seed", range(4))
def test_labels_of_suspicious_rows_are_weighted_towards_all(seed: int) -> None:
    """Large tumours are labelled more often: the weighted mean of what is labelled is that of the window, nearly."""
    rows = window(1500, seed)
    height = (rows["mean radius"] - 14) / 3.5
    labelled = np.random.default_rng(seed).random(len(rows)) < 1 / (1 + np.exp(-0.8 * height.to_numpy()))
    found = selection_of(rows, labelled, seed=0)
    assert found is not None
    assert not found.wild, found.words
    assert found.weights.mean() == pytest.approx(1)
    assert "unlike the others" in found.words
    known = height[labelled]
    plain, weighted = known.mean(), float(found.weights @ known / found.weights.sum())
    assert abs(weighted - height.mean()) < abs(plain - height.mean()) / 2


def test_labels_of_one_corner_alone_speak_for_nobody() -> None:
    """Only the largest tumours are labelled: no weight makes them speak for small ones."""
    rows = window(1000, 0)
    labelled = (rows["mean radius"] > rows["mean radius"].quantile(0.85)).to_numpy()
    found = selection_of(rows, labelled, seed=0)
    assert found is not None
    assert found.wild, found.words


def test_a_handful_of_labels_is_not_looked_at() -> None:
    """Too few labels are told apart by nothing; the least number of labels holds them back already."""
    rows = window(400, 0)
    labelled = np.arange(len(rows)) < LEAST_EFFECTIVE - 1
    assert selection_of(rows, labelled, seed=0) is None
    assert selection_of(load_wine(as_frame=True).data, np.ones(178, dtype=np.bool_), seed=0) is None
