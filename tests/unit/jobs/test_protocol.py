"""What does not fit the model is refused in words; what fits arrives exactly."""

import json
import math
from typing import Any

import numpy as np
import pytest

from optimizer_jobs.models.engine import EngineError
from optimizer_jobs.models.protocol import InputError, fitted, inputs_of, outputs_as_json, same_rows
from optimizer_jobs.signature import Signature, TensorSpec

SIGNATURE = Signature(
    inputs=(
        TensorSpec(name="x", dtype="float32", shape=(-1, 2)),
        TensorSpec(name="n", dtype="int8", shape=(-1,)),
        TensorSpec(name="word", dtype="str", shape=(-1,)),
        TensorSpec(name="flag", dtype="bool", shape=(-1,)),
    ),
    outputs=(TensorSpec(name="y", dtype="float32", shape=(-1,)), TensorSpec(name="name", dtype="str", shape=(-1,))),
)
GOOD: dict[str, dict[str, Any]] = {
    "x": {"name": "x", "shape": [2, 2], "datatype": "FP32", "data": [1.5, 2, None, 4]},
    "n": {"name": "n", "shape": [2], "datatype": "INT8", "data": [-128, 127]},
    "word": {"name": "word", "shape": [2], "datatype": "BYTES", "data": ["a", "ä"]},
    "flag": {"name": "flag", "shape": [2], "datatype": "BOOL", "data": [True, False]},
}


def body(**changes: Any) -> Any:
    """A body that fits, with fields of some inputs replaced, through JSON as on the wire; None leaves an input out."""
    tensors = [tensor | (changes.get(name) or {}) for name, tensor in GOOD.items() if changes.get(name, {}) is not None]
    return json.loads(json.dumps({"inputs": tensors}))


def test_what_fits_arrives_as_the_model_takes_it() -> None:
    """Numbers in the model's types, null as a missing number, flat or nested data."""
    for data in ([1.5, 2, None, 4], [[1.5, 2], [None, 4]]):
        found = inputs_of(body(x={"data": data}), SIGNATURE)
        assert {name: values.dtype for name, values in found.items()} == {
            "x": np.float32,
            "n": np.int8,
            "word": object,
            "flag": bool,
        }
        np.testing.assert_array_equal(found["x"], np.array([[1.5, 2], [math.nan, 4]], np.float32))
        assert [found[name].tolist() for name in ("n", "word", "flag")] == [[-128, 127], ["a", "ä"], [True, False]]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"x": None}, "Input 'x' is missing."),
        ({"x": {"name": "z"}}, "The model has no input 'z'."),
        ({"x": {"data": None}}, "Input 'x' has no list of data."),
        ({"x": {"data": "AAAA"}}, "Input 'x' has no list of data."),
        ({"x": {"shape": None}}, "Input 'x' has no shape."),
        ({"x": {"shape": [-1, 2]}}, "Input 'x' has no shape."),
        ({"x": {"shape": [True, 4]}}, "Input 'x' has no shape."),
        ({"x": {"shape": [3, 2]}}, "Input 'x' has not the values of its shape [3, 2]."),
        ({"x": {"data": [[1], [2, 3]]}}, "Input 'x' has not the values of its shape [2, 2]."),
        ({"x": {"shape": [4]}}, "Input 'x' has the shape [4], not [-1, 2]."),
        ({"x": {"shape": [1, 4]}}, "Input 'x' has the shape [1, 4], not [-1, 2]."),
        ({"x": {"data": [1, 2, 3, "4"]}}, "Input 'x' has values that are no float32."),
        ({"x": {"data": [1, 2, 3, 1e39]}}, "Input 'x' has values that are no float32."),
        ({"x": {"data": [1, 2, 3, 10**400]}}, "Input 'x' has values that are no float32."),
        ({"x": {"data": [1, 2, 3, {}]}}, "Input 'x' has values that are no float32."),
        ({"n": {"data": [1, 128]}}, "Input 'n' has values that are no int8."),
        ({"n": {"data": [1, 1.5]}}, "Input 'n' has values that are no int8."),
        ({"n": {"data": [1, None]}}, "Input 'n' has values that are no int8."),
        ({"n": {"data": [True, False]}}, "Input 'n' has values that are no int8."),
        ({"word": {"data": ["a", 1]}}, "Input 'word' has values that are no str."),
        ({"word": {"data": [1, 2], "datatype": "INT64"}}, "Input 'word' has values that are no str."),
        ({"flag": {"data": [1, 0]}}, "Input 'flag' has values that are no bool."),
    ],
)
def test_what_does_not_fit_is_refused_in_words(changes: dict[str, Any], sentence: str) -> None:
    """Nothing is rounded, cut off or guessed; the sentence names the input."""
    with pytest.raises(InputError) as caught:
        inputs_of(body(**changes), SIGNATURE)
    assert str(caught.value) == sentence


@pytest.mark.parametrize("content", [None, [], "x", {}, {"inputs": {}}, {"inputs": [1]}, {"instances": [[1, 2]]}])
def test_a_body_of_another_protocol_is_refused(content: object) -> None:
    """Whatever JSON it is."""
    with pytest.raises(InputError, match="Open Inference Protocol v2"):
        inputs_of(content, SIGNATURE)


def test_arrays_are_held_to_the_same() -> None:
    """A server that parses requests by itself gets the same types and refusals."""
    arrays = {"x": np.ones((1, 2)), "n": np.array([3]), "word": np.array(["a"]), "flag": np.array([True])}
    assert fitted(arrays, SIGNATURE)["x"].dtype == np.float32
    with pytest.raises(InputError, match=r"Input 'n' has values that are no int8\."):
        fitted(arrays | {"n": np.array([300])}, SIGNATURE)


def test_rows_are_the_same_for_all_inputs_or_not() -> None:
    """And none is no number of rows."""
    found = inputs_of(body(), SIGNATURE)
    assert same_rows(found, SIGNATURE)
    assert not same_rows(found | {"n": found["n"][:1]}, SIGNATURE)
    assert not same_rows({name: values[:0] for name, values in found.items()}, SIGNATURE)


def test_an_answer_is_json_or_an_error() -> None:
    """Outputs in the model's order, flat; a number that JSON does not have is the model's failure."""
    outputs = {"name": np.array(["a", "b"], object), "y": np.array([0.5, 1], np.float32)}
    assert json.loads(json.dumps(outputs_as_json(outputs, SIGNATURE), allow_nan=False)) == [
        {"name": "y", "datatype": "FP32", "shape": [2], "data": [0.5, 1.0]},
        {"name": "name", "datatype": "BYTES", "shape": [2], "data": ["a", "b"]},
    ]
    with pytest.raises(EngineError, match="'y' is not finite"):
        outputs_as_json(outputs | {"y": np.array([math.inf, 1], np.float32)}, SIGNATURE)
