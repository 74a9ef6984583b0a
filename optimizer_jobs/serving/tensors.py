"""Element types and shapes in the words of Triton's model configuration, and elements as binary tensors have them."""

import struct

import numpy as np

from optimizer_jobs.models.engine import Array
from optimizer_jobs.signature import TEXT

_TYPES = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "uint16": "TYPE_UINT16",
    "uint32": "TYPE_UINT32",
    "uint64": "TYPE_UINT64",
    "int8": "TYPE_INT8",
    "int16": "TYPE_INT16",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
    TEXT: "TYPE_STRING",
}


def is_known(dtype: str) -> bool:
    """Return whether Triton has an element type."""
    return dtype in _TYPES


def type_of(dtype: str) -> str:
    """Return the configuration's name of an element type; raises KeyError where it is not known."""
    return _TYPES[dtype]


def dims(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return a shape as a configuration names it: a single number is a list of one."""
    return shape or (1,)


def as_bytes(values: Array, dtype: str) -> bytes:
    """Return elements as the protocol's binary tensors have them: little endian, texts with their lengths before them.

    Args:
        values: The elements; texts are written as UTF-8.
        dtype: Their type, as a signature names it.
    """
    if dtype == TEXT:
        texts = [str(value).encode() for value in values.reshape(-1)]
        return b"".join(struct.pack("<I", len(part)) + part for part in texts)
    return np.ascontiguousarray(values, np.dtype(dtype).newbyteorder("<")).tobytes()


def from_bytes(content: bytes, dtype: str) -> Array:
    """Return the elements of a binary tensor as one list; raises ValueError where the bytes are not theirs."""
    if dtype != TEXT:
        return np.frombuffer(content, np.dtype(dtype).newbyteorder("<")).astype(dtype, copy=False)
    texts, start = [], 0
    while start < len(content):
        end = start + 4 + int.from_bytes(content[start : start + 4], "little")
        if end > len(content):
            raise ValueError(f"a text ends at byte {end} of {len(content)}")
        texts.append(content[start + 4 : end].decode())
        start = end
    return np.array(texts, dtype=object)
