"""Formats TorchScript and TorchExport: networks saved with their code, which runs when they are loaded.

This happens in a sandbox, and only when the spec trusts the file.
"""

from pathlib import Path
from typing import Any

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.signature import TensorSpec
from retune.api.model import ModelFormat
from retune.contract.results import Reason

_NO_PROGRAM = "constants.pkl"
"""File that every script has, and that torch names where there is none."""


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Load the network and write it as ONNX."""
    from optimizer_jobs.machinery.formats.torch_export import export_network

    try:
        module = _load(delivered)
    except Exception as error:
        words = "it holds no program" if _NO_PROGRAM in str(error) else printable(str(error), limit=300)
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"it cannot be loaded as {delivered.native.format}: {words}.",
            "Save it again; deliver weights of torch.save as format StateDict with model.factory; or deliver ONNX.",
        ) from error
    return export_network(module, delivered, into=into)


def _load(delivered: Delivered) -> Any:
    import torch

    path = delivered.native.path
    if delivered.native.format is ModelFormat.TORCHSCRIPT:
        return torch.jit.load(str(path), map_location="cpu").eval()
    return _program(torch.export.load(path))


def _program(exported: Any) -> Any:
    """Return an exported program as a network, with the types and fixed sizes of its inputs."""
    from optimizer_jobs.machinery.formats.torch_inputs import Program

    module = exported.module()
    for parameter in module.parameters():
        parameter.requires_grad_(False)  # noqa: FBT003 - the library's form
    names = tuple(exported.graph_signature.user_inputs)
    values = {node.name: node.meta["val"] for node in exported.graph.nodes if node.op == "placeholder"}
    return Program(module, names, [_spec(name, values[name]) for name in names if hasattr(values[name], "shape")])


def _spec(name: str, value: Any) -> TensorSpec:
    """Return an input as the program declares it."""
    sizes = tuple(size if isinstance(size, int) else -1 for size in value.shape)
    return TensorSpec(name=name, dtype=str(value.dtype).removeprefix("torch."), shape=sizes)
