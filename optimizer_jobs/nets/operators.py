"""ONNX operators in torch, one function each: what the importer's module computes node by node.

Sizes are tuples of whole numbers, not tensors, so that an export keeps free axes free. Only operators are here that a
gradient passes, or that work on sizes.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

Sizes = tuple[Any, ...]
"""Whole numbers, maybe known only when the module runs."""
Value = Any
"""A tensor, sizes, one number, or None where an optional input is left out."""
Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Value], Attributes], Value]


def as_tensor(value: Value, like: Tensor | None = None) -> Tensor:
    """Return a value as a tensor; sizes become whole numbers."""
    if isinstance(value, Tensor):
        return value
    device = like.device if like is not None else None
    if isinstance(value, tuple):
        return torch.stack([torch.as_tensor(each, device=device) for each in value]) if value else torch.zeros(0)
    return torch.as_tensor(value, device=device)


def as_sizes(value: Value) -> Sizes:
    """Return a value as sizes; a tensor of several must be known by now, a single one may be free while traced."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, Tensor) and value.ndim > 0:
        return tuple(value.reshape(-1).tolist())
    return (value,)


def _elementwise(function: Callable[..., Any]) -> Operator:
    """Two operands, tensors or sizes."""

    def run(inputs: Sequence[Value], _: Attributes) -> Value:
        left, right = inputs
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            return function(as_tensor(left), as_tensor(right))
        if not isinstance(left, tuple) and not isinstance(right, tuple):
            return function(left, right)
        pairs = _paired(as_sizes(left), as_sizes(right))
        return tuple(function(one, other) for one, other in pairs)

    return run


