"""The Open Inference Protocol v2 in JSON: the arrays of a request, and an answer's outputs.

A request is hostile input. What does not fit the model's inputs is the client's fault and refused with a sentence;
nothing is rounded, cut off or guessed to make it fit.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from optimizer_jobs.models.engine import Array, EngineError
from optimizer_jobs.models.golden import DATATYPES
from optimizer_jobs.signature import TEXT, Signature, TensorSpec


class InputError(ValueError):
    """A request that does not fit the model; the message is a sentence for the client."""


def inputs_of(body: object, signature: Signature) -> dict[str, Array]:
    """Return the inputs in the body of an inference request, by name.

    Args:
        body: The parsed JSON.
        signature: Inputs and outputs of the model.

    Raises:
        InputError: The body is none of the protocol's, or does not fit the model.
    """
    tensors = body.get("inputs") if isinstance(body, dict) else None
    if not isinstance(tensors, list) or not all(isinstance(tensor, dict) for tensor in tensors):
        raise InputError("The body has no list of inputs, as the Open Inference Protocol v2 has it.")
    return fitted({str(tensor.get("name")): _array(tensor) for tensor in tensors}, signature)


def fitted(inputs: Mapping[str, Any], signature: Signature) -> dict[str, Array]:
    """Return inputs as arrays of the model's element types; raises InputError where names, types or shapes differ."""
    strange = sorted(inputs.keys() - {spec.name for spec in signature.inputs})
    if strange:
        raise InputError(f"The model has no input {strange[0]!r:.80}.")
    return {spec.name: _fitted(inputs.get(spec.name), spec) for spec in signature.inputs}


def same_rows(inputs: Mapping[str, Array], signature: Signature) -> bool:
    """Return whether all inputs have the same number of rows, at least one."""
    axes = signature.input_axes
    rows = {values.shape[axis] for name, values in inputs.items() if (axis := axes[name]) is not None}
    return len(rows) < 2 and 0 not in rows


def outputs_as_json(outputs: Mapping[str, Array], signature: Signature) -> list[dict[str, Any]]:
    """Return an answer's outputs in the model's order; raises EngineError when a number is not finite."""
    return [_tensor(outputs[spec.name], spec) for spec in signature.outputs]


def metadata(spec: TensorSpec) -> dict[str, Any]:
    """Return an input or output as the protocol's metadata has it; -1 is a free size."""
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(spec.shape)}


def _array(tensor: Mapping[str, Any]) -> Array:
    """Return a tensor's values in its shape, of whatever type they are."""
    name, data, shape = tensor.get("name"), tensor.get("data"), tensor.get("shape")
    if not isinstance(data, list):
        raise InputError(f"Input {name!r:.80} has no list of data.")
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise InputError(f"Input {name!r:.80} has no shape.")
    try:
        return np.asarray(data, dtype=object if tensor.get("datatype") == DATATYPES[TEXT] else None).reshape(shape)
    except (ValueError, OverflowError) as error:
        raise InputError(f"Input {name!r:.80} has not the values of its shape {shape!s:.80}.") from error


def _fitted(values: Any, spec: TensorSpec) -> Array:
    if values is None:
        raise InputError(f"Input {spec.name!r} is missing.")
    array = np.asarray(values)
    if not _fits(array.shape, spec.shape):
        raise InputError(f"Input {spec.name!r} has the shape {list(array.shape)!s:.80}, not {list(spec.shape)}.")
    converted = _converted(array, spec)
    if converted is None:
        raise InputError(f"Input {spec.name!r} has values that are no {spec.dtype}.")
    return converted


def _fits(shape: tuple[int, ...], wanted: tuple[int, ...]) -> bool:
    return len(shape) == len(wanted) and all(size in {-1, has} for has, size in zip(shape, wanted, strict=True))


def _converted(array: Array, spec: TensorSpec) -> Array | None:
    """Return values with the model's element type; None where one of them has no place in it."""
    if spec.dtype == TEXT:
        return _texts(array)
    if spec.is_float:
        return _floats(array, spec.dtype)
    return _whole(array, np.dtype(spec.dtype))


def _texts(array: Array) -> Array | None:
    texts = array.astype(object)
    return texts if all(isinstance(text, str) for text in texts.flat) else None


def _floats(array: Array, dtype: str) -> Array | None:
    """Return numbers as floats; None, which is null in JSON, is a missing one."""
    numbers = array.dtype.kind in "fiu" or all(value is None or isinstance(value, int | float) for value in array.flat)
    try:
        with np.errstate(over="raise"):
            return array.astype(dtype, copy=False) if numbers else None
    except (FloatingPointError, OverflowError):
        return None


def _whole(array: Array, dtype: "np.dtype[Any]") -> Array | None:
    if dtype.kind == "b" or array.size == 0:
        return array.astype(dtype) if array.dtype.kind == dtype.kind or array.size == 0 else None
    if array.dtype.kind not in "iu":
        return None
    limits = np.iinfo(dtype)
    inside = limits.min <= int(array.min()) and int(array.max()) <= limits.max
    return array.astype(dtype, copy=False) if inside else None


def _tensor(values: Array, spec: TensorSpec) -> dict[str, Any]:
    if spec.is_float and not np.isfinite(values).all():
        raise EngineError(f"output {spec.name!r} is not finite, which cannot be written in JSON")
    flat = values.reshape(-1).tolist()
    data = [str(text) for text in flat] if spec.dtype == TEXT else flat
    return {"name": spec.name, "datatype": DATATYPES[spec.dtype], "shape": list(values.shape), "data": data}
