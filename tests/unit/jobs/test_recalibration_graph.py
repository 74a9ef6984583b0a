"""What is written into a graph answers what the correction says, whatever form scores and labels have."""

from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx import TensorProto, helper

from optimizer_jobs.machinery.recalibration.corrections import (
    Affine,
    Correction,
    Curve,
    UnfitRowsError,
    log_scores,
)
from optimizer_jobs.machinery.recalibration.graph import Outputs, correct

Array = NDArray[Any]
KINDS = {np.float32: TensorProto.FLOAT, np.float64: TensorProto.DOUBLE, np.float16: TensorProto.FLOAT16}
FORMS = [(2, 2), (2, 3), (2, 1), (1, 1)]
"""Axes and columns of scores."""
IDS = ["pairs", "triples", "column", "line"]


def passing(form: tuple[int, int], *, dtype: Any = np.float32, opset: int = 17) -> onnx.ModelProto:
    """Return a graph that answers its input."""
    shape: list[str | int] = ["N", form[1]] if form[0] == 2 else ["N"]
    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["turned"]), helper.make_node("Neg", ["turned"], ["scores"])],
        "passing",
        [helper.make_tensor_value_info("x", KINDS[dtype], shape)],
        [helper.make_tensor_value_info("scores", KINDS[dtype], shape)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def run(model: onnx.ModelProto, values: Array) -> list[Any]:
    """Return what a checked graph answers in ONNX Runtime."""
    onnx.checker.check_model(model, full_check=True)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, {"x": values}))


def outputs_of(form: tuple[int, int], *, are_logits: bool, **label: Any) -> Outputs:
    """Return what is corrected."""
    return Outputs("scores", are_logits=are_logits, width=form[1], axes=form[0], **label)


