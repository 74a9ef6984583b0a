"""Values that flow through an imported graph: tensors, and sizes as tuples of whole numbers.

Sizes are kept apart from tensors, so that an export keeps free axes free. While a module is traced, the size of a free
axis is a tensor without axes, and it must never be turned into a number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Sizes = tuple[Any, ...]
"""Whole numbers. Those of free axes are known only when the module runs."""
Value = Any
"""A tensor, sizes, one number, or None where an optional input is missing."""
Attributes = Mapping[str, Any]
"""Attributes of a node, with `opset` and the number of its `outputs`."""
Operator = Callable[[Sequence[Value], Attributes], Value]
"""Takes the inputs and attributes of a node, and returns its output, or a tuple of outputs."""

DTYPES = {
    1: torch.float32,
    2: torch.uint8,
    3: torch.int8,
    6: torch.int32,
    7: torch.int64,
    9: torch.bool,
    10: torch.float16,
    11: torch.float64,
    16: torch.bfloat16,
}
"""torch's type of each ONNX element type."""


def as_tensor(value: Value, like: Tensor | None = None) -> Tensor:
    """Return a value as a tensor, on the device of `like`; sizes become a tensor of whole numbers."""
    if isinstance(value, Tensor):
        return value
    device = like.device if like is not None else None
    if isinstance(value, tuple):
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return torch.stack([torch.as_tensor(size, device=device) for size in value]) if value else empty
    return torch.as_tensor(value, device=device)


def as_sizes(value: Value) -> Sizes:
    """Return a value as sizes. A single number may be a free size; a tensor with axes must hold known numbers."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, Tensor) and value.ndim > 0:
        return tuple(value.reshape(-1).tolist())
    return (value,)


def is_size(value: Value) -> bool:
    """Return whether a value is one whole number, which is a tensor without axes while a module is traced."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_floating_point()
    return not isinstance(value, tuple)


def is_number(size: Any, number: int) -> bool:
    """Return whether a size is known to be this number; a free size is not."""
    return isinstance(size, int) and size == number


def number_of(value: Value) -> Any:
    """Return the only number of a constant as a Python number."""
    return value.item() if isinstance(value, Tensor) else as_sizes(value)[0]


def optional_input(inputs: Sequence[Value], index: int) -> Value:
    """Return the input at an index, or None when it is missing."""
    return inputs[index] if len(inputs) > index else None
