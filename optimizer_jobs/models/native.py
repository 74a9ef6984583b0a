"""A model in the format it was delivered in, kept beside its ONNX file so that it can be trained again.

Nothing here opens such a file: model servers import this package, and must not need training libraries.
"""

from dataclasses import dataclass
from pathlib import Path

from retune.api.model import ModelFormat
from retune.api.own_code import Factory
from retune.contract.requests import Document


class NativeRecord(Document):
    """The native file of a bundle, as its manifest records it."""

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