def _paired(left: Sizes, right: Sizes) -> list[tuple[Any, Any]]:
    length = max(len(left), len(right))
    return list(zip(left * (length // len(left)), right * (length // len(right)), strict=True))


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, Tensor) and not left.is_floating_point():
        return torch.div(left, right, rounding_mode="trunc")
    return left / right if isinstance(left, Tensor) else left // right


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, _: function(as_tensor(inputs[0]))


def _cast(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value = inputs[0]
    if not isinstance(value, Tensor):
        return value if attributes["to"] in _WHOLE else as_tensor(value).to(DTYPES[attributes["to"]])
    return value.to(DTYPES[attributes["to"]])


DTYPES = {1: torch.float32, 3: torch.int8, 6: torch.int32, 7: torch.int64, 9: torch.bool, 10: torch.float16,
          11: torch.float64, 16: torch.bfloat16}  # fmt: skip
"""ONNX element types in torch."""
_WHOLE = {6, 7}


def _reshape(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, wanted = as_tensor(inputs[0]), as_sizes(inputs[1])
    keep = not attributes.get("allowzero", 0)
    sizes = [tensor.size(axis) if keep and _is(size, 0) else size for axis, size in enumerate(wanted)]
    return tensor.reshape(_one_open(sizes, split=len(sizes) > tensor.ndim))


def _one_open(sizes: list[Any], *, split: bool) -> list[Any]:
    """Return the sizes with one that follows from the others left open: the number of heads or channels, usually.

    So that the layers before it can lose some of theirs without anything else to change.
    """
    place = len(sizes) - (2 if split else 1)
    if place > 0 and isinstance(sizes[place], int) and sizes[place] > 0 and not any(_is(size, -1) for size in sizes):
        return [*sizes[:place], -1, *sizes[place + 1 :]]
    return sizes


def _is_size(value: Value) -> bool:
    """Return whether a value is one whole number: while a module is traced, sizes are tensors without axes."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_floating_point()
    return not isinstance(value, tuple)


def _is(size: Any, number: int) -> bool:
    """Return whether a size is known to be a number; a free one is not."""
    return isinstance(size, int) and size == number


def _flatten(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, axis = as_tensor(inputs[0]), attributes.get("axis", 1)
    if axis == 0:
        return tensor.reshape(1, -1)
    return tensor.flatten(axis) if axis == 1 else tensor.flatten(0, axis - 1).flatten(1)


def _axes(inputs: Sequence[Value], attributes: Attributes, place: int = 1) -> tuple[int, ...] | None:
    if len(inputs) > place and inputs[place] is not None:
        return tuple(int(axis) for axis in as_sizes(inputs[place]))
    axes = attributes.get("axes")
    return tuple(axes) if axes is not None else None


def _squeeze(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, axes = inputs[0], _axes(inputs, attributes)
    if not isinstance(value, Tensor):
        return value[0] if isinstance(value, tuple) and len(value) == 1 else value
    for axis in sorted((axis % value.ndim for axis in axes or range(value.ndim)), reverse=True):
        value = value.squeeze(axis)
    return value


def _unsqueeze(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, axes = inputs[0], _axes(inputs, attributes) or ()
    if _is_size(value):
        return (value,)
    if not isinstance(value, Tensor):
        return value
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
        axes = _axes(inputs, attributes, 3) or tuple(range(len(starts)))
        steps = as_sizes(inputs[4]) if len(inputs) > 4 and inputs[4] is not None else (1,) * len(starts)
    else:
        starts, ends = attributes["starts"], attributes["ends"]
        axes = tuple(attributes.get("axes") or range(len(starts)))
        steps = (1,) * len(starts)
    value = inputs[0]
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        end = None if _is(end, end) and end > 2**31 else end  # noqa: PLW2901
        chosen = slice(start, end, step)
        if not isinstance(value, Tensor):
            value = value[chosen]
        elif step > 0:
            value = value[(slice(None),) * (axis % value.ndim) + (chosen,)]
        else:
            order = torch.arange(value.shape[axis])[chosen.start if start >= 0 else None :: step]
            value = value.index_select(axis, order)
    return value


def _gather(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value, index, axis = inputs[0], inputs[1], attributes.get("axis", 0)
    if not isinstance(value, Tensor):
        places = as_sizes(index)
        scalar = not isinstance(index, tuple) and as_tensor(index).ndim == 0
        return value[places[0]] if scalar else tuple(value[place] for place in places)
    places = as_tensor(index, value)
    if places.ndim == 0:
        return value.select(axis, int(places))
    flat = value.index_select(axis, places.reshape(-1) % value.shape[axis])
    return flat.reshape(*value.shape[:axis], *places.shape, *value.shape[axis % value.ndim + 1 :])


def _split(inputs: Sequence[Value], attributes: Attributes) -> tuple[Tensor, ...]:
    tensor, axis = as_tensor(inputs[0]), attributes.get("axis", 0)
    if len(inputs) > 1 and inputs[1] is not None:
        return tuple(tensor.split([int(size) for size in as_sizes(inputs[1])], dim=axis))
    sizes = attributes.get("split")
    return tuple(tensor.split(list(sizes), dim=axis) if sizes else tensor.chunk(attributes["outputs"], dim=axis))


def _transpose(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor = as_tensor(inputs[0])
    return tensor.permute(attributes.get("perm") or tuple(reversed(range(tensor.ndim))))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def run(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
        tensor, axes = as_tensor(inputs[0]), _axes(inputs, attributes)
        keep = bool(attributes.get("keepdims", 1))
        if axes is None:
            if attributes.get("noop_with_empty_axes", 0):
                return tensor
            axes = tuple(range(tensor.ndim))
        return function(tensor, dim=axes, keepdim=keep)

    return run


def _gemm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    left, right = as_tensor(inputs[0]), as_tensor(inputs[1])
    left = left.transpose(0, 1) if attributes.get("transA", 0) else left
    right = right.transpose(0, 1) if attributes.get("transB", 0) else right
    product = attributes.get("alpha", 1.0) * (left @ right)
    if len(inputs) > 2 and inputs[2] is not None:
        product = product + attributes.get("beta", 1.0) * as_tensor(inputs[2])
    return product


def _pads(attributes: Attributes, axes: int) -> tuple[list[int], list[int]]:
    pads = list(attributes.get("pads") or [0] * (2 * axes))
    return pads[:axes], pads[axes:]


def padded(tensor: Tensor, attributes: Attributes, axes: int, value: float = 0.0) -> Tensor:
    """Return a tensor with the padding of a convolution or a pool around its last axes."""
    before, after = _pads(attributes, axes)
    if not any(before) and not any(after):
        return tensor
    pairs = [size for axis in reversed(range(axes)) for size in (before[axis], after[axis])]
    return functional.pad(tensor, pairs, value=value)


def _pool(kind: str, value: float) -> Operator:
    def run(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
        tensor, kernel = as_tensor(inputs[0]), list(attributes["kernel_shape"])
        function = getattr(functional, f"{kind}_pool{len(kernel)}d")
        options: dict[str, Any] = {"stride": list(attributes.get("strides") or [1] * len(kernel)),
                                   "ceil_mode": bool(attributes.get("ceil_mode", 0))}  # fmt: skip
        before, after = _pads(attributes, len(kernel))
        if kind == "avg" and before == after:
            options |= {"padding": before, "count_include_pad": bool(attributes.get("count_include_pad", 0))}
            return function(tensor, kernel, **options)
        return function(padded(tensor, attributes, len(kernel), value), kernel, **options)

    return run


def _global_average(inputs: Sequence[Value], _: Attributes) -> Tensor:
    tensor = as_tensor(inputs[0])
    return tensor.mean(dim=tuple(range(2, tensor.ndim)), keepdim=True)


def _clip(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    given = [*inputs[1:], None, None][:2] if len(inputs) > 1 else [attributes.get("min"), attributes.get("max")]
    low, high = (None if bound is None else float(as_tensor(bound)) for bound in given)
    tensor = as_tensor(inputs[0])
    return tensor if low is None and high is None else tensor.clamp(low, high)


def _expand(inputs: Sequence[Value], _: Attributes) -> Tensor:
    tensor, wanted = as_tensor(inputs[0]), as_sizes(inputs[1])
    missing = len(wanted) - tensor.ndim
    have = (1,) * missing + tuple(tensor.shape)
    return tensor.expand([there if _is(size, 1) else size for size, there in zip(wanted, have, strict=True)])


def _constant_of_shape(inputs: Sequence[Value], attributes: Attributes) -> Value:
    value = attributes.get("value", torch.zeros(1))
    return torch.full(as_sizes(inputs[0]), value.item(), dtype=value.dtype)


def _range(inputs: Sequence[Value], _: Attributes) -> Tensor:
    start, limit, delta = (as_sizes(value)[0] for value in inputs)
    return torch.arange(start, limit, delta)


def _where(inputs: Sequence[Value], _: Attributes) -> Value:
    if not any(isinstance(value, Tensor) for value in inputs):
        chosen, left, right = (as_sizes(value) for value in inputs)
        return tuple(one if pick else other for pick, one, other in zip(chosen, left, right, strict=True))
    return torch.where(*(as_tensor(value) for value in inputs))


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def run(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
        tensor = as_tensor(inputs[0])
        axis = attributes.get("axis", -1 if attributes["opset"] >= 13 else 1)
        if attributes["opset"] < 13 and axis % tensor.ndim != tensor.ndim - 1:
            return function(tensor.flatten(axis), dim=-1).reshape(tensor.shape)
        return function(tensor, dim=axis)

    return run


def _layer_norm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, scale = as_tensor(inputs[0]), as_tensor(inputs[1])
    bias = as_tensor(inputs[2]) if len(inputs) > 2 and inputs[2] is not None else None
    return functional.layer_norm(tensor, scale.shape, scale, bias, attributes.get("epsilon", 1e-5))


def _shape(inputs: Sequence[Value], attributes: Attributes) -> Sizes:
    tensor = as_tensor(inputs[0])
    sizes = tuple(tensor.size(axis) for axis in range(tensor.ndim))
    return sizes[attributes.get("start", 0) : attributes.get("end")]


def _pad(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor = as_tensor(inputs[0])
    pads = [int(size) for size in (as_sizes(inputs[1]) if len(inputs) > 1 else attributes["pads"])]
    value = float(as_tensor(inputs[2])) if len(inputs) > 2 and inputs[2] is not None else 0.0
    return padded(tensor, {"pads": pads}, tensor.ndim, value)


def _norm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    return functional.normalize(as_tensor(inputs[0]), p=attributes.get("p", 2), dim=attributes.get("axis", -1))


def _gelu(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    approximate = attributes.get("approximate", b"none")
    return functional.gelu(as_tensor(inputs[0]), approximate=getattr(approximate, "decode", str)())


OPERATORS: Mapping[str, Operator] = {
    "Abs": _unary(torch.abs), "Add": _elementwise(lambda a, b: a + b), "And": _elementwise(torch.logical_and),
    "AveragePool": _pool("avg", 0.0), "Cast": _cast, "Ceil": _unary(torch.ceil), "Clip": _clip, "Concat": _concat,
    "ConstantOfShape": _constant_of_shape, "Cos": _unary(torch.cos), "Div": _elementwise(_divide),
    "Dropout": lambda inputs, _: inputs[0], "Elu": lambda inputs, a: functional.elu(inputs[0], a.get("alpha", 1.0)),
    "Equal": _elementwise(lambda a, b: a == b), "Erf": _unary(torch.erf), "Exp": _unary(torch.exp),
    "Expand": _expand, "Flatten": _flatten, "Floor": _unary(torch.floor), "Gather": _gather, "Gelu": _gelu,
    "Gemm": _gemm, "GlobalAveragePool": _global_average, "Greater": _elementwise(lambda a, b: a > b),
    "GreaterOrEqual": _elementwise(lambda a, b: a >= b),
    "HardSigmoid": lambda inputs, a: (a.get("alpha", 0.2) * inputs[0] + a.get("beta", 0.5)).clamp(0, 1),
    "HardSwish": _unary(functional.hardswish), "Identity": lambda inputs, _: inputs[0],
    "LayerNormalization": _layer_norm,
    "LeakyRelu": lambda inputs, a: functional.leaky_relu(inputs[0], a.get("alpha", 0.01)),
    "Less": _elementwise(lambda a, b: a < b), "LessOrEqual": _elementwise(lambda a, b: a <= b),
    "Log": _unary(torch.log), "LogSoftmax": _softmax(torch.log_softmax), "LpNormalization": _norm,
    "MatMul": lambda inputs, _: as_tensor(inputs[0]) @ as_tensor(inputs[1]),
    "Max": _elementwise(lambda a, b: torch.maximum(as_tensor(a), as_tensor(b))), "MaxPool": _pool("max", -math.inf),
    "Min": _elementwise(lambda a, b: torch.minimum(as_tensor(a), as_tensor(b))), "Mish": _unary(functional.mish),
    "Mul": _elementwise(lambda a, b: a * b), "Neg": _unary(torch.neg), "Not": _unary(torch.logical_not),
    "Or": _elementwise(torch.logical_or),
    "PRelu": lambda inputs, _: torch.where(inputs[0] > 0, 1, inputs[1]) * inputs[0], "Pad": _pad,
    "Pow": _elementwise(lambda a, b: a**b), "Range": _range, "Reciprocal": _unary(torch.reciprocal),
    "ReduceL2": _reduce(lambda t, dim, keepdim: t.square().sum(dim, keepdim).sqrt()),
    "ReduceMax": _reduce(torch.amax), "ReduceMean": _reduce(torch.mean), "ReduceMin": _reduce(torch.amin),
    "ReduceSum": _reduce(torch.sum), "Relu": _unary(torch.relu), "Reshape": _reshape, "Shape": _shape,
    "Sigmoid": _unary(torch.sigmoid), "Sin": _unary(torch.sin), "Slice": _slice, "Softmax": _softmax(torch.softmax),
    "Softplus": _unary(functional.softplus), "Split": _split, "Sqrt": _unary(torch.sqrt), "Squeeze": _squeeze,
    "Sub": _elementwise(lambda a, b: a - b), "Tanh": _unary(torch.tanh), "Transpose": _transpose,
    "Unsqueeze": _unsqueeze, "Where": _where,
}  # fmt: skip
"""Operator to its function; layers with weights are modules of their own (`nets.layers`)."""
