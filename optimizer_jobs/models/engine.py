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
    """How a model file is run. Part of the bundle, because a file is only as fast as the options it runs with."""

    engine: Literal["onnxruntime", "openvino", "tensorrt"] = "onnxruntime"
    threads: int = Field(default=1, ge=1, le=256)
    """Threads that work on one request; of no meaning to TensorRT."""
    streams: int = Field(default=1, ge=1, le=256)
    """OpenVINO: requests worked on at once, each with `threads`. One answers a single caller faster, several answer
    many callers sooner. ONNX Runtime always works on all."""
    spinning: bool = True
    """ONNX Runtime: whether idle threads wait busily: faster for one caller, costly when cores are shared."""
    graph_level: Literal["disabled", "basic", "extended", "all"] = "all"
    """ONNX Runtime: how far it rewrites the graph when it opens the file. The others always rewrite all they can."""
    precision: Precision = "float32"
    """OpenVINO and TensorRT: numbers that float layers are computed in, whatever the file holds; inputs and outputs
    keep their types. ONNX Runtime computes in those of the file, except on 64-bit Arm, where bfloat16 lets products of
    float32 numbers be multiplied as such; its other processors have no kernels for bfloat16 files."""
    rows: int | None = Field(default=None, ge=1, le=4096)
    """ONNX Runtime: rows that it is told every call has, so that it plans ahead; other requests are split and filled
    up. Other engines get calls of so many rows too, as bundles of earlier versions ask it of them, and plan nothing."""
    planned: Mapping[str, tuple[int, ...]] | None = None
    """OpenVINO: the shape of every input, by name, of the calls that it has a second plan for, made ahead for exactly
    this shape; all other calls take the plan for any. Costs the memory of another copy of the model."""


class EngineError(RuntimeError):
    """The engine refuses a model or an input; the message is the engine's own."""


class UnsupportedModelError(EngineError):
    """The engine can open the model, but Retune cannot serve it."""


class UnsupportedEngineError(EngineError):
    """The engine that a model needs is not here; the message says what is missing."""


class Session(Protocol):
    """An open model. Safe to call from several threads."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return every output by name for one batch of inputs by name, each (N, ...); raises EngineError."""
        ...


class Engine(Protocol):
    """A module that opens model files. Importing it must not import the engine's library where that is large."""

    def unavailable(self) -> str | None:
        """Return why this engine cannot run on this machine, as words without a full stop, or None when it can."""
        ...

    def precisions(self, cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:
        """Return the precisions that are worth a try, the fastest first, given the processor's flags."""
        ...

    def open_model(self, path: Path, options: EngineOptions) -> Session:
        """Return an open session for the file at `path`; raises EngineError."""
        ...
