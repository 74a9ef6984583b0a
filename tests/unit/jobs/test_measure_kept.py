"""Of a model's outputs, only what a metric reads is kept in memory."""

import tracemalloc

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import answer
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from optimizer_jobs.models.engine import EngineOptions, Session
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Reading, Scale
from retune.api.model import Task
from retune.api.own_code import CustomMetric

ROWS, WIDTH = 512, 1 << 13
HIDDEN_BYTES = ROWS * WIDTH * 4
READING = Reading(scores="scores", scale=Scale.LOGITS)


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A classifier that also answers large hidden states."""
    path = tmp_path_factory.mktemp("hidden") / "model.onnx"
    graph = helper.make_graph(
        [
            helper.make_node("Tile", ["x", "times"], ["hidden"]),
            helper.make_node("Gather", ["hidden", "first"], ["scores"], axis=1),
        ],
        "hidden",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 8])],
        [
            helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["N", WIDTH]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 2]),
        ],
        [
            numpy_helper.from_array(np.array([1, WIDTH // 8]), "times"),
            numpy_helper.from_array(np.array([0, 1]), "first"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)
    return open_model(path, EngineOptions())


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Rows of the classifier."""
    values = np.random.default_rng(0).normal(size=(ROWS, 8)).astype(np.float32)
    return Rows(inputs={"x": values}, labels=np.zeros(ROWS, dtype=np.int64), digest="")


def test_hidden_states_are_dropped_call_by_call(session: Session, rows: Rows) -> None:
    """What no metric reads never lies in memory as a whole; the answers are the same."""
    tracemalloc.start()
    try:
        plain = answer(session, rows, task=Task.CLASSIFICATION, reading=READING, batch=32)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert not plain.outputs
    assert kept < 0.02 * HIDDEN_BYTES
    assert peak < 0.25 * HIDDEN_BYTES
    everything = answer(session, rows, task=Task.CLASSIFICATION, reading=READING, batch=32, keep_outputs=True)
    assert plain.predictions is not None
    assert everything.predictions is not None
    assert np.array_equal(plain.predictions.labels, everything.predictions.labels)


def test_a_metric_of_ones_own_gets_every_output(session: Session, rows: Rows) -> None:
    """It alone reads more than the answers, so it alone has them kept; a generic model's are kept once."""
    everything = answer(session, rows, task=Task.CLASSIFICATION, reading=READING, keep_outputs=True)
    assert {name: values.shape for name, values in everything.outputs.items()} == {
        "hidden": (ROWS, WIDTH),
        "scores": (ROWS, 2),
    }
    custom = CustomMetric(entry_point="metrics:own")
    assert Yardstick(custom=custom).reads_outputs
    assert not PLAIN.reads_outputs
    generic = answer(session, rows, task=Task.GENERIC)
    assert generic.everything is not None
    assert not generic.outputs
    assert len(generic.take(np.arange(3)).outputs) == 0


def test_without_a_reading_all_outputs_are_looked_through(session: Session, rows: Rows) -> None:
    """Where nothing says which output is the answer, the first that fits is, and then none is kept."""
    answers = answer(session, rows, task=Task.REGRESSION)
    assert answers.numbers.shape == (ROWS, WIDTH)
    assert not answers.outputs
