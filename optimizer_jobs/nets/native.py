"""Load and save the weights of a network that is delivered as a safetensors file and a factory.

The weights are data, never code. Names, shapes and element types must be those of the network, but for what `weights`
undoes. A network is computed in 32-bit floats, whatever it was stored in.
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
from optimizer_jobs.nets.weights import Stored, by_network_name, misfits
from optimizer_jobs.technique import ParamValue
from retune.api.own_code import Factory
from retune.contract.results import Reason

FILE = "model.safetensors"
WEIGHTS_LIMIT_BYTES = 4 << 30
"""Bytes that a file of weights may have."""

_SHOWN = 3
"""Weights that a message names."""
_HALVES = (torch.float16, torch.bfloat16)


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
    if any(tensor.dtype in _HALVES for tensor in module.state_dict().values()):
        module.float()
    reasons = list(_misfits(module, native.path))
    if not reasons:
        _load(module, native.path)
    elif not overrides:
        more = f" and {len(reasons) - _SHOWN} more" if len(reasons) > _SHOWN else ""
        raise JobError(
            Reason.MODEL_INVALID,
            native.path.name,
            f"{'; '.join(reasons[:_SHOWN])}{more}.",
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
    network = list(_tensors(module))
    return misfits(by_network_name(_described(path), network), network)


def _described(path: Path) -> list[Stored]:
    """Return name, shape and element type of each weight, read from the header of the file alone."""
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
            views = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            return [Stored(name, tuple(view.get_shape()), str(view.get_dtype())) for name, view in views.items()]
    except SafetensorError as error:
        raise JobError(
            Reason.MODEL_INVALID,
            path.name,
            f"it is no safetensors file: {error}.",
            "Write it with safetensors.torch.save_file.",
        ) from error


def _load(module: nn.Module, path: Path) -> None:
    """Copy the weights of the file into the network."""
    network = list(_tensors(module))
    stored = by_network_name(_described(path), network)
    with torch.no_grad(), safe_open(path, framework="pt") as file:
        for tied, tensor in network:
            tensor.copy_(file.get_tensor(next(stored[name].name for name in tied if name in stored)))
