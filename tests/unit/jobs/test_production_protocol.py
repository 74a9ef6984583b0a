"""Tensors as bytes after their JSON are read as those in JSON are, and what lies about its size is refused."""

import json
import struct
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from optimizer_jobs.production.protocol import UnfitEventError, parse_body, tensors
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

Json = dict[str, Any]
ANSWER = TensorSpec(name="y", dtype="float32", shape=(-1,))


def signature(*inputs: TensorSpec) -> Signature:
    """A model with these inputs."""
    return Signature(inputs=inputs, outputs=(ANSWER,))


def body(tensor_of: list[tuple[Json, bytes]], **more: Any) -> bytes:
    """A request whose tensors have these bytes."""
    inputs = [tensor | {"parameters": {"binary_data_size": len(content)}} for tensor, content in tensor_of]
    return json.dumps({"inputs": inputs, **more}).encode() + b"".join(content for _, content in tensor_of)


@pytest.mark.parametrize(
    ("word", "name"),
    [
        ("FP16", "float16"),
        ("FP32", "float32"),
        ("FP64", "float64"),
        ("INT8", "int8"),
        ("INT64", "int64"),
        ("UINT8", "uint8"),
        ("UINT64", "uint64"),
        ("BOOL", "bool"),
    ],
)
def test_every_type_of_number_comes_back(word: str, name: str) -> None:
    """To the last bit, whether the body says where its JSON ends or not."""
    values: NDArray[Any] = np.array([[0, 1, 1], [1, 0, 1]]).astype(name)
    sent = body([({"name": "x", "shape": [2, 3], "datatype": word}, values.tobytes())])
    found = tensors(parse_body(sent), "request", signature(TensorSpec(name="x", dtype=name, shape=(-1, 3))))
    np.testing.assert_array_equal(found["x"], values)
    assert found["x"].dtype == values.dtype


def test_texts_come_back_and_may_hold_anything() -> None:
    """Each has its length before it; JSON and bytes may be mixed in one request."""
    words = ["", "naïve {]", "日本"]
    content = b"".join(struct.pack("<I", len(word.encode())) + word.encode() for word in words)
    number = {"name": "n", "shape": [3, 1], "datatype": "INT64", "data": [1, 2, 3]}
    head = json.loads(body([({"name": "x", "shape": [3, 1], "datatype": "BYTES"}, content)]).split(b"}]}")[0] + b"}]}")
    sent = json.dumps({"inputs": [number, *head["inputs"]]}).encode() + content
    specs = TensorSpec(name="x", dtype=TEXT, shape=(-1, 1)), TensorSpec(name="n", dtype="int64", shape=(-1, 1))
    found = tensors(parse_body(sent), "request", signature(*specs))
    assert found["x"].ravel().tolist() == words
    assert found["n"].ravel().tolist() == [1, 2, 3]


X = TensorSpec(name="x", dtype="float32", shape=(-1, 2))
GOOD = np.zeros((1, 2), np.float32).tobytes()


@pytest.mark.parametrize(
    ("tensor", "content"),
    [
        ({"datatype": "FP32", "shape": [1, 2]}, GOOD[:7]),
        ({"datatype": "FP32", "shape": [1, 2]}, GOOD + GOOD),
        ({"datatype": "FP32", "shape": [1 << 50, 2]}, GOOD),
        ({"datatype": "FP32", "shape": [-1, 2]}, GOOD),
        ({"datatype": "FP32", "shape": [True, None]}, GOOD),
        ({"datatype": "FP32"}, GOOD),
        ({"datatype": "FP7", "shape": [1, 2]}, GOOD),
        ({"datatype": ["FP32"], "shape": [1, 2]}, GOOD),
        ({"shape": [1, 2]}, GOOD),
        ({"datatype": "BYTES", "shape": [1, 2]}, b"\xff\xff\xff\x7f"),
        ({"datatype": "BYTES", "shape": [1, 1]}, b"\x01\x00\x00\x00\xff"),
    ],
)
def test_bytes_that_are_not_what_their_tensor_says_are_refused(tensor: Json, content: bytes) -> None:
    """With a sentence, and without memory for what is only claimed."""
    with pytest.raises(UnfitEventError, match=r"[a-z].*\.$"):
        tensors(parse_body(body([({"name": "x", **tensor}, content)])), "request", signature(X))


@pytest.mark.parametrize("size", [-1, 9, 1 << 60, "8", 8.0, [8]])
def test_a_size_that_is_none_is_refused(size: object) -> None:
    """It would be read beyond the end, or backwards."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP32", "parameters": {"binary_data_size": size}}
    with pytest.raises(UnfitEventError, match="end before those of its tensors"):
        tensors(parse_body(json.dumps({"inputs": [tensor]}).encode() + GOOD), "request", signature(X))


def test_bytes_of_nobody_are_refused() -> None:
    """More came than any tensor has."""
    sent = body([({"name": "x", "shape": [1, 2], "datatype": "FP32"}, GOOD)]) + b"more"
    with pytest.raises(UnfitEventError, match="more bytes after the JSON"):
        tensors(parse_body(sent), "request", signature(X))


@pytest.mark.parametrize(
    ("name", "data"),
    [("int64", [1.5, 2.0]), ("int8", [300, 1]), ("bool", [2, 0]), (TEXT, [1, "a"]), (TEXT, ["a" * 70_000, "b"])],
)
def test_values_that_the_model_cannot_hold_are_refused(name: str, data: list[Any]) -> None:
    """They would become other values in silence."""
    tensor = {"name": "x", "shape": [1, 2], "datatype": "any", "data": data}
    with pytest.raises(UnfitEventError, match="tensor 'x' has"):
        tensors(
            parse_body(json.dumps({"inputs": [tensor]}).encode()),
            "request",
            signature(TensorSpec(name="x", dtype=name, shape=(-1, 2))),
        )
