"""What an engine is: something that opens a model file with options and then answers batches."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import Any, Literal, Protocol

from numpy.typing import NDArray
from pydantic import Field

from optimizer_jobs.signature import Signature
from retune.contract.requests import Document

Array = NDArray[Any]
Precision = Literal["float32", "bfloat16", "float16"]


class EngineOptions(Document):
    """How a model file is run. Part of the bundle, because the options decide how fast a model answers."""

    engine: Literal["onnxruntime", "openvino", "tensorrt"] = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=256)
    """Threads that work on one request. TensorRT ignores it."""
    streams: int = Field(default=1, ge=1, le=256)
    """OpenVINO: requests that are computed at the same time, each with `threads`. One stream answers a single caller
    faster; several answer many callers sooner. ONNX Runtime always computes all requests at the same time."""
    spinning: bool = True
    """ONNX Runtime: whether idle threads wait busily, which is faster for one caller but costly on shared cores."""
    graph_level: Literal["disabled", "basic", "extended", "all"] = "all"
    """ONNX Runtime: how far it rewrites the graph when it opens the file. Other engines always rewrite all they can."""
    precision: Precision = "float32"
    """Number format that float layers are computed in, whatever the file holds; inputs and outputs keep their types.

    OpenVINO and TensorRT support several. ONNX Runtime computes in the format of the file, with one exception: on
    64-bit Arm, bfloat16 lets it multiply float32 numbers as bfloat16."""
    rows: int | None = Field(default=None, ge=1, le=4096)
    """ONNX Runtime: the fixed number of rows of every call, which lets it plan ahead. Larger requests are split, and
    smaller ones filled up. Bundles of earlier versions may set it for other engines, which do not plan ahead for it."""
    planned: Mapping[str, tuple[int, ...]] | None = None
    """OpenVINO: shapes, by input name, that it compiles a second copy of the model for. Calls of exactly these shapes
    use that copy; all others use the copy for any shape. Costs the memory of a second model."""


class EngineError(RuntimeError):
    """The engine refuses a model or an input; the message is the engine's own."""


class UnsupportedModelError(EngineError):
    """The engine can open the model, but Retune cannot serve it."""


class UnsupportedEngineError(EngineError):
    """The engine that a model needs cannot run on this machine; the message says what is missing."""


class Session(Protocol):
    """An open model. Safe to call from several threads."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of one batch.

        Args:
            inputs: Values of every input by name, with shape (N, ...).

        Returns:
            Values of every output by name, with shape (N, ...).

        Raises:
            EngineError: The inputs do not fit the model.
        """
        ...


class Engine(Protocol):
    """A module that opens model files. Importing it must not import the engine's library where that is large."""

    def unavailable(self) -> str | None:
        """Return why this engine cannot run on this machine, as words without a full stop, or None when it can."""
        ...

    def precisions(self, cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:
        """Return the precisions that a processor with these instruction set flags computes in, the fastest first."""
        ...

    def open_model(self, path: Path, options: EngineOptions) -> Session:
        """Return an open session for the file at `path`; raises EngineError."""
        ...
