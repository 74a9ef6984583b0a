"""Load and save the weights of a network that is delivered as a safetensors file and a factory.

The weights are data, never code. Their names, shapes and element types must be those of the network.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.native import Native
from optimizer_jobs.nets.factory import network
from optimizer_jobs.technique import ParamValue
from retune.api.model import Factory
from retune.contract.results import Reason

FILE = "model.safetensors"
WEIGHTS_LIMIT_BYTES = 4 << 30
"""Bytes that a file of weights may have."""

_SHOWN = 3
"""Weights that a message names."""


def build(native: Native, *, overrides: Mapping[str, ParamValue] | None = None) -> nn.Module:
    """Return the network in evaluation mode, with the delivered weights.

    Args:
        native: Weights and factory.
        overrides: Arguments that replace those of the factory. When the delivered weights then do not fit (see
            `weights_fit`), the network keeps the weights that the factory gave it.

    Raises:
        JobError: ModelTooLarge, or ModelInvalid with the weights that do not fit.
    """
    module = network(factory_of(native), overrides=overrides)
    misfits = list(_misfits(module, native.path))
    if not misfits:
        _load(module, native.path)
    elif not overrides:
        more = f" and {len(misfits) - _SHOWN} more" if len(misfits) > _SHOWN else ""
        raise JobError(
            Reason.MODEL_INVALID,
            native.path.name,
            f"{'; '.join(misfits[:_SHOWN])}{more}.",
            "Save the state_dict of the very network that model.factory builds, or correct its arguments.",
        )
    return module.eval()


def weights_fit(module: nn.Module, native: Native) -> bool:
    """Return whether the delivered weights fit a network of this shape."""
    return next(_misfits(module, native.path), None) is None


def save(module: nn.Module, target: Path) -> None:
    """Write the weights of a network, those that share memory only once. The same weights give the same bytes."""
    save_file({names[0]: tensor.detach().contiguous() for names, tensor in _tensors(module)}, target)


def factory_of(native: Native) -> Factory:
    """Return the factory of the network.

    Raises:
        JobError: ModelInvalid, when the spec names none.
    """
    if native.factory is None:
        raise JobError(
            Reason.MODEL_INVALID,
            native.path.name,
            "weights alone do not say which network they belong to.",
            "Name what builds the network in model.factory.",
        )
    return native.factory


def _tensors(module: nn.Module) -> Iterator[tuple[list[str], Tensor]]:
    """Yield every tensor of the state with all its names; tied weights have several."""
    shared: dict[tuple[int, int, tuple[int, ...], tuple[int, ...]], tuple[list[str], Tensor]] = {}
    for number, (name, tensor) in enumerate(module.state_dict().items()):
        address = tensor.data_ptr() if tensor.numel() else -1 - number
        key = (address, tensor.storage_offset(), tuple(tensor.shape), tuple(tensor.stride()))
        shared.setdefault(key, ([], tensor))[0].append(name)
    yield from shared.values()


def _misfits(module: nn.Module, path: Path) -> Iterator[str]:
    """Yield the reasons why the weights of the file do not fit the network, each as a part of a sentence."""
    in_file = dict(_described(path))
    in_network = {name for names, _ in _tensors(module) for name in names}
    for names, tensor in _tensors(module):
        present = [name for name in names if name in in_file]
        if not present:
            yield f"weight {names[0]} {list(tensor.shape)} of the network is missing in the file"
        for name in present:
            shape, kind = in_file[name]
            if shape != list(tensor.shape):
                yield f"weight {name} has shape {shape} in the file and {list(tensor.shape)} in the network"
            elif kind != _name(tensor.dtype):
                yield f"weight {name} has type {kind} in the file and {_name(tensor.dtype)} in the network"
    yield from (f"weight {name} is not in the network" for name in in_file if name not in in_network)


def _described(path: Path) -> Iterator[tuple[str, tuple[list[int], str]]]:
    """Yield name, shape and element type of each weight, read from the header of the file alone."""
    size = path.stat().st_size
    if size > WEIGHTS_LIMIT_BYTES:
        raise JobError(
            Reason.MODEL_TOO_LARGE,
            path.name,
            f"the file has {size} bytes; weights have at most {WEIGHTS_LIMIT_BYTES}.",
            "Deliver a smaller model.",
        )
    try:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                view = file.get_slice(name)
                yield name, (list(view.get_shape()), str(view.get_dtype()))
    except SafetensorError as error:
        raise JobError(
            Reason.MODEL_INVALID,
            path.name,
            f"it is no safetensors file: {error}.",
            "Write it with safetensors.torch.save_file.",
        ) from error


def _load(module: nn.Module, path: Path) -> None:
    """Copy the weights of the file into the network."""
    with torch.no_grad(), safe_open(path, framework="pt") as file:
        names = set(file.keys())
        for tied, tensor in _tensors(module):
            tensor.copy_(file.get_tensor(next(name for name in tied if name in names)))


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


def _name(dtype: torch.dtype) -> str:
    """Return an element type as the header of the file writes it."""
    return _NAMES.get(dtype, str(dtype))
