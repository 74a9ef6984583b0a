"""What columns carry: never too small where it matters, exactly nothing where the model does not look."""

from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer
from sklearn.ensemble import RandomForestClassifier

from optimizer_jobs.measure import sensitivity
from optimizer_jobs.measure.all_outputs import AllOutputs
from optimizer_jobs.measure.answer_distance import distance_from
from optimizer_jobs.measure.answers import Answers, Predictions
from optimizer_jobs.measure.label_sets import LabelSets
from optimizer_jobs.measure.sensitivity import Inputs, Unit, UnmeasurableError, carried

Array = NDArray[Any]
Model = Callable[[Array], Array]
ROWS = 600
LITTLE = 0.02
"""Shares from which a column is surely measured by itself."""
APART = 0.062
"""Standard error of the difference between the shares of two terms that are equal, over 150 seeds."""


def numbers(model: Model) -> Callable[[Inputs], Answers]:
    """Return what asks a regression of the columns x."""
    return lambda inputs: Answers(values=np.asarray(model(inputs["x"]), dtype=np.float64))


def shares(model: Model, rows: Array, seed: int = 0) -> list[float | None]:
    """Return what each column of rows (N, F) carries."""
    units = [Unit("x", place) for place in range(rows.shape[1])]
    found = carried(numbers(model), distance_from, {"x": rows}, units, seed=seed)
    return [found[unit] for unit in units]


def normal(columns: int, seed: int = 0) -> Array:
    """Return independent columns."""
    return np.random.default_rng(seed).normal(size=(ROWS, columns))


@given(weights=st.lists(st.sampled_from([0.0, 0.3, 1.0, -2.0]), min_size=2, max_size=8), seed=st.integers(0, 99))
@example(weights=[0.0, 0.0, 0.3, -2.0, 0.0, 0.0, -2.0, -2.0], seed=31)
@example(weights=[0.0, 0.0, 0.3, 0.3, 0.0, 0.0, 0.0, 0.0], seed=20)
@settings(max_examples=40, deadline=None)
def test_a_sum_is_carried_by_its_terms_and_by_nothing_else(weights: list[float], seed: int) -> None:
    """Columns of weight zero carry nothing; a larger weight carries more, by five errors; one seed gives one answer.

    Beside a column that carries next to nothing, they are measured together with it, and share what both are found to
    carry more.
    """
    rows, vector = normal(len(weights), seed), np.asarray(weights)
    if not vector.any():
        with pytest.raises(UnmeasurableError, match="the same whatever its inputs"):
            shares(lambda x: x @ vector, rows)
        return
    found = shares(lambda x: x @ vector, rows, seed)
    carrying = [share or 0 for share, weight in zip(found, weights, strict=True) if weight]
    idle = [share for share, weight in zip(found, weights, strict=True) if not weight]
    assert min(carrying) > 0
    assert all(share == 0 if min(carrying) > LITTLE else (share or 0) < LITTLE for share in idle)
    assert all(0 <= (share or 0) <= 1 for share in found)
    largest = int(np.argmax(np.abs(vector)))
    assert found[largest] == pytest.approx(max(share or 0 for share in found), abs=5 * APART)
    assert found == shares(lambda x: x @ vector, rows, seed)


