"""ONNX operators in torch, one function for each: an imported module computes its nodes with them.

All of them let a gradient pass, or work on sizes. Operators that only move values are in `shapes`, those with a window
in `padding`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from optimizer_jobs.nets.conversion import padding
from optimizer_jobs.nets.conversion.shapes import MOVES, axes_of
from optimizer_jobs.nets.conversion.values import (
    Attributes,
    Operator,
    Sizes,
    Value,
    as_sizes,
    as_tensor,
    number_of,
    optional_input,
)


def _elementwise(function: Callable[..., Any]) -> Operator:
    """Return an operator of two or more operands, which are tensors or sizes."""

    def pair(left: Value, right: Value) -> Value:
        if isinstance(left, Tensor) or isinstance(right, Tensor):
            return function(as_tensor(left), as_tensor(right))
        if not isinstance(left, tuple) and not isinstance(right, tuple):
            return function(left, right)
        return tuple(function(*sizes) for sizes in _paired(as_sizes(left), as_sizes(right)))

    return lambda inputs, _: reduce(pair, inputs)


def _paired(left: Sizes, right: Sizes) -> list[tuple[Any, Any]]:
    """Return sizes in pairs; a single one is repeated."""
    length = max(len(left), len(right))
    return list(zip(left * (length // len(left)), right * (length // len(right)), strict=True))


def _divide(left: Any, right: Any) -> Any:
    if isinstance(left, Tensor) and not left.is_floating_point():
        return torch.div(left, right, rounding_mode="trunc")
    return left / right if isinstance(left, Tensor) else left // right


def _mod(inputs: Sequence[Value], attributes: Attributes) -> Value:
    if attributes.get("fmod", 0):
        return torch.fmod(as_tensor(inputs[0]), as_tensor(inputs[1]))
    return _elementwise(lambda a, b: a % b)(inputs, attributes)


def _mean(inputs: Sequence[Value], _: Attributes) -> Tensor:
    return sum(inputs[1:], start=inputs[0]) / len(inputs)


def _unary(function: Callable[[Tensor], Tensor]) -> Operator:
    return lambda inputs, _: function(as_tensor(inputs[0]))


def _with(function: Callable[..., Tensor], **defaults: float) -> Operator:
    """Return an activation whose parameters are attributes with these defaults."""
    return lambda inputs, attributes: function(inputs[0], *(attributes.get(name, defaults[name]) for name in defaults))


def _reduce(function: Callable[..., Tensor]) -> Operator:
    def run(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
        tensor, axes = as_tensor(inputs[0]), axes_of(inputs, attributes)
        if not axes:
            if attributes.get("noop_with_empty_axes", 0):
                return tensor
            axes = tuple(range(tensor.ndim))
        return function(tensor, dim=axes, keepdim=bool(attributes.get("keepdims", 1)))

    return run


def _product(tensor: Tensor, dim: tuple[int, ...], *, keepdim: bool) -> Tensor:
    for axis in sorted((axis % tensor.ndim for axis in dim), reverse=True):
        tensor = tensor.prod(axis, keepdim=keepdim)
    return tensor


def _arg(function: Callable[..., Tensor]) -> Operator:
    return lambda inputs, attributes: function(
        inputs[0], dim=attributes.get("axis", 0), keepdim=bool(attributes.get("keepdims", 1))
    )


def _gemm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    left, right = as_tensor(inputs[0]), as_tensor(inputs[1])
    left = left.transpose(0, 1) if attributes.get("transA", 0) else left
    right = right.transpose(0, 1) if attributes.get("transB", 0) else right
    product = attributes.get("alpha", 1.0) * (left @ right)
    if optional_input(inputs, 2) is not None:
        product = product + attributes.get("beta", 1.0) * as_tensor(inputs[2])
    return product


def _clip(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    if len(inputs) > 1:
        bounds = [optional_input(inputs, 1), optional_input(inputs, 2)]
    else:
        bounds = [attributes.get("min"), attributes.get("max")]
    low, high = (None if bound is None else number_of(bound) for bound in bounds)
    tensor = as_tensor(inputs[0])
    return tensor if low is None and high is None else tensor.clamp(low, high)


def _where(inputs: Sequence[Value], _: Attributes) -> Value:
    if not any(isinstance(value, Tensor) for value in inputs):
        chosen, left, right = (as_sizes(value) for value in inputs)
        return tuple(yes if choice else no for choice, yes, no in zip(chosen, left, right, strict=True))
    return torch.where(*(as_tensor(value) for value in inputs))


def _softmax(function: Callable[..., Tensor]) -> Operator:
    def run(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
        tensor, old = as_tensor(inputs[0]), attributes["opset"] < 13
        axis = attributes.get("axis", 1 if old else -1)
        if old and axis % tensor.ndim != tensor.ndim - 1:
            return function(tensor.flatten(axis), dim=-1).reshape(tensor.shape)
        return function(tensor, dim=axis)

    return run


def _batch_norm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, scale, bias, mean, variance = (as_tensor(value) for value in inputs)
    return functional.batch_norm(tensor, mean, variance, scale, bias, eps=attributes.get("epsilon", 1e-5))


def _layer_norm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, scale = as_tensor(inputs[0]), as_tensor(inputs[1])
    shape = tensor.shape[attributes.get("axis", -1) :]
    normal = functional.layer_norm(tensor, list(shape), eps=attributes.get("epsilon", 1e-5)) * scale
    return normal if optional_input(inputs, 2) is None else normal + as_tensor(inputs[2])


def _instance_norm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, scale, bias = (as_tensor(value) for value in inputs)
    return functional.instance_norm(tensor, weight=scale, bias=bias, eps=attributes.get("epsilon", 1e-5))


def _group_norm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, scale, bias = (as_tensor(value) for value in inputs)
    return functional.group_norm(tensor, attributes["num_groups"], scale, bias, attributes.get("epsilon", 1e-5))


def _norm(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    return functional.normalize(as_tensor(inputs[0]), p=attributes.get("p", 2), dim=attributes.get("axis", -1))


def _gelu(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    return functional.gelu(as_tensor(inputs[0]), approximate=attributes.get("approximate", b"none").decode())


def _einsum(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    return torch.einsum(attributes["equation"].decode(), *inputs)


def _cum_sum(inputs: Sequence[Value], _: Attributes) -> Tensor:
    return as_tensor(inputs[0]).cumsum(int(as_sizes(inputs[1])[0]))


def _scaler(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor = as_tensor(inputs[0]).float()
    return (tensor - torch.tensor(attributes["offset"])) * torch.tensor(attributes["scale"])


def _normalizer(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    tensor, kind = as_tensor(inputs[0]), attributes.get("norm", b"MAX")
    if kind == b"MAX":
        return tensor / tensor.amax(-1, keepdim=True)
    return functional.normalize(tensor, p={b"L1": 1.0, b"L2": 2.0}[kind], dim=-1)


ARITHMETIC: dict[str, Operator] = {
    "Abs": _unary(torch.abs),
    "Add": _elementwise(lambda a, b: a + b),
    "And": _elementwise(torch.logical_and),
    "ArgMax": _arg(torch.argmax),
    "ArgMin": _arg(torch.argmin),
    "Ceil": _unary(torch.ceil),
    "Clip": _clip,
    "Cos": _unary(torch.cos),
    "CumSum": _cum_sum,
    "Div": _elementwise(_divide),
    "Einsum": _einsum,
    "Equal": _elementwise(lambda a, b: a == b),
    "Erf": _unary(torch.erf),
    "Exp": _unary(torch.exp),
    "Floor": _unary(torch.floor),
    "Gemm": _gemm,
    "Greater": _elementwise(lambda a, b: a > b),
    "GreaterOrEqual": _elementwise(lambda a, b: a >= b),
    "IsNaN": _unary(torch.isnan),
    "Less": _elementwise(lambda a, b: a < b),
    "LessOrEqual": _elementwise(lambda a, b: a <= b),
    "Log": _unary(torch.log),
    "MatMul": lambda inputs, _: as_tensor(inputs[0]) @ as_tensor(inputs[1]),
    "Max": _elementwise(lambda a, b: torch.maximum(as_tensor(a), as_tensor(b))),
    "Mean": _mean,
    "Min": _elementwise(lambda a, b: torch.minimum(as_tensor(a), as_tensor(b))),
    "Mod": _mod,
    "Mul": _elementwise(lambda a, b: a * b),
    "Neg": lambda inputs, _: -as_tensor(inputs[0]),
    "Not": _unary(torch.logical_not),
    "Or": _elementwise(torch.logical_or),
    "Pow": _elementwise(lambda a, b: a**b),
    "Reciprocal": _unary(torch.reciprocal),
    "Round": _unary(torch.round),
    "Sign": _unary(torch.sign),
    "Sin": _unary(torch.sin),
    "Sqrt": _unary(torch.sqrt),
    "Sub": _elementwise(lambda a, b: a - b),
    "Sum": _elementwise(lambda a, b: a + b),
    "Where": _where,
    "Xor": _elementwise(torch.logical_xor),
}

REDUCTIONS: dict[str, Operator] = {
    "ReduceL1": _reduce(lambda t, dim, keepdim: t.abs().sum(dim, keepdim)),
    "ReduceL2": _reduce(lambda t, dim, keepdim: t.square().sum(dim, keepdim).sqrt()),
    "ReduceLogSumExp": _reduce(torch.logsumexp),
    "ReduceMax": _reduce(torch.amax),
    "ReduceMean": _reduce(torch.mean),
    "ReduceMin": _reduce(torch.amin),
    "ReduceProd": _reduce(_product),
    "ReduceSum": _reduce(torch.sum),
    "ReduceSumSquare": _reduce(lambda t, dim, keepdim: t.square().sum(dim, keepdim)),
}

ACTIVATIONS: dict[str, Operator] = {
    "Celu": _with(functional.celu, alpha=1.0),
    "Dropout": lambda inputs, _: inputs[0],
    "Elu": _with(functional.elu, alpha=1.0),
    "Gelu": _gelu,
    "HardSigmoid": _with(lambda t, alpha, beta: (alpha * t + beta).clamp(0, 1), alpha=0.2, beta=0.5),
    "HardSwish": _unary(functional.hardswish),
    "Identity": lambda inputs, _: inputs[0],
    "LeakyRelu": _with(functional.leaky_relu, alpha=0.01),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Mish": _unary(functional.mish),
    "PRelu": lambda inputs, _: torch.where(inputs[0] > 0, 1, inputs[1]) * inputs[0],
    "Relu": _unary(torch.relu),
    "Selu": _with(lambda t, alpha, gamma: gamma * functional.elu(t, alpha), alpha=1.67326319, gamma=1.05070102),
    "Sigmoid": _unary(torch.sigmoid),
    "Softmax": _softmax(torch.softmax),
    "Softplus": _unary(functional.softplus),
    "Softsign": _unary(functional.softsign),
    "Swish": _with(lambda t, alpha: t * torch.sigmoid(alpha * t), alpha=1.0),
    "Tanh": _unary(torch.tanh),
    "ThresholdedRelu": _with(lambda t, alpha: torch.where(t > alpha, t, 0), alpha=1.0),
}

LAYERS: dict[str, Operator] = {
    "AveragePool": padding.average_pool,
    "BatchNormalization": _batch_norm,
    "Conv": padding.convolution,
    "ConvTranspose": padding.transposed_convolution,
    "GlobalAveragePool": padding.over_image(torch.mean),
    "GlobalMaxPool": padding.over_image(torch.amax),
    "GroupNormalization": _group_norm,
    "InstanceNormalization": _instance_norm,
    "LayerNormalization": _layer_norm,
    "LpNormalization": _norm,
    "MaxPool": padding.max_pool,
    "Pad": padding.pad,
}

OPERATORS: Mapping[str, Operator] = {**MOVES, **ARITHMETIC, **REDUCTIONS, **ACTIVATIONS, **LAYERS}
"""Function of each operator. Nodes with constant weights are layers of torch instead (`conversion.layers`)."""

PREPARING: Mapping[str, Operator] = {"Normalizer": _normalizer, "Scaler": _scaler}
"""The same for operators of the domain ai.onnx.ml, which scikit-learn pipelines start with."""
