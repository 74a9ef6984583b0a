"""What a run learns from: recent rows, a mixture, or what resembles them, chosen by rows that none of them has."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from optimizer_jobs.commands.gather import similarity
from optimizer_jobs.commands.gather.choosing import choose
from optimizer_jobs.commands.gather.policies import Parts, Policy, TrainingSet, all_sets, recent_only, weighted
from optimizer_jobs.commands.gather.tables import MOST_CATEGORIES, MOST_COLUMNS, Tables
from optimizer_jobs.data.datasets import Rows
from retune.api.model import Task

Array = np.ndarray[Any, Any]
Rule = Callable[[Array], Array]
LIMIT = 100_000


def above(limit: float) -> Rule:
    """Return the rule that rows with a larger first number are of class 1."""
    return lambda inputs: (inputs[:, 0] > limit).astype(np.int64)


def rows(count: int, rule: Rule, *, seed: int, center: float = 0.0) -> Rows:
    """Return rows of four numbers, labelled by a rule, a tenth of them wrongly."""
    generator = np.random.default_rng(seed)
    inputs = generator.normal(center, 1.0, (count, 4)).astype(np.float32)
    labels = np.where(generator.random(count) < 0.1, 1 - rule(inputs), rule(inputs))
    return Rows({"x": inputs}, labels, digest="")


def parts(recent: Rows, original: Rows | None, *, limit: int = LIMIT) -> Parts:
    """Return what sets are made of, in equal shares."""
    return Parts(recent, original, share=0.5, limit=limit, seed=3)


def chosen(recent: Rows, original: Rows | None, judged: Rows, *, linear: bool = False) -> tuple[Policy, str]:
    """Return the policy that is taken, and why."""
    choice = choose(all_sets(parts(recent, original)), judged, task=Task.CLASSIFICATION, linear=linear, seed=3)
    return choice.policy, choice.words


@pytest.mark.parametrize("linear", [False, True])
def test_where_the_rule_is_another_one_the_old_rows_are_left_out(*, linear: bool) -> None:
    """Old rows would teach the contrary; recent ones are taken alone, or with those old ones that agree."""

    def turned(inputs: Array) -> Array:
        return 1 - above(0.0)(inputs)

    recent, original, judged = rows(600, turned, seed=1), rows(3000, above(0.0), seed=2), rows(400, turned, seed=3)
    policy, words = chosen(recent, original, judged, linear=linear)
    assert policy in {Policy.RECENT_ONLY, Policy.WEIGHTED}
    assert words.startswith(f"{policy}: log-loss 0.")
    assert "Mixed" in words
    assert f"{'a linear model' if linear else 'boosted trees'} on 400 newer rows" in words


def test_where_recent_rows_are_few_and_the_rule_is_the_old_one_both_are_learned() -> None:
    """Eighty rows alone teach less than three thousand that are still true."""
    rule = above(0.0)
    policy, words = chosen(rows(80, rule, seed=1), rows(3000, rule, seed=2), rows(400, rule, seed=3))
    assert policy is not Policy.RECENT_ONLY
    assert "RecentOnly" in words


def test_what_may_be_chance_leaves_the_usual_policy() -> None:
    """A difference within its standard error takes nothing from its place, and is told."""
    rule, found = above(0.0), list[tuple[Policy, str]]()
    for seed in range(6):
        found.append(chosen(rows(2000, rule, seed=seed), rows(2000, rule, seed=50 + seed), rows(40, rule, seed=90)))
    assert [policy for policy, _ in found].count(Policy.MIXED) >= 4
    assert any("gains no more than chance would" in words for _, words in found)


def test_old_rows_that_resemble_the_recent_ones_are_taken_and_others_are_not() -> None:
    """Of two crowds of old rows, only the one that still asks is learned from."""
    recent = rows(500, above(4.0), seed=1, center=4.0)
    gone, alike = rows(2000, above(0.0), seed=2), rows(500, above(4.0), seed=3, center=4.0)
    inputs = np.concatenate([gone.inputs["x"], alike.inputs["x"]])
    original = Rows({"x": inputs}, np.concatenate([gone.answers, alike.answers]), "")
    made = weighted(parts(recent, original))
    assert made is not None
    taken = made.rows.inputs["x"][len(recent) :]
    assert len(taken) > 250
    assert (taken.mean(axis=1) > 2.0).mean() > 0.97


def test_old_rows_with_the_old_answer_are_not_taken_though_their_inputs_are_alike() -> None:
    """Similarity is of rows with their labels: what is now answered otherwise is no example."""

    def turned(inputs: Array) -> Array:
        return 1 - above(0.0)(inputs)

    recent, original = rows(1500, turned, seed=1), rows(1500, above(0.0), seed=2)
    made = weighted(parts(recent, original))
    assert made is not None
    old = made.rows.take(slice(len(recent), None))
    agree = float((old.answers == turned(old.inputs["x"])).mean())
    assert agree > 0.4  # a tenth of them agreed before
    assert made.rows.take(slice(len(recent))).answers.tolist() == recent.answers.tolist()


@pytest.mark.parametrize("limit", [100, 700, LIMIT])
def test_sets_are_bounded_and_the_same_again(limit: int) -> None:
    """Each policy is a function of the rows and the seed."""
    recent, original = rows(400, above(0.0), seed=1), rows(900, above(0.5), seed=2, center=0.3)
    first, again = (all_sets(parts(recent, original, limit=limit)) for _ in range(2))
    assert list(first) == list(Policy)
    for policy, made in first.items():
        assert made.policy is policy
        assert len(made.rows) <= limit
        np.testing.assert_array_equal(made.rows.inputs["x"], again[policy].rows.inputs["x"])
        np.testing.assert_array_equal(made.rows.answers, again[policy].rows.answers)


def test_recent_rows_alone_are_what_is_left_without_others() -> None:
    """Nothing is compared then, and that is said."""
    recent = rows(300, above(0.0), seed=1)
    assert chosen(recent, None, rows(100, above(0.0), seed=2)) == (
        Policy.RECENT_ONLY,
        "RecentOnly, because there is nothing else to learn from",
    )
    few = all_sets(parts(recent, rows(20, above(0.0), seed=3)))
    assert list(few) == [Policy.MIXED, Policy.RECENT_ONLY]


def test_numbers_are_judged_by_their_squared_errors() -> None:
    """A regression whose rule has moved learns from what is recent."""

    def of(count: int, slope: float, seed: int) -> Rows:
        made = rows(count, above(0.0), seed=seed)
        return Rows(made.inputs, made.inputs["x"][:, 0].astype(np.float64) * slope, "")

    sets = all_sets(parts(of(800, 2.0, 1), of(2000, -2.0, 2)))
    choice = choose(sets, of(300, 2.0, 3), task=Task.REGRESSION, linear=False, seed=3)
    assert choice.policy is not Policy.MIXED
    assert "squared error, as a share of the labels' variance" in choice.words


@pytest.mark.parametrize(
    ("change", "task", "says"),
    [
        ({"labels": np.zeros((100, 3), dtype=np.int64)}, Task.MULTI_LABEL, "no quick learner"),
        ({"labels": np.zeros((100, 2))}, Task.REGRESSION, "no quick learner"),
        ({"take": slice(20)}, Task.CLASSIFICATION, "20 newer rows are too few"),
    ],
    ids=["several labels", "several numbers", "few rows"],
)
def test_what_cannot_be_compared_stays_as_usual(change: dict[str, Any], task: Task, says: str) -> None:
    """With the reason, and without a failure."""
    judged = rows(100, above(0.0), seed=4)
    judged = judged.take(change["take"]) if "take" in change else Rows(judged.inputs, change["labels"], "")
    sets = all_sets(parts(rows(300, above(0.0), seed=1), rows(300, above(0.0), seed=2)))
    choice = choose(sets, judged, task=task, linear=False, seed=3)
    assert choice.policy is Policy.MIXED
    assert says in choice.words


def test_a_learner_that_fails_leaves_the_usual_policy() -> None:
    """Labels of mixed kinds, for one: a run goes on with what it had before there was a choice."""
    recent, original = rows(300, above(0.0), seed=1), rows(300, above(0.0), seed=2)
    broken = Rows(recent.inputs, np.full(300, np.nan), "")
    sets = {
        Policy.MIXED: TrainingSet(Policy.MIXED, original, 300),
        Policy.RECENT_ONLY: recent_only(parts(broken, None)),
    }
    judged = Rows(recent.inputs, np.linspace(0.0, 1.0, 300), "")
    choice = choose(sets, judged, task=Task.REGRESSION, linear=False, seed=3)
    assert choice.policy is Policy.MIXED
    assert "Mixed, as usual: " in choice.words


def test_a_class_that_a_set_lacks_costs_it_its_rows() -> None:
    """An unknown class has the least probability; nothing fails."""
    recent = rows(300, lambda inputs: np.zeros(len(inputs), dtype=np.int64), seed=1)
    assert set(recent.answers.tolist()) == {0, 1}
    third = Rows(recent.inputs, np.where(recent.inputs["x"][:, 1] > 0, 2, recent.answers), "")
    policy, _ = chosen(third, rows(2000, above(0.0), seed=2), third.take(slice(100)))
    assert policy in {Policy.RECENT_ONLY, Policy.WEIGHTED}


@given(
    weights=arrays.arrays(np.float64, st.integers(1, 40), elements=st.floats(0.0, 8.0)).filter(lambda w: w.sum() > 0.1),
    count=st.integers(1, 200),
    seed=st.integers(0, 9),
)
def test_rows_are_drawn_about_as_often_as_their_weights_say(weights: Array, count: int, seed: int) -> None:
    """Each as often as expected, rounded down or up: no luck beyond one row."""
    times = np.bincount(similarity.drawn(weights, count, seed=seed), minlength=len(weights))
    assert times.sum() == count
    assert (np.abs(times - count * weights / weights.sum()) < 1 + 1e-6).all()


def test_weights_are_bounded() -> None:
    """A row that is asked a thousand times as often now does not count a thousand times."""
    generator = np.random.default_rng(0)
    pool = generator.normal(0.0, 1.0, (2000, 2)).astype(np.float32)
    pool[:5] += 20
    newest = generator.normal(20.0, 1.0, (500, 2)).astype(np.float32)
    weights = similarity.weights(pool, newest, categories=np.zeros(2, dtype=np.bool_), seed=0)
    assert weights.min() >= 0.0
    assert weights.max() <= similarity.MOST
    assert weights[:5].mean() > weights[5:].mean()


def test_tables_hold_texts_as_categories() -> None:
    """The most frequent ones have numbers of their own; any other text is one category more."""
    texts = np.asarray([f"t{number % 300}" for number in range(3000)], dtype=object)
    made = Rows({"word": texts[:, None], "n": np.arange(3000.0)[:, None]}, None, "")
    tables = Tables.of(made)
    assert tables is not None
    assert tables.is_category.tolist() == [True, False]
    table = tables.table(Rows({"word": np.asarray([["never seen"]], dtype=object), "n": np.ones((1, 1))}, None, ""))
    assert table.tolist() == [[float(MOST_CATEGORIES), 1.0]]
    assert Tables.of(Rows({"x": np.zeros((2, MOST_COLUMNS + 1))}, None, "")) is None
