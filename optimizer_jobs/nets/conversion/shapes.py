"""ONNX operators that move values without changing them, in torch. They work on tensors and on sizes."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from optimizer_jobs.nets.conversion.values import (
    DTYPES,
    Attributes,
    Operator,
    Sizes,
    Value,
    as_sizes,
    as_tensor,
    is_number,
    is_size,
    optional_input,
)

_LARGEST = 2**31
"""A slice that ends here or later has no end."""
_MOST_SIZES = 16
"""Whole numbers up to which a constant tensor is taken for sizes."""
_WHOLE = {6, 7}
"""ONNX element types int32 and int64, which sizes may have."""


def _reshape(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, wanted = inputs[0], as_sizes(inputs[1])
    if is_size(value) or isinstance(value, tuple):
        return as_sizes(value) if wanted else as_sizes(value)[0]
    keep = not attributes.get("allowzero", 0)
    sizes = [value.size(axis) if keep and is_number(size, 0) else size for axis, size in enumerate(wanted)]
    if attributes.get("batch"):
        sizes = _batch_kept(value, sizes)
    return value.reshape(_one_open(sizes, split=len(sizes) > value.ndim))


def _batch_kept(tensor: Tensor, sizes: list[Any]) -> list[Any]:
    """Return the sizes with the size of the batch, when it is left open, taken from the tensor."""
    return [tensor.size(0), *sizes[1:]] if sizes and is_number(sizes[0], -1) else sizes


def _one_open(sizes: list[Any], *, split: bool) -> list[Any]:
    """Return the sizes with one left open that follows from the others, usually the number of heads or channels.

    Layers before it can then lose channels without a change of the reshape.
    """
    place = len(sizes) - (2 if split else 1)
    known = place > 0 and (isinstance(sizes[place], Tensor) or sizes[place] > 0)
    if known and not any(is_number(size, -1) for size in sizes):
        return [*sizes[:place], -1, *sizes[place + 1 :]]
    return sizes


def _flatten(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, axis = as_tensor(inputs[0]), attributes.get("axis", 1)
    if axis == 0:
        return tensor.reshape(1, -1)
    return tensor.flatten(axis) if axis == 1 else tensor.flatten(0, axis - 1).flatten(1)


def axes_of(inputs: Sequence[Value], attributes: Attributes, place: int = 1) -> tuple[int, ...] | None:
    """Return the axes of an operator, from the input at this place or from its attribute, or None for the default."""
    value = optional_input(inputs, place)
    axes = attributes.get("axes") if value is None else as_sizes(value)
    return None if axes is None else tuple(int(axis) for axis in axes)


def _squeeze(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, axes = inputs[0], axes_of(inputs, attributes)
    if not isinstance(value, Tensor):
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value
    every = [axis for axis in range(value.ndim) if value.shape[axis] == 1] if axes is None else axes
    for axis in sorted((axis % value.ndim for axis in every), reverse=True):
        value = value.squeeze(axis)
    return value


def _unsqueeze(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, axes = inputs[0], axes_of(inputs, attributes) or ()
    if is_size(value):
        return (value,)
    value = as_tensor(value)
    ndim = value.ndim + len(axes)
    for axis in sorted(axis % ndim for axis in axes):
        value = value.unsqueeze(axis)
    return value


def _concat(inputs: Sequence[Value], attributes: Attributes) -> Value:
    if any(isinstance(value, Tensor) and value.ndim > 0 for value in inputs):
        return torch.cat([as_tensor(value) for value in inputs], dim=attributes["axis"])
    return tuple(size for value in inputs for size in as_sizes(value))


def _slice(inputs: Sequence[Value], attributes: Attributes) -> Value:
    if len(inputs) > 1:
        starts, ends = as_sizes(inputs[1]), as_sizes(inputs[2])
        axes = axes_of(inputs, attributes, 3) or tuple(range(len(starts)))
        steps = (1,) * len(starts) if optional_input(inputs, 4) is None else as_sizes(inputs[4])
    else:
        starts, ends = attributes["starts"], attributes["ends"]
        axes = tuple(attributes.get("axes") or range(len(starts)))
        steps = (1,) * len(starts)
    value = inputs[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        value = _cut(value, _end(start), _end(end), axis=axis, step=step)
    return value


def _end(place: Any) -> Any:
    """Return one end of a slice, or None when the number is beyond any size."""
    return None if isinstance(place, int) and abs(place) >= _LARGEST else place


def _cut(value: Value, start: Any, end: Any, *, axis: int, step: int) -> Value:
    if not isinstance(value, Tensor):
        return value[slice(start, end, step)]
    if step > 0:
        return value[(slice(None),) * (axis % value.ndim) + (slice(start, end, step),)]
    order = torch.arange(value.shape[axis]).tolist()[slice(start, end, step)]
    return value.index_select(axis, torch.tensor(order, dtype=torch.int64, device=value.device))


def _gather(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, index, axis = inputs[0], inputs[1], attributes.get("axis", 0)
    if not isinstance(value, Tensor):
        places = as_sizes(index)
        scalar = not isinstance(index, tuple) and as_tensor(index).ndim == 0
        return as_sizes(value)[places[0]] if scalar else tuple(as_sizes(value)[place] for place in places)
    places = as_tensor(index, value)
    if places.ndim == 0:
        return value.select(axis, int(places))
    flat = value.index_select(axis, places.reshape(-1) % value.shape[axis])
    return flat.reshape(*value.shape[:axis], *places.shape, *value.shape[axis % value.ndim + 1 :])


def _gather_elements(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, axis = as_tensor(inputs[0]), attributes.get("axis", 0)
    return tensor.gather(axis, as_tensor(inputs[1], tensor) % tensor.shape[axis])


def _split(inputs: Sequence[Value], attributes: Attributes) -> tuple[Tensor, ...]:
    tensor, axis = as_tensor(inputs[0]), attributes.get("axis", 0)
    sizes = attributes.get("split") if optional_input(inputs, 1) is None else as_sizes(inputs[1])
    if sizes is not None:
        return tuple(tensor.split([int(size) for size in sizes], dim=axis))
    return tuple(tensor.chunk(attributes["outputs"], dim=axis))


def _transpose(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor = as_tensor(inputs[0])
    return tensor.permute(attributes.get("perm") or tuple(reversed(range(tensor.ndim))))


def _shape(inputs: Sequence[Value], attributes: Attributes) -> Sizes:
    value = inputs[0]
    if not isinstance(value, Tensor):
        return (len(value),) if isinstance(value, tuple) else ()
    sizes = tuple(value.size(axis) for axis in range(value.ndim))
    return sizes[attributes.get("start", 0) : attributes.get("end")]


def _size(inputs: Sequence[Value], _: Attributes) -> Any:
    tensor = as_tensor(inputs[0])
    return math.prod(tensor.size(axis) for axis in range(tensor.ndim))


def _expand(inputs: Sequence[Value], _: Attributes) -> Value:
    value, wanted = inputs[0], as_sizes(inputs[1])
    if not isinstance(value, Tensor) and len(wanted) <= 1 and all(isinstance(size, int) for size in wanted):
        return as_sizes(value) * (wanted[0] if wanted and len(as_sizes(value)) == 1 else 1)
    tensor = as_tensor(value)
    missing = len(wanted) - tensor.ndim
    wanted = (1,) * -missing + wanted
    present = (1,) * missing + tuple(tensor.shape)
    return tensor.expand([own if is_number(size, 1) else size for size, own in zip(wanted, present, strict=True)])


def _constant_of_shape(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, wanted = attributes.get("value", torch.zeros(1)), as_sizes(inputs[0])
    if not value.is_floating_point() and len(wanted) == 1 and isinstance(wanted[0], int) and wanted[0] <= _MOST_SIZES:
        return (value.item(),) * wanted[0]
    return torch.full(wanted, value.item(), dtype=value.dtype)


def _tile(inputs: Sequence[Value], _: Attributes) -> Tensor:
    return as_tensor(inputs[0]).repeat(as_sizes(inputs[1]))


def _range(inputs: Sequence[Value], _: Attributes) -> Tensor:
    start, limit, delta = (as_sizes(value)[0] for value in inputs)
    return torch.arange(start, limit, delta)


def _trilu(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    offset = 0 if optional_input(inputs, 1) is None else int(as_sizes(inputs[1])[0])
    return (torch.triu if attributes.get("upper", 1) else torch.tril)(as_tensor(inputs[0]), offset)


def _cast(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, kind = inputs[0], DTYPES[attributes["to"]]
    if isinstance(value, Tensor):
        return value.to(kind)
    return value if attributes["to"] in _WHOLE else as_tensor(value).to(kind)


MOVES: dict[str, Operator] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Trilu": _trilu,
    "Unsqueeze": _unsqueeze,
}
"""Function of each operator."""
