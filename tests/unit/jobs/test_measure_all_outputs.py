"""Generic models: all outputs count, whatever their kind and number, and the worst says how alike answers are."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.all_outputs import AllOutputs, likeness
from optimizer_jobs.measure.answers import Answers, alike, answer, spread
from optimizer_jobs.measure.chance import no_better_than_chance
from optimizer_jobs.measure.finding import find_reading
from optimizer_jobs.measure.quality import evaluate
from optimizer_jobs.models.engine import EngineOptions, Session
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Reading
from retune.api.metrics import CUSTOM, Metric, quality_metrics
from retune.api.model import Model, Task

GENERIC = Model(uri="pvc://c/m.onnx", task=Task.GENERIC)


def numbers(*shape: int, seed: int = 0) -> NDArray[np.float64]:
    """Return seeded numbers."""
    return np.random.default_rng(seed).normal(size=shape)


@settings(max_examples=40, deadline=None)
@given(rows=st.integers(1, 8), width=st.integers(1, 5), seed=st.integers(0, 99), noise=st.floats(0, 10))
def test_likeness_is_a_share_and_the_same_is_the_same(rows: int, width: int, seed: int, noise: float) -> None:
    """From 0 to 1 for any other answers, and 1 for the same; rows that are taken are as alike as before."""
    floats, wholes = numbers(rows, width, seed=seed), np.arange(rows)
    theirs = AllOutputs({"f": floats, "i": wholes})
    mine = AllOutputs({"f": floats + noise * numbers(rows, width, seed=seed + 1), "i": wholes})
    assert np.array_equal(likeness(theirs, theirs), np.ones(rows))
    values = likeness(theirs, mine)
    assert ((values >= 0) & (values <= 1)).all()
    assert values.shape == (rows,)


def test_a_row_is_as_alike_as_its_worst_output() -> None:
    """An output that stayed does not make up for one that moved, and a whole number is the same or not."""
    boxes, kinds = numbers(20, 4), np.arange(20) % 3
    theirs = AllOutputs({"boxes": boxes, "kinds": kinds})
    mine = AllOutputs({"boxes": boxes, "kinds": np.where(np.arange(20) == 7, 9, kinds)})
    assert np.array_equal(np.flatnonzero(likeness(theirs, mine) < 1), [7])
    assert likeness(theirs, mine)[7] == 0.0
    assert likeness(theirs, AllOutputs({"boxes": boxes}))[0] == 0.0, "an output that is gone"


def test_one_other_letter_of_a_text_counts() -> None:
    """Scores of 5000 letters for 10 places: one that flips changes two numbers of 50 000, and a tenth of the text."""
    letters = np.random.default_rng(0).integers(0, 5000, (12, 10))
    theirs = np.eye(5000, dtype=np.float32)[letters]
    mine = theirs.copy()
    mine[3, 4] = np.roll(mine[3, 4], 1)
    values = likeness(AllOutputs({"scores": theirs}), AllOutputs({"scores": mine}))
    assert values[3] < 0.6
    assert np.delete(values, 3).min() == 1.0


def test_a_constant_offset_hides_no_error() -> None:
    """Temperatures in kelvin: an error of half the spread is a half, not a six-hundredth."""
    theirs = 300 + np.where(np.arange(40) % 2, 1.0, -1.0)[:, np.newaxis]
    values = likeness(AllOutputs({"kelvin": theirs}), AllOutputs({"kelvin": theirs + 0.5}))
    assert values == pytest.approx(np.full(40, 0.5))


def test_an_answer_that_is_the_same_for_all_rows_is_held_by_its_size() -> None:
    """There is no spread to measure by; a hundredth of the size is one hundredth off."""
    theirs = np.full((6, 4), 10.0)
    values = likeness(AllOutputs({"f": theirs}), AllOutputs({"f": theirs * 1.01}))
    assert values == pytest.approx(np.full(6, 0.99))
    assert spread(Answers(everything=AllOutputs({"f": theirs}))) == 0.0
    assert likeness(AllOutputs({"f": np.zeros((2, 3))}), AllOutputs({"f": np.full((2, 3), 1e-3)})).max() == 0.0


def test_what_is_not_finite_must_be_the_same() -> None:
    """A score of minus infinity that stays does no harm; one that goes, or a number that is lost, is another answer."""
    theirs = numbers(3, 4)
    theirs[:, 0] = -np.inf
    other = theirs.copy()
    other[1, 0], other[2, 3] = 0.0, np.nan
    assert likeness(AllOutputs({"f": theirs}), AllOutputs({"f": other})).tolist() == [1.0, 0.0, 0.0]


def test_rows_may_differ_in_shape() -> None:
    """Three boxes, one and none; another number of boxes is another answer."""
    theirs: list[NDArray[Any]] = [numbers(3, 4), numbers(1, 4, seed=1), np.zeros((0, 4))]
    assert likeness(AllOutputs({"boxes": theirs}), AllOutputs({"boxes": theirs})).tolist() == [1.0, 1.0, 1.0]
    fewer = [theirs[0][:2], theirs[1], theirs[2]]
    assert likeness(AllOutputs({"boxes": theirs}), AllOutputs({"boxes": fewer})).tolist() == [0.0, 1.0, 1.0]
    taken = AllOutputs({"boxes": theirs}).take(np.array([False, True, True]))
    assert [len(row) for row in taken.values["boxes"]] == [1, 0]


def places(path: Path) -> Session:
    """Open a model that answers where a row's numbers are positive: as many places as there are."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])]
    outputs = [
        helper.make_tensor_value_info("twice", TensorProto.FLOAT, ["N", 4]),
        helper.make_tensor_value_info("places", TensorProto.INT64, ["axes", "M"]),
    ]
    nodes = [
        helper.make_node("Add", ["x", "x"], ["twice"]),
        helper.make_node("Relu", ["x"], ["positive"]),
        helper.make_node("NonZero", ["positive"], ["places"]),
    ]
    graph = helper.make_graph(nodes, "places", inputs, outputs)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return open_model(path, EngineOptions(spinning=False))


def test_outputs_without_an_entry_for_each_row_are_asked_row_by_row(tmp_path: Path) -> None:
    """Places of a whole request cannot be told apart by row, so each row is asked by itself, and that is said."""
    rows = Rows(inputs={"x": numbers(6, 4).astype(np.float32)}, labels=None, digest="")
    session = places(tmp_path / "m.onnx")
    found = find_reading(session, GENERIC, rows)
    assert found.reading == Reading(singly=True)
    assert "one by one" in found.notes[0]
    answers = answer(session, rows, task=Task.GENERIC, reading=found.reading)
    assert answers.everything is not None
    counts = [len(row) for row in answers.everything.values["places"]]
    assert counts == (rows.inputs["x"] > 0).sum(axis=1).tolist()
    assert evaluate(Metric.FIDELITY, answers, rows, reference=answers).value == 1.0
    assert alike(answers.take(np.arange(3)), answers.take(np.arange(3))).tolist() == [1.0] * 3


def test_a_generic_model_has_fidelity_and_the_owners_own_metrics() -> None:
    """Labels say nothing of it, so chance says nothing either, whatever is in the label column."""
    assert set(quality_metrics(Task.GENERIC)) == {Metric.FIDELITY, *CUSTOM}
    answers = Answers(everything=AllOutputs({"f": numbers(40, 3)}))
    rows = Rows(inputs={"x": np.zeros(40)}, labels=np.arange(40) % 2, digest="")
    assert no_better_than_chance(answers, rows) is None
