"""Which rows are worth a label: whatever the rows are, and that none is asked about twice."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optimizer_jobs.measure.unlabelled.asking import LEAST_JUDGED, Candidates, Why, candidates, choose

SHARES = st.floats(0, 1)


@st.composite
def any_rows(draw: st.DrawFn) -> Candidates:
    """Rows of which some lie at the same place, and of which little or nothing is known."""
    count, width = draw(st.integers(0, 60)), draw(st.integers(0, 3))
    generator = np.random.default_rng(draw(st.integers(0, 1000)))
    where = np.round(generator.normal(size=(count, width)), draw(st.integers(0, 3)))
    kinds = generator.integers(0, draw(st.integers(1, 60)), count) if draw(st.booleans()) else None
    unsure = generator.choice([0.0, 0.5, np.nan, 1e9], count) if draw(st.booleans()) else None
    far = generator.random(count) if draw(st.booleans()) else None
    return Candidates(where, unsure, far, kinds)


@given(rows=any_rows(), count=st.integers(1, 80), chance=SHARES, seed=st.integers(0, 100))
@settings(max_examples=60, deadline=None)
def test_rows_are_chosen_once_and_a_share_of_them_by_chance(
    rows: Candidates, count: int, chance: float, seed: int
) -> None:
    """Whatever is known: no more than asked for, the share that was asked for, and the same again."""
    chosen = choose(rows, count=count, chance=chance, seed=seed)
    wanted = min(count, len(rows))
    assert len(set(chosen.rows.tolist())) == len(chosen.rows) == len(chosen.why) == len(chosen.scores) <= wanted
    assert chosen.why.count(Why.CHANCE) == round(chance * wanted)
    assert ((chosen.scores >= 0) & (chosen.scores <= 1)).all()
    again = choose(rows, count=count, chance=chance, seed=seed)
    assert again.rows.tolist() == chosen.rows.tolist()
    assert again.why == chosen.why


@given(rows=any_rows(), count=st.integers(1, 80), chance=SHARES)
@settings(max_examples=60, deadline=None)
def test_no_informative_row_repeats_another(rows: Candidates, count: int, chance: float) -> None:
    """Neither one that is as informative, nor one that was drawn by chance; fewer come only where no other is left."""
    chosen = choose(rows, count=count, chance=chance, seed=0)
    kinds = np.arange(len(rows)) if rows.kinds is None else rows.kinds
    places = kinds[chosen.rows].tolist()
    informative = [place for place, why in zip(places, chosen.why, strict=True) if why is not Why.CHANCE]
    by_chance = {place for place, why in zip(places, chosen.why, strict=True) if why is Why.CHANCE}
    assert len(set(informative)) == len(informative)
    assert not by_chance & set(informative)
    if len(chosen.rows) < min(count, len(rows)):
        assert by_chance | set(informative) == set(kinds.tolist())


@pytest.fixture
def line() -> pd.DataFrame:
    """A thousand rows in three columns of numbers."""
    return pd.DataFrame(np.random.default_rng(0).normal(size=(1000, 3)), columns=["a", "b", "c"])


def test_a_crowd_of_one_kind_is_one_question(line: pd.DataFrame) -> None:
    """Nine hundred rows that hardly differ are the least sure ones: of 40 questions a few are about them."""
    crowd = line.copy()
    crowd.iloc[:900] = 3.0 + 0.01 * line.iloc[:900]
    unsure = np.where(np.arange(1000) < 900, 0.9, 0.8)
    chosen = choose(candidates(crowd, line[:0], unsure=unsure), count=40, chance=0.0, seed=0)
    assert 1 <= (chosen.rows < 900).sum() <= 4
    few = choose(candidates(crowd[850:], line[:0], unsure=unsure[850:]), count=40, chance=0.0, seed=0)
    assert 1 <= (few.rows < 50).sum() <= 4


def test_what_lies_far_from_judged_rows_is_unseen(line: pd.DataFrame) -> None:
    """And what lies among them is asked about because the model is unsure."""
    moved = line.copy()
    moved.iloc[:100] += 6.0
    unsure = np.linspace(0, 1, 1000)
    chosen = choose(candidates(moved, line, unsure=unsure), count=80, chance=0.0, seed=0)
    far = {row: why for row, why in zip(chosen.rows.tolist(), chosen.why, strict=True) if row < 100}
    assert far
    assert set(far.values()) == {Why.UNSEEN}
    assert Why.UNCERTAIN in chosen.why


def test_an_overconfident_model_says_as_much_as_another(line: pd.DataFrame) -> None:
    """Of how unsure it is the order alone counts."""
    unsure = np.random.default_rng(1).random(1000)
    chosen, same = (
        choose(candidates(line, line[:50], unsure=values), count=50, seed=3) for values in (unsure, unsure**9 / 100)
    )
    assert chosen.rows.tolist() == same.rows.tolist()


def test_any_beginning_has_its_share_by_chance(line: pd.DataFrame) -> None:
    """Whoever labels only the first lines has labels of all kinds, too."""
    chosen = choose(candidates(line, line[:50], unsure=np.arange(1000.0)), count=200, seed=0)
    drawn = np.cumsum([why is Why.CHANCE for why in chosen.why])
    assert (np.abs(drawn - 0.25 * np.arange(1, 201)) <= 1).all()
    best = chosen.scores[[why is not Why.CHANCE for why in chosen.why]]
    assert (np.diff(best) <= 1e-12).all()


@pytest.mark.slow
def test_chance_knows_nothing_of_the_rows() -> None:
    """Over many seeds each row is drawn about as often as any other, however informative it is."""
    rows = Candidates(np.arange(20.0)[:, np.newaxis], np.arange(20.0), None)
    counts = np.zeros(20)
    for seed in range(1000):
        chosen = choose(rows, count=8, chance=0.5, seed=seed)
        counts[[row for row, why in zip(chosen.rows, chosen.why, strict=True) if why is Why.CHANCE]] += 1
    assert abs(counts - 200).max() < 5 * np.sqrt(200 * 0.8)


def test_too_few_judged_rows_say_nothing_of_distance(line: pd.DataFrame) -> None:
    """Fewer than ten: rows are chosen by how unsure the model is."""
    rows = candidates(line, line[: LEAST_JUDGED - 1], unsure=np.arange(1000.0))
    assert rows.far is None
    assert set(choose(rows, count=20, chance=0.0, seed=0).why) == {Why.UNCERTAIN}


def test_columns_of_any_kind_are_taken() -> None:
    """Texts, holes, infinities, columns that only one side has, and none at all."""
    texts = pd.DataFrame({"city": ["a", "b", None, "c"] * 10, "x": [1.0, np.nan, np.inf, 2.0] * 10})
    judged = pd.DataFrame({"city": ["a"] * 20, "x": np.arange(20.0), "more": 1})
    rows = candidates(texts, judged)
    assert rows.far is not None
    assert (rows.far[1::4] == 1.0).all(), "a category that no judged row has is as far as can be"
    assert len(choose(rows, count=10, seed=0).rows) > 2
    prose = pd.DataFrame({"text": [f"another sentence {number}" for number in range(40)]})
    assert len(choose(candidates(prose, judged), count=10, seed=0).rows) == 10, "nothing says that these are alike"
    assert len(choose(candidates(prose.iloc[[0] * 40], judged), count=10, chance=0.0, seed=0).rows) == 1
    bare = candidates(pd.DataFrame(index=range(5)), judged, answers=np.eye(5))
    assert len(choose(bare, count=5, seed=0).rows) == 5
