"""What flows through an imported graph: tensors, and sizes as tuples of whole numbers.

Sizes are no tensors, so that an export keeps free axes free: while a module is traced, a size of a free axis is a
tensor without axes, and it must never be turned into a number.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Sizes = tuple[Any, ...]
"""Whole numbers, maybe known only when the module runs."""
Value = Any
"""A tensor, sizes, one number, or None where an optional input is left out."""
Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Value], Attributes], Value]

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
"""ONNX element types in torch."""


def as_tensor(value: Value, like: Tensor | None = None) -> Tensor:
    """Return a value as a tensor; sizes become whole numbers."""
    if isinstance(value, Tensor):
        return value
    device = like.device if like is not None else None
    if isinstance(value, tuple):
        empty = torch.zeros(0, dtype=torch.int64, device=device)
        return torch.stack([torch.as_tensor(each, device=device) for each in value]) if value else empty
    return torch.as_tensor(value, device=device)


def as_sizes(value: Value) -> Sizes:
    """Return a value as sizes; a tensor of several must be known by now, a single one may be free while traced."""
    if isinstance(value, tuple):
        return value
    if isinstance(value, Tensor) and value.ndim > 0:
        return tuple(value.reshape(-1).tolist())
    return (value,)


def is_size(value: Value) -> bool:
    """Return whether a value is one whole number: while a module is traced, sizes are tensors without axes."""
    if isinstance(value, Tensor):
        return value.ndim == 0 and not value.is_floating_point()
    return not isinstance(value, tuple)


def is_number(size: Any, number: int) -> bool:
    """Return whether a size is known to be a number; a free one is not."""
    return isinstance(size, int) and size == number


def number_of(value: Value) -> Any:
    """Return the one number of a constant, as Python has it."""
    return value.item() if isinstance(value, Tensor) else as_sizes(value)[0]


def given(inputs: Sequence[Value], place: int) -> Value:
    """Return the input at a place, None where it is left out."""
    return inputs[place] if len(inputs) > place else None