def scores(form: tuple[int, int], *, are_logits: bool, seed: int = 0, dtype: Any = np.float32) -> Array:
    """Return scores of 200 rows, the surest ones among them."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=4, size=(200, max(2, form[1])))
    logits[0] = 0
    if form[1] == 1:
        table = logits[:, :1] if are_logits else 1 / (1 + np.exp(-logits[:, :1]))
    else:
        table = logits if are_logits else np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    if not are_logits:
        table[1] = np.eye(form[1])[0] if form[1] > 1 else 1.0
    return (table if form[0] == 2 else table[:, 0]).astype(dtype)


def expected(values: Array, correction: Correction, form: tuple[int, int], *, are_logits: bool) -> Array:
    """Return the corrected probabilities (N, C) as the correction itself says them."""
    table = values.astype(np.float32).astype(np.float64).reshape(len(values), form[1])
    return correction.probabilities(log_scores(table, are_logits=are_logits))


def as_probabilities(answered: Array, form: tuple[int, int], *, are_logits: bool) -> Array:
    """Return answers as probabilities (N, C)."""
    table = answered.astype(np.float64).reshape(len(answered), form[1])
    if are_logits:
        logits = table if form[1] > 1 else np.concatenate([np.zeros_like(table), table], axis=1)
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        return np.asarray(powers / powers.sum(axis=1, keepdims=True))
    return table if form[1] > 1 else np.concatenate([1 - table, table], axis=1)


@pytest.mark.parametrize("are_logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("form", FORMS, ids=IDS)
@settings(deadline=None, max_examples=15)
@given(st.floats(0.1, 5), st.lists(st.floats(-4, 4), min_size=3, max_size=3), st.integers(0, 99))
def test_slope_and_offsets_are_answered(
    form: tuple[int, int],
    are_logits: bool,  # noqa: FBT001
    slope: float,
    offsets: list[float],
    seed: int,
) -> None:
    """In the form that the output has, for every row, sure ones too."""
    correction = Affine(slope, np.asarray([0.0, *offsets][: max(2, form[1])]))
    values = scores(form, are_logits=are_logits, seed=seed)
    (answered,) = run(correct(passing(form), outputs_of(form, are_logits=are_logits), correction), values)
    assert answered.shape == values.shape
    right = expected(values, correction, form, are_logits=are_logits)
    np.testing.assert_allclose(as_probabilities(answered, form, are_logits=are_logits), right, atol=2e-5)


@pytest.mark.parametrize("are_logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("form", [form for form in FORMS if form[1] < 3], ids=["pairs", "column", "line"])
@settings(deadline=None, max_examples=15)
@given(st.integers(2, 40), st.integers(0, 99))
def test_a_curve_is_answered_and_never_falls(
    form: tuple[int, int],
    are_logits: bool,  # noqa: FBT001
    points: int,
    seed: int,
) -> None:
    """Between its points, at them, and beyond them."""
    random = np.random.default_rng(seed)
    places = np.cumsum(random.uniform(0.05, 1, points)).astype(np.float32).astype(np.float64) - 4
    correction = Curve(places, np.sort(random.uniform(0.01, 0.99, points)))
    values = scores(form, are_logits=are_logits, seed=seed)
    (answered,) = run(correct(passing(form), outputs_of(form, are_logits=are_logits), correction), values)
    assert answered.shape == values.shape
    found = as_probabilities(answered, form, are_logits=are_logits)
    np.testing.assert_allclose(found, expected(values, correction, form, are_logits=are_logits), atol=2e-4)
    table = log_scores(values.astype(np.float64).reshape(200, form[1]), are_logits=are_logits)
    assert np.diff(found[np.argsort(table[:, 1] - table[:, 0], kind="stable"), 1]).min() >= -1e-6


CORRECTIONS: list[Correction] = [
    Affine(0.5, np.asarray([0.0, 1.5])),
    Curve(np.asarray([-3.0, 0.0, 2.0]), np.asarray([0.1, 0.6, 0.9])),
]


@pytest.mark.parametrize("correction", CORRECTIONS, ids=["affine", "curve"])
@pytest.mark.parametrize("dtype", list(KINDS))
@pytest.mark.parametrize("form", [FORMS[0], FORMS[2]], ids=["pairs", "column"])
def test_every_kind_of_numbers_stays_what_it_is(form: tuple[int, int], dtype: Any, correction: Correction) -> None:
    """16 and 64 bits as well as 32."""
    values = scores(form, are_logits=False, dtype=dtype)
    made = correct(passing(form, dtype=dtype), outputs_of(form, are_logits=False), correction)
    (answered,) = run(made, values)
    assert answered.dtype == dtype
    right = expected(values, correction, form, are_logits=False)
    atol = 2e-3 if dtype is np.float16 else 2e-5
    np.testing.assert_allclose(as_probabilities(answered, form, are_logits=False), right, atol=atol)


LABELS: list[tuple[int, int, tuple[int | str, ...], list[Any]]] = [
    (TensorProto.INT64, 1, (), [0, 1]),
    (TensorProto.INT64, 2, (3, 7), [3, 7]),
    (TensorProto.INT32, 1, ("3", "7"), [3, 7]),
    (TensorProto.STRING, 1, ("no", "yes"), ["no", "yes"]),
    (TensorProto.STRING, 2, (3, 7), ["3", "7"]),
    (TensorProto.BOOL, 1, (), [False, True]),
]


@pytest.mark.parametrize("correction", CORRECTIONS, ids=["affine", "curve"])
@pytest.mark.parametrize("are_logits", [False, True], ids=["probabilities", "logits"])
@pytest.mark.parametrize("form", [FORMS[0], FORMS[2], FORMS[3]], ids=["pairs", "column", "line"])
@pytest.mark.parametrize("label", LABELS, ids=lambda label: f"{label[0]}-{label[1]}-{len(label[2])}")
def test_labels_follow_the_corrected_probabilities(
    label: tuple[int, int, tuple[int | str, ...], list[Any]],
    form: tuple[int, int],
    are_logits: bool,  # noqa: FBT001
    correction: Correction,
) -> None:
    """Under their own names, with the type and shape that the output had, at its place among the outputs."""
    kind, axes, classes, names = label
    model = passing(form)
    shape: list[str | int] = ["N"] if axes == 1 else ["N", 1]
    first: Any = [b"no"] if kind == TensorProto.STRING else [0]
    constant = helper.make_tensor("a_label", kind, [1] * axes, first)
    model.graph.initializer.append(constant)
    model.graph.node.append(helper.make_node("Identity", ["a_label"], ["label"]))
    model.graph.output.insert(0, helper.make_tensor_value_info("label", kind, shape))
    values = scores(form, are_logits=are_logits)
    told = outputs_of(form, are_logits=are_logits, label="label", label_axes=axes, classes=classes)
    labels, answered = run(correct(model, told, correction), values)
    assert labels.shape == ((200,) if axes == 1 else (200, 1))
    found = as_probabilities(answered, form, are_logits=are_logits)
    clear = np.abs(found[:, 1] - 0.5) > 1e-6
    right = np.asarray(names)[(found[:, 1] > 0.5).astype(int)]
    np.testing.assert_array_equal(labels.reshape(-1)[clear], right[clear])
    assert len(set(right[clear].tolist())) == 2


@pytest.mark.parametrize("correction", CORRECTIONS, ids=["affine", "curve"])
def test_a_row_without_scores_breaks_no_request(correction: Correction) -> None:
    """What is no number stays none, as delivered, and the other rows of the request are answered."""
    values = scores((2, 2), are_logits=False)
    values[5] = np.nan
    (answered,) = run(correct(passing((2, 2)), outputs_of((2, 2), are_logits=False), correction), values)
    assert np.isfinite(np.delete(answered, 5, axis=0)).all()


@pytest.mark.parametrize("opset", [7, 8])
def test_an_old_operator_set_is_converted_first(opset: int) -> None:
    """Where it lacks what is written, onnx converts the graph."""
    model = correct(passing((2, 2), opset=opset), outputs_of((2, 2), are_logits=False), CORRECTIONS[1])
    assert model.opset_import[0].version >= 9
    values = scores((2, 2), are_logits=False)
    right = expected(values, CORRECTIONS[1], (2, 2), are_logits=False)
    np.testing.assert_allclose(run(model, values)[0], right, atol=2e-5)


def test_twice_is_one_after_the_other() -> None:
    """Names of the second correction do not meet those of the first; inner graphs still find what they read."""
    model = passing((2, 2))
    told = outputs_of((2, 2), are_logits=False)
    twice = correct(correct(model, told, CORRECTIONS[0]), told, CORRECTIONS[1])
    values = scores((2, 2), are_logits=False)
    once = expected(values, CORRECTIONS[0], (2, 2), are_logits=False)
    right = CORRECTIONS[1].probabilities(log_scores(once, are_logits=False))
    np.testing.assert_allclose(run(twice, values)[0], right, atol=2e-4)


def test_what_inner_graphs_read_is_what_it_was() -> None:
    """A branch that reads the scores goes on reading those as delivered."""
    model = passing((2, 2))
    branches = {}
    for name in ("then", "else"):
        made = helper.make_tensor_value_info(f"{name}_made", TensorProto.FLOAT, ["N", 2])
        branches[name] = helper.make_graph([helper.make_node("Identity", ["scores"], [made.name])], name, [], [made])
    model.graph.initializer.append(helper.make_tensor("yes", TensorProto.BOOL, [], [True]))
    node = helper.make_node("If", ["yes"], ["copy"], then_branch=branches["then"], else_branch=branches["else"])
    model.graph.node.append(node)
    model.graph.output.append(helper.make_tensor_value_info("copy", TensorProto.FLOAT, ["N", 2]))
    values = scores((2, 2), are_logits=False)
    corrected, copy = run(correct(model, outputs_of((2, 2), are_logits=False), CORRECTIONS[0]), values)
    np.testing.assert_array_equal(copy, values)
    assert np.abs(corrected - values).max() > 0.1


def test_a_graph_that_answers_its_input_is_refused() -> None:
    """Nothing can stand behind an output that no operator makes."""
    model = passing((2, 2))
    model.graph.output[0].name = "x"
    with pytest.raises(UnfitRowsError, match="output x is made by no operator"):
        correct(model, Outputs("x", are_logits=False, width=2, axes=2), CORRECTIONS[0])


def test_names_that_do_not_fit_the_labels_are_refused() -> None:
    """Numbers cannot be text."""
    model = passing((2, 2))
    model.graph.node.append(helper.make_node("ArgMax", ["scores"], ["label"], axis=1, keepdims=0))
    model.graph.output.append(helper.make_tensor_value_info("label", TensorProto.INT64, ["N"]))
    told = outputs_of((2, 2), are_logits=False, label="label", classes=("no", "yes"))
    with pytest.raises(UnfitRowsError, match="the label output has numbers, and the classes have names"):
        correct(model, told, CORRECTIONS[0])
