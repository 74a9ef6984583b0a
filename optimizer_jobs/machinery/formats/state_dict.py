"""Format StateDict: weights as torch.save writes them, and the factory that builds their network.

They are read as data: no code of the file runs. What torch then does not read is refused. Training starts from a
safetensors file that is made here.
"""

import dataclasses
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats import safetensors
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.models.native import Native
from retune.api.model import ModelFormat
from retune.contract.results import Reason

_CHECKPOINT = ("state_dict", "model_state_dict", "model", "net", "network", "module", "weights")
"""Keys under which checkpoints of training have the weights, the most likely first."""
_WEIGHTS_ONLY = "Save the weights alone: torch.save(network.state_dict(), PATH)."
_SHOWN_KEYS = 8


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Write the weights as safetensors, build the network with them, and write it as ONNX."""
    from safetensors.torch import save_file

    from optimizer_jobs.nets.native import FILE

    kept = Native(into / FILE, ModelFormat.SAFETENSORS, delivered.native.factory)
    weights = _weights(_loaded(delivered), delivered)
    save_file({name: weight.detach().clone().contiguous() for name, weight in weights.items()}, kept.path)
    converted = safetensors.convert(dataclasses.replace(delivered, native=kept), into=into)
    return dataclasses.replace(converted, native=kept)


def _loaded(delivered: Delivered) -> Any:
    import torch

    try:
        return torch.load(delivered.native.path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        message = "it holds other objects than weights, such as a whole network, and reading those would run code."
        raise _invalid(delivered, message) from error
    except Exception as error:
        words = printable(f"{type(error).__name__}: {error}", limit=200)
        raise _invalid(delivered, f"torch.load cannot read it ({words}).") from error


def _weights(loaded: Any, delivered: Delivered) -> Mapping[str, Any]:
    """Return the weights by name: the file's whole content, or the part of a checkpoint that holds them."""
    parts = loaded if isinstance(loaded, Mapping) else {}
    for candidate in (parts, *(parts.get(key) for key in _CHECKPOINT)):
        tensors = _tensors(candidate)
        if tensors:
            return tensors
    keys = ", ".join(printable(str(key), limit=40) for key in list(parts)[:_SHOWN_KEYS])
    raise _invalid(delivered, f"it holds no weights by name, but {keys or type(loaded).__name__}.")


def _tensors(candidate: Any) -> dict[str, Any]:
    """Return the tensors of a mapping by name, and nothing where other mappings lie in it."""
    import torch

    if not isinstance(candidate, Mapping) or any(isinstance(value, Mapping) for value in candidate.values()):
        return {}
    return {str(name): value for name, value in candidate.items() if isinstance(value, torch.Tensor)}


def _invalid(delivered: Delivered, message: str) -> JobError:
    return JobError(Reason.MODEL_INVALID, delivered.uri, message, _WEIGHTS_ONLY)
