"""How weights in a file go with those of a network: by name, shape and element type, and what does not go together.

Wrappers put prefixes before every name, and large networks are often stored in half precision. Both are undone where
the weights then fit exactly, and nothing is guessed where they do not.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

import torch
from torch import Tensor

_WRAPPED = ("module.", "_orig_mod.", "model.")
"""What wrappers put before every name: DataParallel, torch.compile, and Lightning modules among others."""
_LAYERS = 3
"""Wrappers within each other, at most."""
_NAMES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
_HALVES = {"F16", "BF16"}
"""Element types in a file that become 32-bit floats."""


@dataclass(frozen=True)
class Stored:
    """A weight in a file."""

    name: str
    shape: tuple[int, ...]
    kind: str
    """Element type, as the header of a safetensors file writes it."""


Tied = tuple[Sequence[str], Tensor]
"""A weight of a network with all its names; tied weights have several."""


def by_network_name(stored: Sequence[Stored], network: Sequence[Tied]) -> dict[str, Stored]:
    """Return the weights of a file by the names that the network has for them.

    Prefixes of wrappers are left out where names then fit exactly; else the names are those of the file.
    """
    names = [weight.name for weight in stored]
    fitting = next((renamed for renamed in _unwrapped(names) if _fit(renamed, network)), names)
    return dict(zip(fitting, stored, strict=True))


def _unwrapped(names: Sequence[str]) -> Iterator[list[str]]:
    """Yield the names as they are, and then with one wrapper after the other taken off."""
    yield list(names)
    for renamed in (list(names), [name.replace("_orig_mod.", "") for name in names]):
        current = renamed
        for _ in range(_LAYERS):
            yield current
            prefix = next((prefix for prefix in _WRAPPED if all(name.startswith(prefix) for name in current)), None)
            if prefix is None:
                break
            current = [name.removeprefix(prefix) for name in current]
        yield current


def _fit(names: Sequence[str], network: Sequence[Tied]) -> bool:
    """Return whether these are names of the network, with one at least for each of its weights."""
    present = set(names)
    known = {name for tied, _ in network for name in tied}
    return len(present) == len(names) and present <= known and all(present & set(tied) for tied, _ in network)


def misfits(stored: Mapping[str, Stored], network: Sequence[Tied]) -> Iterator[str]:
    """Yield the reasons why weights of a file, by name, do not fit a network, each as a part of a sentence."""
    known = {name for tied, _ in network for name in tied}
    unknown = [name for name in stored if name not in known]
    for tied, tensor in network:
        present = [name for name in tied if name in stored]
        if not present:
            size, near = list(tensor.shape), _near(tied[0], unknown)
            yield f"weight {tied[0]} {size} of the network is missing in the file{near}"
        for name in present:
            yield from _differences(stored[name], name, tensor)
    missing = [name for tied, _ in network for name in tied if not set(tied) & set(stored)]
    yield from (f"weight {name} is not in the network{_near(name, missing)}" for name in unknown)


def _near(name: str, others: Sequence[str]) -> str:
    """Return words that name the most similar of the other names, or nothing."""
    near = get_close_matches(name, others, n=1)
    return f" (the nearest is {near[0]})" if near else ""


def _differences(stored: Stored, name: str, tensor: Tensor) -> Iterator[str]:
    shape, kind = list(tensor.shape), _kind(tensor.dtype)
    if list(stored.shape) != shape:
        yield f"weight {name} has shape {list(stored.shape)} in the file and {shape} in the network"
    elif stored.kind != kind and not (stored.kind in _HALVES and kind == "F32"):
        yield f"weight {name} has type {stored.kind} in the file and {kind} in the network"


def _kind(dtype: torch.dtype) -> str:
    """Return an element type as the header of a safetensors file writes it."""
    return _NAMES.get(dtype, str(dtype))
