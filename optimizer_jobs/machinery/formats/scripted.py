"""Formats TorchScript and TorchExport: networks saved with their code, which runs when they are loaded.

This happens in a sandbox, and only when the spec trusts the file.
"""

from pathlib import Path
from typing import Any

from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from retune.api.model import ModelFormat
from retune.contract.results import Reason


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Load the network and write it as ONNX."""
    from optimizer_jobs.machinery.formats.torch_inputs import export_network

    try:
        module = _load(delivered)
    except Exception as error:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"it cannot be loaded as {delivered.native.format}: {printable(str(error), limit=300)}.",
            "Save it again, or deliver ONNX or SafeTensors.",
        ) from error
    return export_network(module, delivered, into=into)


def _load(delivered: Delivered) -> Any:
    import torch

    from optimizer_jobs.machinery.formats.torch_inputs import Exported

    path = delivered.native.path
    if delivered.native.format is ModelFormat.TORCHSCRIPT:
        return torch.jit.load(str(path), map_location="cpu").eval()
    return Exported(torch.export.load(path))
