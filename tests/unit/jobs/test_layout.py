"""Rows on other axes than the first, and inputs without rows: found by names and shapes, turned, filled and named."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened
from optimizer_jobs.measure.answers import outputs_of
from optimizer_jobs.models.engine import EngineError, EngineOptions, Session
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.layout import as_taken, ask
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.preflight.rows_first import check_rows, with_fills
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Dataset, InputValue, Task

URI = "pvc://c/model.onnx"


def tensor(name: str, *shape: int, dtype: str = "float32") -> TensorSpec:
    """Return a tensor."""
    return TensorSpec(name=name, dtype=dtype, shape=shape)


def recurrent(path: Path) -> Path:
    """Write `y = x * gain + sum of state`, and the next state, which has rows as its second axis."""
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "N", 3]),
        helper.make_tensor_value_info("gain", TensorProto.INT64, []),
    ]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("stateN", TensorProto.FLOAT, [2, "N", 3]),
    ]
    nodes = [
        helper.make_node("Cast", ["gain"], ["factor"], to=TensorProto.FLOAT),
        helper.make_node("ReduceSum", ["state", "axes"], ["sums"], keepdims=0),
        helper.make_node("Mul", ["x", "factor"], ["larger"]),
        helper.make_node("Add", ["larger", "sums"], ["y"]),
        helper.make_node("Add", ["state", "y"], ["stateN"]),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [1], [0])
    graph = helper.make_graph(nodes, "recurrent", inputs, outputs, [axes])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


@pytest.fixture
def session(tmp_path: Path) -> Session:
    """The recurrent model, open."""
    return open_model(recurrent(tmp_path / "m.onnx"), EngineOptions(spinning=False))


@pytest.fixture
def opened(tmp_path: Path) -> Opened:
    """The recurrent model as delivered."""
    path = recurrent(tmp_path / "m.onnx")
    return Opened(path, check_onnx(path))


def saved(folder: Path, **arrays: NDArray[Any]) -> Dataset:
    """Write a data set and return its spec."""
    (folder / "c").mkdir(exist_ok=True)
    np.savez(folder / "c" / "rows.npz", allow_pickle=False, **arrays)
    return Dataset(uri="pvc://c/rows.npz")


def generator() -> np.random.Generator:
    """Return seeded numbers."""
    return np.random.default_rng(0)


@pytest.mark.parametrize(
    ("inputs", "axes", "batch"),
    [
        ((tensor("x", -1, 512), tensor("state", 2, -1, 128), tensor("sr")), (0, 1, None), None),
        ((tensor("x", 1, 512), tensor("state", 2, 1, 128)), (0, 1), 1),
        ((tensor("h0", 2, -1, 8), tensor("x", -1, 4)), (1, 0), None),
        ((tensor("x", 4, 10), tensor("scale", 1, 3)), (0, None), 4),
        ((tensor("x", -1, 10), tensor("anchors", 5, 4)), (0, None), None),
        ((tensor("a", -1), tensor("b", -1, 3)), (0, 0), None),
    ],
)
def test_the_axis_of_rows_follows_from_shapes(
    inputs: tuple[TensorSpec, ...], axes: tuple[int | None, ...], batch: int | None
) -> None:
    """The free axis, or else the size that most inputs share, has the rows; an input without it has none."""
    signature = Signature(inputs=inputs, outputs=(tensor("y", -1, 2),))
    assert tuple(signature.input_axes.values()) == axes
    assert signature.batch == batch
    assert signature.is_rows_first == all(axis == 0 for axis in axes)


def test_one_line_of_labels_has_the_rows_side_by_side() -> None:
    """Some exporters write the labels of N rows as (1, N); rows are turned, whatever the number of one call."""
    outputs = (tensor("label", 1, -1, dtype="int64"), tensor("probabilities", -1, 3), tensor("boxes", 1, -1, 6))
    signature = Signature(inputs=(tensor("x", -1, 12),), outputs=outputs)
    assert signature.output_axes == {"label": 1, "probabilities": 0, "boxes": 0}
    tokens = Signature(inputs=(tensor("input_ids", -1, -1),), outputs=(tensor("mean", 1, -1),))
    assert tokens.output_axes == {"mean": 0}, "what is free may be the tokens"


@pytest.mark.parametrize(
    ("state", "output", "carried"),
    [
        (tensor("state", 2, -1, 128), tensor("stateN", -1, -1, -1), True),
        (tensor("h0", 1, -1, 8), tensor("hn", 1, -1, 8), True),
        (tensor("h_in", -1, 8), tensor("h_out", -1, 8), True),
        (tensor("cache_3", -1, 8), tensor("cache", -1, 9), False),
        (tensor("image", -1, 8), tensor("mask", -1, 8), False),
        (tensor("h0", 1, -1, 8, dtype="float16"), tensor("hn", 1, -1, 8), False),
    ],
)
def test_a_state_is_known_by_name_and_shape(state: TensorSpec, output: TensorSpec, carried: bool) -> None:  # noqa: FBT001
    """An output that is called like the input but for its ending, and fits its shape, is the next state."""
    signature = Signature(inputs=(tensor("x", -1, 4), state), outputs=(tensor("y", -1, 2), output))
    assert signature.states == ((state.name,) if carried else ())


@given(rows=st.integers(1, 5), seed=st.integers(0, 100))
def test_turning_changes_no_number(rows: int, seed: int) -> None:
    """Whatever is turned to the model's own axes and back is as it was, row by row."""
    signature = Signature(
        inputs=(tensor("x", -1, 3), tensor("state", 2, -1, 4), tensor("sr", dtype="int64")),
        outputs=(tensor("y", -1, 3), tensor("stateN", 2, -1, 4)),
    )
    random = np.random.default_rng(seed)
    inputs = {"x": random.normal(size=(rows, 3)), "state": random.normal(size=(rows, 2, 4)), "sr": np.full(rows, 8)}

    class Echo:
        """Answers what it is asked."""

        def __init__(self) -> None:
            self.signature = signature

        def run(self, taken: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
            """Return the inputs under the outputs' names."""
            assert (taken["state"].shape, taken["sr"].shape) == ((2, rows, 4), ())
            return {"y": taken["x"], "stateN": taken["state"]}

    answered = ask(cast("Session", Echo()), inputs)
    assert np.array_equal(answered["y"], inputs["x"])
    assert np.array_equal(answered["stateN"], inputs["state"])


def test_a_setting_that_differs_within_a_request_is_refused(session: Session) -> None:
    """One request has one gain; two rows that want others cannot share it."""
    inputs = {"x": np.ones((2, 3), np.float32), "state": np.zeros((2, 2, 3), np.float32), "gain": np.array([1, 2])}
    with pytest.raises(EngineError, match="input gain is one value for all rows of a request"):
        as_taken(session.signature, inputs)


@pytest.mark.parametrize("rows_first", [True, False])
def test_data_may_hold_states_either_way(
    opened: Opened,
    session: Session,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows_first: bool,  # noqa: FBT001
) -> None:
    """An array as the model takes it, or rows first, and a setting as one number: answers are those of the model."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path))
    x, state = (generator().normal(size=shape).astype(np.float32) for shape in ((5, 3), (2, 5, 3)))
    held = np.moveaxis(state, 1, 0) if rows_first else state
    spec = saved(tmp_path, x=x, state=held, gain=np.array(4))
    rows = read_dataset(spec, opened.signature, into=tmp_path / "in", task=Task.GENERIC)
    assert {name: values.shape for name, values in rows.inputs.items()} == {
        "x": (5, 3),
        "state": (5, 2, 3),
        "gain": (5,),
    }
    expected = session.run({"x": x, "state": state, "gain": np.array(4)})
    assert np.array_equal(ask(session, rows.inputs)["stateN"], np.moveaxis(expected["stateN"], 1, 0))


def test_what_the_data_lacks_is_zero_or_told(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A state begins with zeros, which is said; a setting is as the spec says, for every row."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path))
    spec = saved(tmp_path, x=np.ones((4, 3), np.float32))
    filled = with_fills(opened, (InputValue(name="gain", value="16"),), {"x"}, uri=URI)
    assert "state begins with zeros" in capsys.readouterr().out
    rows = read_dataset(spec, filled.signature, into=tmp_path / "in", task=Task.GENERIC)
    assert rows.inputs["gain"].tolist() == [16] * 4
    assert rows.inputs["gain"].dtype == np.int64
    assert rows.inputs["state"].shape == (4, 2, 3)
    assert not rows.inputs["state"].any()


def test_a_fraction_is_no_whole_number(opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A gain of type int64 cannot be 1.5; it is not rounded."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path))
    spec = saved(tmp_path, x=np.ones((4, 3), np.float32))
    filled = with_fills(opened, (InputValue(name="gain", value="1.5"),), {"x"}, uri=URI)
    with pytest.raises(JobError, match=r"input 'gain' is int64, which 1\.5 is not"):
        read_dataset(spec, filled.signature, into=tmp_path / "in", task=Task.GENERIC)


def test_a_setting_without_a_value_is_named(opened: Opened) -> None:
    """Nothing can be guessed of a sample rate: the sentence names the input and the option."""
    with pytest.raises(JobError, match=r"input `gain int64 \(\)` is one value for all rows") as refused:
        with_fills(opened, (), {"x"}, uri=URI)
    assert "--input gain=VALUE" in refused.value.next_step


def test_a_value_for_no_input_is_refused(opened: Opened) -> None:
    """A misspelt name would leave the real input without a value."""
    with pytest.raises(JobError, match="names gian, and the inputs are x, state, gain"):
        with_fills(opened, (InputValue(name="gian", value="1"),), {"x"}, uri=URI)


def test_a_model_without_rows_is_refused() -> None:
    """Only settings, or no inputs at all: there is nothing to ask rows of."""
    for inputs in ((), (tensor("sr"),)):
        with pytest.raises(JobError, match="no input"):
            check_rows(Signature(inputs=inputs, outputs=(tensor("y", -1),)), uri=URI)


def test_golden_requests_have_the_form_that_the_model_takes(session: Session) -> None:
    """A server is asked as its callers ask it: the state with rows as the second axis, the setting as one number."""
    inputs = {
        "x": generator().normal(size=(9, 3)).astype(np.float32),
        "state": np.zeros((9, 2, 3), np.float32),
        "gain": np.full(9, 16),
    }
    golden = record(session, Rows(inputs=inputs, labels=None, digest=""), count=3)
    shapes = {tensor.name: tensor.shape for tensor in golden.requests[0].inputs}
    assert shapes == {"x": (1, 3), "state": (2, 1, 3), "gain": ()}
    assert {tensor.name: tensor.shape for tensor in golden.requests[0].outputs}["stateN"] == (2, 1, 3)


def test_outputs_that_hold_no_rows_are_no_answers(tmp_path: Path) -> None:
    """A number of the whole batch, such as a loss, is left out; a table of fixed length is not cut."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3])]
    outputs = [
        helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3]),
        helper.make_tensor_value_info("mean", TensorProto.FLOAT, []),
        helper.make_tensor_value_info("table", TensorProto.FLOAT, [5]),
    ]
    nodes = [
        helper.make_node("Relu", ["x"], ["y"]),
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=0),
        helper.make_node("Identity", ["kept"], ["table"]),
    ]
    kept = helper.make_tensor("kept", TensorProto.FLOAT, [5], [1.0, 2.0, 3.0, 4.0, 5.0])
    graph = helper.make_graph(nodes, "beside", inputs, outputs, [kept])
    path = tmp_path / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    session = open_model(path, EngineOptions(spinning=False))
    rows = Rows({"x": np.eye(3, dtype=np.float32)}, None, "")
    found = outputs_of(session, rows, 2)
    assert {name: values.shape for name, values in found.items()} == {"y": (3, 3), "table": (10,)}
