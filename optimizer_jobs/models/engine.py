"""What an engine is: something that opens a model file with options and then answers batches."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray
from pydantic import Field

from optimizer_jobs.models.signature import Signature
from retune.contract.requests import Document

Array = NDArray[Any]


class EngineOptions(Document):
    """How a model file is run. Part of the bundle, because a file is only as fast as the options it runs with."""

    engine: Literal["onnxruntime"] = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=256)
    """Threads that work on one request."""
    spinning: bool = True
    """Whether idle threads wait busily: faster for one caller, costly when cores are shared."""
    graph_level: Literal["disabled", "basic", "extended", "all"] = "all"
    """How far the engine rewrites the graph when it opens the file."""


class EngineError(RuntimeError):
    """The engine refuses a model or an input; the message is the engine's own."""


class UnsupportedModelError(EngineError):
    """The engine can open the model, but Retune cannot serve it."""


class Session(Protocol):
    """An open model."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name for one batch of inputs by name, each (N, ...); raises EngineError."""
        ...


class Engine(Protocol):
    """A module that opens model files."""

    def open_model(self, path: Path, options: EngineOptions) -> Session:
        """Return an open session for the file at `path`; raises EngineError."""
        ...
