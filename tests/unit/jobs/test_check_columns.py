"""What is compared at all, before any statistics: independent rows, sound columns, violations that chance explains."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_wine

from optimizer_jobs.commands.check.column_statistics import Kind, contingency
from optimizer_jobs.commands.check.columns import Cause, NotCompared, Pair, pairs
from optimizer_jobs.commands.check.components import components
from optimizer_jobs.commands.check.independence import correlation_time, stride
from optimizer_jobs.commands.check.violations import violations

CANCER: pd.DataFrame = load_breast_cancer(as_frame=True).data
NAME = "mean radius"


def halves(seed: int = 0) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two random halves of real rows."""
    order = np.random.default_rng(seed).permutation(len(CANCER))
    first, second = order[: len(order) // 2], order[len(order) // 2 :]
    return CANCER.iloc[first].reset_index(drop=True), CANCER.iloc[second].reset_index(drop=True)


@pytest.mark.slow
def test_two_halves_of_the_same_rows_violate_nothing() -> None:
    """A finite reference misses the largest values of a window by chance; that is no violation."""
    assert [violations(*halves(seed)) for seed in range(20)] == [()] * 20


def _every_fifth(frame: pd.DataFrame, value: float) -> pd.DataFrame:
    return frame.assign(**{NAME: frame[NAME].where(frame.index % 5 > 0, value)})


def _text(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.assign(**{NAME: frame[NAME].astype(str)})


DAMAGE: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], str]] = {
    "missing column": (lambda frame: frame.drop(columns=NAME), "Column mean radius is missing in the window."),
    "new column": (lambda frame: frame.assign(new=1), "Column new is new in the window"),
    "retyped column": (_text, "mean radius changed its type from float64 to"),
    "holes": (lambda frame: _every_fifth(frame, np.nan), "is missing in 20."),
    "no values": (lambda frame: frame.assign(**{NAME: np.nan}), "mean radius has no value in all 285 rows"),
    "infinities": (lambda frame: _every_fifth(frame, np.inf), "infinite in 20."),
    "out of range": (lambda frame: frame.assign(**{NAME: frame[NAME] * 100}), "lies outside the reference's"),
}


@pytest.mark.parametrize("damage, words", DAMAGE.values(), ids=DAMAGE.keys())
def test_each_damage_is_one_sentence(damage: Callable[[pd.DataFrame], pd.DataFrame], words: str) -> None:
    """It names the column and the numbers, and no other column is accused."""
    reference, current = halves()
    found = violations(reference, damage(current))
    assert len(found) == 1
    assert words in found[0]


def test_unseen_categories_are_told_unless_the_reference_may_have_missed_them() -> None:
    """A tenth of new values is a violation; one rare value among values seen once each is not."""
    known = pd.DataFrame({"color": np.resize(["red", "green"], 300)})
    new = pd.DataFrame({"color": np.resize(["red"] * 9 + ["mauve"], 300)})
    assert "color has 1 unseen categories in 10.0% of the rows: mauve." in violations(known, new)
    names = [f"n{place}" for place in range(600)]
    assert violations(pd.DataFrame({"id": names[:300]}), pd.DataFrame({"id": names[300:]})) == ()


LEFT: dict[str, tuple[Callable[[pd.DataFrame], pd.DataFrame], Cause]] = {
    "missing column": (lambda frame: frame.drop(columns=NAME), Cause.SCHEMA),
    "retyped column": (_text, Cause.SCHEMA),
    "no values": (lambda frame: frame.assign(**{NAME: np.nan}), Cause.NO_VALUES),
    "infinities": (lambda frame: frame.assign(**{NAME: np.inf}), Cause.NO_VALUES),
    "one row": (lambda frame: frame.head(1), Cause.TOO_FEW),
    "no row": (lambda frame: frame.head(0), Cause.NO_VALUES),
    "one value again and again": (lambda frame: frame.assign(**{NAME: np.arange(285) // 100}), Cause.TOO_FEW),
}


@pytest.mark.parametrize("damage, cause", LEFT.values(), ids=LEFT.keys())
def test_a_column_that_cannot_be_compared_says_why(
    damage: Callable[[pd.DataFrame], pd.DataFrame], cause: Cause
) -> None:
    """It is set aside with its cause, and the others are compared all the same."""
    reference, current = halves()
    found = list(pairs(reference, damage(current), [NAME]))
    assert [each.cause for each in found if isinstance(each, NotCompared)] == [cause]


def test_columns_of_many_categories_need_more_rows() -> None:
    """Ten rows a category, so that rare ones do not decide."""
    frame = pd.DataFrame({"city": np.random.default_rng(0).permutation([f"c{place % 40}" for place in range(300)])})
    (found,) = pairs(frame, frame, ["city"])
    assert isinstance(found, NotCompared)
    assert (found.cause, "400 are needed for its 40 categories" in found.words) == (Cause.TOO_FEW, True)


def test_values_that_repeat_each_other_are_told_as_what_they_count_for() -> None:
    """A column that hardly moves from row to row has few values of its own, and the words have both numbers."""
    frame = pd.DataFrame({"level": np.cumsum(np.random.default_rng(0).normal(size=300))})
    (found,) = pairs(frame, frame, ["level"])
    assert isinstance(found, NotCompared)
    assert found.cause is Cause.TOO_FEW
    assert "its 300 values, each like the one before, count as" in found.words


def test_a_constant_column_that_stays_constant_is_compared_as_a_category() -> None:
    """It has not moved: p is 1."""
    frame = pd.DataFrame({"one": np.ones(300)})
    (found,) = pairs(frame, frame, ["one"])
    assert isinstance(found, Pair)
    assert found.kind is Kind.CATEGORICAL
    assert contingency(found.reference, found.current) == 1.0


@given(st.lists(st.sampled_from("abcde"), min_size=1, max_size=80), st.lists(st.sampled_from("abcdef"), min_size=1))
@settings(max_examples=60, deadline=None)
def test_a_test_of_categories_gives_a_probability_whatever_comes(before: list[str], now: list[str]) -> None:
    """Between 0 and 1, the same whichever sample is the reference, and 1 for a sample and itself."""
    one, other = pd.Series(before), pd.Series(now)
    p = contingency(one, other)
    assert 0 <= p <= 1
    assert contingency(other, one) == pytest.approx(p)
    assert contingency(one, one) == pytest.approx(1)


def test_independent_rows_are_all_kept_and_repeated_ones_thinned() -> None:
    """Real rows in random order count each; each row ten times in a row counts about once."""
    wine = load_wine(as_frame=True).data["alcohol"]
    generator = np.random.default_rng(0)
    strides = [stride(wine.sample(600, replace=True, random_state=generator)) for _ in range(100)]
    assert sum(each > 1 for each in strides) <= 6
    repeated = wine.sample(600, replace=True, random_state=0).repeat(10)
    assert 10 <= stride(repeated) <= 25
    assert correlation_time(np.ones(100)) == 1.0


def test_components_do_not_tell_equal_samples_apart() -> None:
    """They are found on both samples, so reference and window spread alike in each; rows with holes have none."""
    reference, current = (half.to_numpy(copy=True) for half in halves())
    current[3, 2] = np.nan
    before, now = components("x", reference, current, seed=0)
    assert list(before)[:2] == ["x[component 1]", "x[component 2]"]
    assert now.isna().all(axis=1).sum() == 1
    assert 0.6 < float((now.std() / before.std()).median()) < 1.6
