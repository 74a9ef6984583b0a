"""Where a reference speaks for a window, and how its rows count: what must hold for any tables."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer_jobs.measure.unlabelled.calibration import Curve
from optimizer_jobs.measure.unlabelled.density import CLIP, density_of
from optimizer_jobs.measure.unlabelled.features import DIMENSIONS, encoded
from optimizer_jobs.measure.unlabelled.support import support_of

SEEDS = st.integers(0, 2**31 - 1)
VALUES = st.one_of(st.floats(-1e6, 1e6), st.just(float("nan")), st.just(float("inf")))
COLUMNS = st.lists(VALUES, min_size=12, max_size=12)
TEXTS = st.lists(st.sampled_from(["red", "green", "blue", "", None]), min_size=12, max_size=12)


@given(before=COLUMNS, now=COLUMNS, words=TEXTS, later=TEXTS)
@settings(max_examples=60, deadline=None)
def test_any_tables_become_finite_numbers(
    before: list[float], now: list[float], words: list[str | None], later: list[str | None]
) -> None:
    """Holes, infinities, constants and texts: both samples get the same columns, and no number is missing."""
    reference = pd.DataFrame({"a": before, "b": pd.Series(words, dtype=object), "left out": 1})
    window = pd.DataFrame({"a": now, "b": pd.Series(later, dtype=object), "new": 2})
    rows = encoded(reference, window)
    assert rows.reference.shape[1] == rows.window.shape[1] <= DIMENSIONS
    assert np.isfinite(rows.reference).all()
    assert np.isfinite(rows.window).all()
    support = support_of(rows)
    assert 0 <= support.share_outside <= 1


@given(seed=SEEDS, columns=st.integers(1, 20), rows=st.integers(60, 200))
@settings(max_examples=25, deadline=None)
def test_rows_of_the_reference_itself_lie_inside_and_count_alike(seed: int, columns: int, rows: int) -> None:
    """A window of the reference's own rows: a hundredth is outside, and hardly anything is told apart."""
    table = pd.DataFrame(np.random.default_rng(seed).normal(size=(rows, columns))).add_prefix("x")
    both = encoded(table, table)
    assert support_of(both).share_outside <= 0.01 + 1 / rows
    assert density_of(both.reference, both.window, seed=seed % 1000).apart < 0.3


@given(seed=SEEDS, shift=st.floats(0, 3), rows=st.integers(30, 150))
@settings(max_examples=25, deadline=None)
def test_weights_are_bounded_with_mean_one(seed: int, shift: float, rows: int) -> None:
    """However far the window is, no row counts for all, and never for more rows than there are."""
    generator = np.random.default_rng(seed)
    reference, window = generator.normal(size=(rows, 3)), generator.normal(size=(rows, 3)) + shift
    density = density_of(reference, window, seed=0)
    assert density.weights.mean() == pytest.approx(1)
    assert density.weights.min() > 0
    assert density.weights.max() <= CLIP**3
    assert 1 <= density.effective <= rows + 1e-6


@given(seed=SEEDS)
@settings(max_examples=15, deadline=None)
def test_weights_move_the_reference_towards_the_window(seed: int) -> None:
    """The weighted mean of the reference is nearer to the window's than the plain one."""
    generator = np.random.default_rng(seed)
    reference, window = generator.normal(size=(800, 2)), generator.normal((0.7, 0.0), size=(600, 2))
    weights = density_of(reference, window, seed=0).weights
    weighted = (weights @ reference / weights.sum())[0]
    assert abs(weighted - window[:, 0].mean()) < abs(reference[:, 0].mean() - window[:, 0].mean()) / 2


def test_a_row_far_away_or_of_an_unseen_kind_lies_outside() -> None:
    """One number that is far, one category and one small code that are new."""
    generator = np.random.default_rng(0)
    reference = pd.DataFrame(
        {"size": generator.normal(size=300), "kind": ["a", "b"] * 150, "code": generator.integers(0, 3, 300)}
    )
    window = reference.head(4).copy()
    window.loc[1, "size"], window.loc[2, "kind"], window.loc[3, "code"] = 30.0, "c", 7
    assert support_of(encoded(reference, window)).outside.tolist() == [False, True, True, True]


def test_free_text_says_nothing_of_where_a_row_lies() -> None:
    """Every text is new; that is no sign of anything."""
    reference = pd.DataFrame({"size": np.linspace(0, 1, 100), "text": [f"t{place}" for place in range(100)]})
    window = reference.assign(text=[f"u{place}" for place in range(100)])
    assert support_of(encoded(reference, window)).share_outside == 0


@given(seed=SEEDS, isotonic=st.booleans())
@settings(max_examples=20, deadline=None)
def test_a_curve_is_right_on_average_where_it_has_learnt(seed: int, isotonic: bool) -> None:  # noqa: FBT001 - a strategy
    """The weighted mean of the chances is the weighted share that is right: nothing is promised too much."""
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(400, 2))
    answers = (generator.random(400) < 1 / (1 + np.exp(-1 - table[:, 0]))).astype(np.float64)
    weights = generator.exponential(size=400)
    chance = Curve(isotonic=isotonic).fit(table, answers, weights).chance(table)
    assert ((chance >= 0) & (chance <= 1)).all()
    assert weights @ chance / weights.sum() == pytest.approx(weights @ answers / weights.sum(), abs=0.01)
