"""Element types and shapes in the words of Triton's model configuration."""

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
