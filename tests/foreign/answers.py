"""What a model file answers to rows of a user's data, asked through its engine alone.

Nothing of Retune is imported here: the files of a bundle are read as any program could read them.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from tests.foreign.delivered import Array, Columns

MODEL, MANIFEST = "model.onnx", "bundle.json"
AT_ONCE = 128
_HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_TYPES = {"float": "float32", "double": "float64"}
_TABLE = 2

Outputs = dict[str, Array]
Ask = Callable[[Columns], Outputs]


@dataclass(frozen=True)
class Tensor:
    """One input of a model file."""

    name: str
    dtype: str
    """NumPy's name of the type, or `string`."""
    shape: tuple[Any, ...]
    """Sizes; whatever is no number is free."""


def answer_bundle(folder: Path, rows: Columns, *, at_once: int = 1) -> Outputs:
    """Return what the bundle in a folder answers, by the engine that its manifest names, as it serves: row by row.

    A file that is quantized dynamically rounds a row otherwise in the company of others.
    """
    engine = json.loads((folder / MANIFEST).read_text())["engine"]
    return answer_file(folder / MODEL, rows, engine, at_once=at_once)


def answer_file(
    model: Path, rows: Columns, engine: Mapping[str, Any] | None = None, *, at_once: int = AT_ONCE
) -> Outputs:
    """Return every output of a model file for N rows, with N entries in the first axis.

    Args:
        model: The ONNX file.
        rows: Inputs by name, or the columns of a table.
        engine: Engine and options as a bundle's manifest has them; ONNX Runtime's defaults where there are none.
        at_once: Rows of one request, where the file leaves that open.
    """
    inputs, ask = open_file(model, engine or {})
    fed = feeds(inputs, rows)
    count = len(next(iter(fed.values())))
    size = inputs[0].shape[0] if isinstance(inputs[0].shape[0], int) else at_once
    parts = [ask({name: values[at : at + size] for name, values in fed.items()}) for at in range(0, count, size)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def open_file(model: Path, engine: Mapping[str, Any]) -> tuple[list[Tensor], Ask]:
    """Return the inputs of a model file and a function that answers one batch."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(engine.get("threads", 1))
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    inputs = [Tensor(each.name, _type(each.type), tuple(each.shape)) for each in session.get_inputs()]
    names = [each.name for each in session.get_outputs()]
    if engine.get("engine", "onnxruntime") == "openvino":
        return inputs, _openvino(model, engine, inputs, names)
    return inputs, lambda batch: dict(zip(names, session.run(names, dict(batch)), strict=True))


def _openvino(model: Path, engine: Mapping[str, Any], inputs: Sequence[Tensor], names: Sequence[str]) -> Ask:
    import openvino

    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": int(engine.get("threads", 1)),
        "INFERENCE_PRECISION_HINT": _HINTS[engine.get("precision", "float32")],
    }
    compiled = openvino.compile_model(str(model), "CPU", settings)

    def ask(batch: Columns) -> Outputs:
        answers = compiled([batch[tensor.name] for tensor in inputs])
        return {name: answers[number] for number, name in enumerate(names)}

    return ask


def feeds(inputs: Sequence[Tensor], rows: Columns) -> dict[str, Array]:
    """Return the inputs of a model from the columns of a data file.

    A model with one input takes all columns as one matrix; of several inputs, each takes the column of its name.
    """
    if len(inputs) == 1 and inputs[0].name not in rows:
        return {inputs[0].name: _matrix(inputs[0], list(rows.values()))}
    return {tensor.name: _column(tensor, rows[tensor.name]) for tensor in inputs}


def _matrix(tensor: Tensor, columns: Sequence[Array]) -> Array:
    if len(columns) == 1:
        return _column(tensor, columns[0])
    return np.column_stack([_cast(tensor, values) for values in columns])


def _column(tensor: Tensor, values: Array) -> Array:
    cast = _cast(tensor, values)
    return cast.reshape(-1, 1) if cast.ndim == 1 and len(tensor.shape) == _TABLE else cast


def _cast(tensor: Tensor, values: Array) -> Array:
    """Return values in the type of an input; a missing cell of text is an empty text."""
    if tensor.dtype != "string":
        return np.asarray(values).astype(tensor.dtype)
    return np.asarray(["" if value is None or value != value else str(value) for value in values], dtype=object)  # noqa: PLR0124 - NaN alone differs from itself


def _type(name: str) -> str:
    element = name.removeprefix("tensor(").removesuffix(")")
    return _TYPES.get(element, element)
