"""The engine `openvino`: opens an ONNX file on the CPU with exactly the options of its bundle.

Names, types and free axes are those of the ONNX file. What OpenVINO would silently repair is refused: inputs of another
type, missing inputs, and a precision that the processor does not have or only emulates, at another speed. Sends nothing
anywhere: the package `openvino-telemetry` is never imported, and only OpenVINO's converter, unused here, would call it.
"""

from collections import deque
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer_jobs.models.engine import (
    Array,
    EngineError,
    EngineOptions,
    Precision,
    Session,
    UnsupportedModelError,
)
from optimizer_jobs.models.planned import PlannedSession
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

if TYPE_CHECKING:
    import openvino as ov
    from onnx import ValueInfoProto

_HINTS: Mapping[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_CAPABILITIES: Mapping[Precision, str] = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
"""By precision, what OpenVINO calls a processor that multiplies such numbers in hardware."""

_IN_HARDWARE: Mapping[Precision, frozenset[str]] = {
    "bfloat16": frozenset({"amx_bf16", "avx512_bf16"}),
    "float16": frozenset({"amx_fp16", "avx512_fp16", "asimdhp"}),
}
"""By precision, instruction set flags of processors that multiply such numbers in hardware; emulation is far slower."""

_PLACES = ("Exception from ", "Check '")
"""Prefixes of lines that only say where in OpenVINO's source something failed."""


def unavailable() -> str | None:
    """Return that the package is missing, in words, or None when it is installed."""
    return None if find_spec("openvino") else "the package openvino is not installed"


def precisions(cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:
    """Return the precisions that the processor computes in hardware, 16-bit floats before float32."""
    return (*(precision for precision, flags in _IN_HARDWARE.items() if flags & cpu_flags), "float32")


class OpenVinoSession:
    """A compiled model; each concurrent caller gets an inference request of its own. Safe to call from several threads.

    An inference request is OpenVINO's object for one computation at a time.
    """

    def __init__(self, compiled: "ov.CompiledModel", signature: Signature) -> None:
        self._compiled = compiled
        self._signature = signature
        self._idle: deque[ov.InferRequest] = deque()

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the ONNX file has them."""
        return self._signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of one batch; raises EngineError when names, shapes or types do not fit."""
        feed = self._feed(inputs)
        try:
            with self._request() as request:
                # Every call shares its inputs: a call that copied would write into arrays shared by an earlier call.
                outputs = list(request.infer(feed, share_inputs=True).values())
        except Exception as error:  # OpenVINO's exceptions share no other base
            raise EngineError(_words(error)) from error
        return {spec.name: output for spec, output in zip(self._signature.outputs, outputs, strict=True)}

    def _feed(self, inputs: Mapping[str, Array]) -> dict[int, Array]:
        """Return inputs by position. Refuse a wrong type, which OpenVINO would cast, and a missing input.

        OpenVINO would take the value of a missing input from the call before.
        """
        if len(inputs) != len(self._signature.inputs):
            raise EngineError(f"inputs are {sorted(inputs)}, not {[spec.name for spec in self._signature.inputs]}")
        feed = {}
        for position, spec in enumerate(self._signature.inputs):
            values = inputs.get(spec.name)
            if values is None:
                raise EngineError(f"input {spec.name!r} is missing")
            if spec.dtype not in (values.dtype.name, TEXT):
                raise EngineError(f"input {spec.name!r} has type {values.dtype.name} instead of {spec.dtype}")
            feed[position] = values
        return feed

    @contextmanager
    def _request(self) -> "Iterator[ov.InferRequest]":
        """Lend an inference request that nobody else is using; a failed request is not lent again."""
        try:
            request = self._idle.pop()
        except IndexError:
            request = self._compiled.create_infer_request()
        yield request
        self._idle.append(request)


def open_model(path: Path, options: EngineOptions) -> Session:
    """Compile the ONNX file at `path` for the CPU.

    Raises:
        EngineError: OpenVINO cannot read or compile the file, or cannot compute in the precision or the planned shape;
            as UnsupportedModelError when an input or output is no tensor.
    """
    try:
        model = _core().read_model(str(path))
        signature = _signature(path, model)
        free = OpenVinoSession(_compiled(model, options), signature)
        if options.planned is None:
            return free
        model.reshape(_shapes(model, signature, options.planned))
        return PlannedSession(free, OpenVinoSession(_compiled(model, options), signature), options.planned)
    except EngineError:
        raise
    except Exception as error:  # OpenVINO's exceptions share no other base
        raise EngineError(_words(error)) from error


def inferred_outputs(path: Path) -> dict[str, tuple[int, ...]]:
    """Return the shape of each output as OpenVINO infers it, with -1 for a free size, whatever the file declares.

    The names are those that OpenVINO gives the outputs, in the model's order. Raises EngineError where it cannot read
    the file.
    """
    try:
        outputs = _core().read_model(str(path)).outputs
        return {port.get_any_name(): _free(port) for port in outputs}
    except Exception as error:  # OpenVINO's exceptions share no other base
        raise EngineError(_words(error)) from error


def _free(port: "ov.Output") -> tuple[int, ...]:
    """Return the shape of an input or output as OpenVINO knows it, with -1 for a free size."""
    return tuple(-1 if axis.is_dynamic else axis.get_length() for axis in port.partial_shape)


def _compiled(model: "ov.Model", options: EngineOptions) -> "ov.CompiledModel":
    if _CAPABILITIES[options.precision] not in _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        raise EngineError(f"this processor does not compute in {options.precision}, only emulates it or falls back")
    compiled = _core().compile_model(model, "CPU", _properties(options))
    computes_in = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
    if computes_in != _HINTS[options.precision]:
        raise EngineError(f"this processor computes in {computes_in} when asked for {options.precision}")
    return compiled


def _shapes(
    model: "ov.Model", signature: Signature, planned: Mapping[str, tuple[int, ...]]
) -> "dict[ov.Output, list[int]]":
    """Return the planned shape of every input; raises EngineError unless exactly the model's inputs are named."""
    names = [spec.name for spec in signature.inputs]
    if sorted(planned) != sorted(names):
        raise EngineError(f"a shape is planned for the inputs {sorted(planned)}, and the model has {sorted(names)}")
    return {port: list(planned[name]) for name, port in zip(names, model.inputs, strict=True)}


def _properties(options: EngineOptions) -> dict[str, Any]:
    """Return OpenVINO's properties for our options; nothing that affects speed is left to its defaults."""
    return {
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": options.streams,
        "INFERENCE_NUM_THREADS": options.threads * options.streams,
        "INFERENCE_PRECISION_HINT": _HINTS[options.precision],
        "ENABLE_CPU_PINNING": False,  # two models in one process would be pinned to the same cores
    }


def _words(error: Exception) -> str:
    """Return OpenVINO's message without the lines about its source."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(line for line in lines if line and not line.startswith(_PLACES)) or str(error)


@cache
def _core() -> "ov.Core":
    import openvino as ov

    return ov.Core()


def _signature(path: Path, model: "ov.Model") -> Signature:
    """Return the signature as the ONNX file declares it; shapes that the file leaves out come from OpenVINO."""
    import onnx

    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    inputs = [info for info in graph.input if info.name not in weights]
    return Signature(
        inputs=tuple(_spec(info, port) for info, port in zip(inputs, model.inputs, strict=True)),
        outputs=tuple(_spec(info, port) for info, port in zip(graph.output, model.outputs, strict=True)),
    )


def _spec(info: "ValueInfoProto", port: "ov.Output") -> TensorSpec:
    import onnx

    if not info.type.HasField("tensor_type"):
        raise UnsupportedModelError(f"{info.name!r} is no tensor, and only tensors can be served")
    tensor = info.type.tensor_type
    if tensor.elem_type == onnx.TensorProto.STRING:
        dtype = TEXT
    else:
        dtype = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type)))
    if tensor.HasField("shape"):
        shape = tuple(axis.dim_value if axis.HasField("dim_value") else -1 for axis in tensor.shape.dim)
    else:
        shape = _free(port)
    return TensorSpec(name=info.name, dtype=dtype, shape=shape)