@given(table=st.lists(st.booleans(), min_size=16, max_size=16), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_columns_together_carry_no_more_than_the_sum_of_their_shares(table: list[bool], seed: int) -> None:
    """For every function of four bits and every set of them, whatever they do only together (exclusive or, and)."""
    truth = np.asarray(table, dtype=np.float64)
    if truth.std() == 0:
        return
    rows = np.random.default_rng(seed).integers(0, 2, (ROWS, 4)).astype(np.float64)
    found = [share or 0.0 for share in shares(lambda x: truth[(x @ [8, 4, 2, 1]).astype(int)], rows, seed)]
    cube = truth.reshape(2, 2, 2, 2)
    for chosen in product([False, True], repeat=4):
        axes = tuple(place for place, drawn in enumerate(chosen) if drawn)
        total = float(cube.var(axis=axes).mean() / cube.var()) if axes else 0.0
        assert sum(found[place] for place in axes) >= total - 0.1
        assert len(axes) != 1 or (found[axes[0]] == 0) == (total == 0)


STAND_INS: dict[str, Model] = {
    "the middle of three": lambda x: np.median(x[:, :3], axis=1),
    "the larger": lambda x: x[:, :3].max(axis=1),
    "the mean": lambda x: x[:, :3].mean(axis=1),
    "one minus the other": lambda x: x[:, 0] + x[:, 1] - x[:, 2],
}


@pytest.mark.parametrize("model", STAND_INS.values(), ids=STAND_INS.keys())
def test_columns_that_stand_in_for_each_other_carry_something_each(model: Model) -> None:
    """Three copies of one column: drawing one anew changes no median, and yet the model looks at all three."""
    one, other = normal(2).T
    found = shares(model, np.stack([one, one, one, other], axis=1))
    assert all((share or 0) > 0.2 for share in found[:3]), found
    assert found[3] == 0


def test_a_rare_value_counts_as_much_as_a_frequent_one() -> None:
    """A flag that is set in one row of a hundred decides everything once it is set."""
    rows = normal(3)
    rows[:, 1] = np.arange(ROWS) % 100 == 0
    found = shares(lambda x: x[:, 0] + 50 * x[:, 1], rows)
    assert (found[1] or 0) > 0.3
    assert found[2] == 0


def test_a_column_of_one_value_says_nothing_of_what_it_carries() -> None:
    """It cannot be drawn anew, so that is not known; missing values are one value, too."""
    rows = normal(4)
    rows[:, 1], rows[:, 2] = 1, np.nan
    found = shares(lambda x: x[:, 0] * x[:, 1] + x[:, 3], rows)
    assert (found[1], found[2]) == (None, None)
    assert min(found[0] or 0, found[3] or 0) > 0.3


def test_effects_too_rare_for_few_rows_are_found_together() -> None:
    """Many columns that each matter in a row of a thousand are asked once more, all together on more rows."""
    rows = np.random.default_rng(0).normal(size=(4000, 40))
    found = shares(lambda x: x[:, 0] + 100 * (x[:, 1:] > 3).any(axis=1), rows)
    assert sum(share or 0 for share in found[1:]) > 0.04
    assert min(share or 0 for share in found[1:]) > 0


def test_a_wide_input_is_drawn_whole_beside_the_columns_of_another() -> None:
    """Images and words: each is one thing that the answers depend on."""
    generator = np.random.default_rng(0)
    inputs = {
        "image": generator.normal(size=(ROWS, 1, 4, 4)),
        "word": generator.choice(np.asarray(["red", "green", "blue"], dtype=object), (ROWS, 1)),
        "noise": generator.normal(size=(ROWS, 2)),
    }
    units = [Unit("image"), Unit("word", 0), Unit("noise", 0), Unit("noise", 1)]

    def ask(rows: Inputs) -> Answers:
        return Answers(values=rows["image"].sum(axis=(1, 2, 3)) + 4 * (rows["word"][:, 0] == "red"))

    found = carried(ask, distance_from, inputs, units, seed=0)
    assert min(found[units[0]] or 0, found[units[1]] or 0) > 0.1
    assert (found[units[2]], found[units[3]]) == (0, 0)


def test_a_forest_of_real_rows_carries_its_own_columns_and_not_noise() -> None:
    """Twenty columns of noise beside thirty real ones: all of the noise together carries less than one real column."""
    rows, classes = load_breast_cancer(return_X_y=True)
    rows = np.concatenate([rows, np.random.default_rng(0).normal(size=(len(rows), 20))], axis=1)
    model = RandomForestClassifier(30, random_state=0).fit(rows[::2], classes[::2])

    def ask(inputs: Inputs) -> Answers:
        scores = model.predict_proba(inputs["x"])
        return Answers(predictions=Predictions(scores.argmax(axis=1), scores, scores))

    units = [Unit("x", place) for place in range(50)]
    found = carried(ask, distance_from, {"x": rows[1::2]}, units, seed=0)
    real, noise = ([found[unit] or 0 for unit in units[part]] for part in (slice(30), slice(30, 50)))
    assert sum(noise) < max(real)
    assert sum(real) > 0.9


def test_what_cannot_be_measured_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    """Too few rows, too many columns, a model that is too slow."""
    with pytest.raises(UnmeasurableError, match="the reference has 40 rows, and at least 64"):
        shares(lambda x: x[:, 0], normal(3)[:40])
    with pytest.raises(UnmeasurableError, match="257 columns, and at most 256"):
        shares(lambda x: x[:, 0], normal(257))
    monkeypatch.setattr(sensitivity, "SECONDS_LIMIT", 0.0)
    with pytest.raises(UnmeasurableError, match="at most 0 s are spent on it"):
        shares(lambda x: x[:, 0], normal(3))


def test_a_single_column_carries_everything_and_asks_nothing() -> None:
    """There is nothing to compare it with."""

    def never(_: Inputs) -> Answers:
        raise AssertionError

    rows = {"x": np.stack([np.arange(ROWS), np.ones(ROWS)], axis=1)}
    units = [Unit("x", 0), Unit("x", 1)]
    assert carried(never, distance_from, rows, units, seed=0) == {units[0]: 1.0, units[1]: None}


BITS = np.asarray([[True, False], [False, False], [True, True]])
TURNED = np.asarray([[True, False], [True, False], [True, True]])
DISTANCES: dict[str, tuple[Answers, Answers, list[float]]] = {
    "probabilities": (
        Answers(predictions=Predictions(np.zeros(2), None, np.asarray([[1.0, 0.0], [0.5, 0.5]]))),
        Answers(predictions=Predictions(np.zeros(2), None, np.asarray([[0.0, 1.0], [0.5, 0.5]]))),
        [1.0, 0.0],
    ),
    "labels": (
        Answers(predictions=Predictions(np.asarray([1, 2]))),
        Answers(predictions=Predictions(np.asarray([1.0, 3.0]))),
        [0.0, 1.0],
    ),
    "several labels": (Answers(label_sets=LabelSets(BITS)), Answers(label_sets=LabelSets(TURNED)), [0.0, 0.5, 0.0]),
    "numbers by rank": (Answers(values=np.asarray([1.0, 1e9])), Answers(values=np.asarray([1.0, -5.0])), [0.0, 0.5625]),
    "embeddings": (
        Answers(values=np.asarray([[1.0, 0.0], [3.0, 0.0]]), is_embedding=True),
        Answers(values=np.asarray([[0.0, 2.0], [1.0, 0.0]]), is_embedding=True),
        [1.0, 0.0],
    ),
    "all outputs": (
        Answers(everything=AllOutputs({"word": np.asarray([["a"], ["b"]]), "box": np.asarray([[0.0], [2.0]])})),
        Answers(everything=AllOutputs({"word": np.asarray([["a"], ["c"]]), "box": np.asarray([[1.0], [2.0]])})),
        [0.5, 0.5],
    ),
}


@pytest.mark.parametrize("one, other, expected", DISTANCES.values(), ids=DISTANCES.keys())
def test_answers_are_as_far_apart_as_their_task_says(one: Answers, other: Answers, expected: list[float]) -> None:
    """Nothing between equal answers, the same in both directions."""
    distance = distance_from(one)
    assert distance(one, other).tolist() == pytest.approx(expected)
    assert distance(other, one).tolist() == pytest.approx(expected)
    assert not distance(one, one).any()
