"""ONNX operators with a window that moves over an image or a sequence, in torch: convolutions, pools, padding."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from optimizer_jobs.nets.conversion.values import (
    Attributes,
    Operator,
    Value,
    as_sizes,
    as_tensor,
    number_of,
    optional_input,
)

_SAME = {b"SAME_UPPER", b"SAME_LOWER"}


def padded(tensor: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """Return a tensor with padding around its last axes.

    Args:
        tensor: Values (..., H, W) or with other last axes.
        pads: Padding before each axis, then padding behind each axis, as ONNX orders it.
        value: What is filled in.
    """
    axes = len(pads) // 2
    if not any(pads):
        return tensor
    pairs = [size for axis in reversed(range(axes)) for size in (pads[axis], pads[axes + axis])]
    return functional.pad(tensor, pairs, value=value)


def pads_of(attributes: Attributes, tensor: Tensor, kernel: Sequence[int]) -> list[int]:
    """Return the padding for a window: before each axis, then behind each axis. SAME depends on the tensor's size."""
    axes = len(kernel)
    if attributes.get("auto_pad", b"NOTSET") not in _SAME:
        return list(attributes.get("pads") or [0] * 2 * axes)
    strides, dilations = _per_axis(attributes, "strides", axes), _per_axis(attributes, "dilations", axes)
    sizes = [int(size) for size in tensor.shape[-axes:]]
    total = [
        max(0, (math.ceil(size / stride) - 1) * stride + (width - 1) * dilation + 1 - size)
        for size, stride, width, dilation in zip(sizes, strides, kernel, dilations, strict=True)
    ]
    less = [size // 2 for size in total]
    more = [size - half for size, half in zip(total, less, strict=True)]
    return [*less, *more] if attributes["auto_pad"] == b"SAME_UPPER" else [*more, *less]


def _per_axis(attributes: Attributes, name: str, axes: int) -> list[int]:
    return list(attributes.get(name) or [1] * axes)


def convolution(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    """Return the convolution of input and weight, with any padding; the weight need not be constant."""
    tensor, weight = as_tensor(inputs[0]), as_tensor(inputs[1])
    axes = weight.ndim - 2
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[axes - 1]
    tensor = padded(tensor, pads_of(attributes, tensor, weight.shape[2:]))
    return function(
        tensor,
        weight,
        optional_input(inputs, 2),
        stride=_per_axis(attributes, "strides", axes),
        dilation=_per_axis(attributes, "dilations", axes),
        groups=attributes.get("group", 1),
    )


def transposed_convolution(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    """Return the transposed convolution of input and weight, with the same padding on both sides."""
    tensor, weight = as_tensor(inputs[0]), as_tensor(inputs[1])
    axes = weight.ndim - 2
    function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[axes - 1]
    return function(
        tensor,
        weight,
        optional_input(inputs, 2),
        stride=_per_axis(attributes, "strides", axes),
        padding=list(attributes.get("pads") or [0] * 2 * axes)[:axes],
        output_padding=list(attributes.get("output_padding") or [0] * axes),
        dilation=_per_axis(attributes, "dilations", axes),
        groups=attributes.get("group", 1),
    )


def max_pool(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    """Return the largest value of each window."""
    tensor, kernel = as_tensor(inputs[0]), list(attributes["kernel_shape"])
    function = getattr(functional, f"max_pool{len(kernel)}d")
    return function(
        padded(tensor, pads_of(attributes, tensor, kernel), -math.inf),
        kernel,
        stride=_per_axis(attributes, "strides", len(kernel)),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
        dilation=_per_axis(attributes, "dilations", len(kernel)),
    )


def average_pool(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    """Return the mean of each window; padding counts only where the graph says so."""
    tensor, kernel = as_tensor(inputs[0]), list(attributes["kernel_shape"])
    pads, axes = pads_of(attributes, tensor, kernel), len(kernel)
    counted = bool(attributes.get("count_include_pad", 0))
    function = getattr(functional, f"avg_pool{axes}d")
    options: dict[str, Any] = {
        "stride": _per_axis(attributes, "strides", axes),
        "ceil_mode": bool(attributes.get("ceil_mode", 0)),
    }
    if pads[:axes] == pads[axes:]:
        return function(tensor, kernel, padding=pads[:axes], count_include_pad=counted, **options)
    mean = function(padded(tensor, pads), kernel, **options)
    return mean if counted else mean / function(padded(torch.ones_like(tensor), pads), kernel, **options)


def over_image(function: Any) -> Operator:
    """Return the operator that reduces each channel, (N, C, ...), to one number, (N, C, 1, ...)."""
    return lambda inputs, _: function(inputs[0], dim=tuple(range(2, inputs[0].ndim)), keepdim=True)


def pad(inputs: Sequence[Value], attributes: Attributes) -> Tensor:
    """Return the padded tensor; the padding is for all axes, or for the listed ones."""
    tensor = as_tensor(inputs[0])
    pads = [int(size) for size in (as_sizes(inputs[1]) if len(inputs) > 1 else attributes["pads"])]
    axes = optional_input(inputs, 3)
    if axes is not None:
        pads = _of_all_axes(pads, [int(axis) % tensor.ndim for axis in as_sizes(axes)], tensor.ndim)
    value = optional_input(inputs, 2)
    mode = {b"constant": "constant", b"reflect": "reflect", b"edge": "replicate"}[attributes.get("mode", b"constant")]
    if mode == "constant":
        return padded(tensor, pads, float(attributes.get("value", 0.0) if value is None else number_of(value)))
    count = tensor.ndim
    pairs = [(pads[axis], pads[count + axis]) for axis in reversed(range(count))]
    while pairs and not any(pairs[-1]):
        pairs.pop()
    return functional.pad(tensor, [size for pair in pairs for size in pair], mode=mode)


def _of_all_axes(pads: Sequence[int], axes: Sequence[int], ndim: int) -> list[int]:
    """Return the padding of all axes, when `pads` are those of the listed ones."""
    padding = [0] * 2 * ndim
    for place, axis in enumerate(axes):
        padding[axis], padding[ndim + axis] = pads[place], pads[len(axes) + place]
    return padding
