"""The form a model was delivered in, kept beside its ONNX file so that it can be trained again.

Only a record: nothing here opens such a file, because this package is what model servers import.
"""

from dataclasses import dataclass
from pathlib import Path

from retune.api.model import Factory, ModelFormat
from retune.contract.requests import Document


class NativeRecord(Document):
    """What a bundle's manifest says about its native file."""

    file: str
    """Name of the file in the bundle."""
    format: ModelFormat
    factory: Factory | None = None
    """What builds the network that the weights belong to."""


@dataclass(frozen=True)
class Native:
    """A native file on this machine."""

    path: Path
    format: ModelFormat
    factory: Factory | None = None
