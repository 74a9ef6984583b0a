"""The engine `onnxruntime`: opens an ONNX file on the CPU with exactly the options of its bundle.

Never registers custom-op libraries, and never lets the runtime choose its own number of threads.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from pathlib import Path

import onnxruntime as ort

from optimizer_jobs.models.engine import Array, EngineError, EngineOptions, Precision, UnsupportedModelError
from optimizer_jobs.models.fixed import row_axis_of
from optimizer_jobs.signature import TEXT, Signature, TensorSpec

ort.disable_telemetry_events()

LEVELS = {
    "disabled": ort.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "basic": ort.GraphOptimizationLevel.ORT_ENABLE_BASIC,
    "extended": ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED,
    "all": ort.GraphOptimizationLevel.ORT_ENABLE_ALL,
}
"""ONNX Runtime's own constant for each graph level of the options."""
_DTYPES = {
    "tensor(float16)": "float16",
    "tensor(float)": "float32",
    "tensor(double)": "float64",
    "tensor(int8)": "int8",
    "tensor(int16)": "int16",
    "tensor(int32)": "int32",
    "tensor(int64)": "int64",
    "tensor(uint8)": "uint8",
    "tensor(uint16)": "uint16",
    "tensor(uint32)": "uint32",
    "tensor(uint64)": "uint64",
    "tensor(bool)": "bool",
    "tensor(string)": TEXT,
}
_ERRORS_ONLY = 3
_ARM_BFLOAT16 = frozenset({"asimd", "bf16"})
"""Flags of a 64-bit Arm processor that multiplies bfloat16 numbers."""


class OrtSession:
    """An open ONNX Runtime session. Safe to call from several threads."""

    def __init__(self, session: ort.InferenceSession) -> None:
        self._session = session
        self._signature = Signature(
            inputs=tuple(_spec(node) for node in session.get_inputs()),
            outputs=tuple(_spec(node) for node in session.get_outputs()),
        )
        self._names = [spec.name for spec in self._signature.outputs]

    @property
    def signature(self) -> Signature:
        """Inputs and outputs as the runtime reports them."""
        return self._signature

    def run(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return the outputs of one batch; raises EngineError when shapes or types do not fit."""
        try:
            outputs = self._session.run(self._names, dict(inputs))
        except Exception as error:  # the runtime's exceptions share no other base
            raise EngineError(str(error)) from error
        return dict(zip(self._names, outputs, strict=True))


def unavailable() -> str | None:
    """Return None: this module cannot be imported without ONNX Runtime."""
    return None


def precisions(cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:
    """Return float32, which means the number format of the file, and on Arm processors that have it bfloat16 first."""
    return ("bfloat16", "float32") if cpu_flags >= _ARM_BFLOAT16 else ("float32",)


def open_model(path: Path, options: EngineOptions) -> OrtSession:
    """Open the ONNX file at `path` on the CPU.

    Raises:
        EngineError: ONNX Runtime cannot open the file; as UnsupportedModelError when an input or output is no tensor.
    """
    try:
        session = ort.InferenceSession(str(path), session_options(options, path), providers=["CPUExecutionProvider"])
    except EngineError:
        raise
    except Exception as error:  # the runtime's exceptions share no other base
        raise EngineError(str(error)) from error
    return OrtSession(session)


def session_options(options: EngineOptions, path: Path) -> ort.SessionOptions:
    """Return ONNX Runtime's session options for our options.

    Args:
        options: Options of the bundle.
        path: The ONNX file that they are for.

    Raises:
        EngineError: The options fix the number of rows, and the file has no row axis.
    """
    session = ort.SessionOptions()
    session.intra_op_num_threads = options.threads
    session.inter_op_num_threads = 1
    session.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    session.graph_optimization_level = LEVELS[options.graph_level]
    session.log_severity_level = _ERRORS_ONLY
    session.add_session_config_entry("session.intra_op.allow_spinning", "1" if options.spinning else "0")
    if options.rows:
        session.add_free_dimension_override_by_name(row_axis_of(path), options.rows)
    if options.precision == "bfloat16":
        session.add_session_config_entry("mlas.enable_gemm_fastmath_arm64_bfloat16", "1")
    return session


def _spec(node: ort.NodeArg) -> TensorSpec:
    if node.type not in _DTYPES:
        raise UnsupportedModelError(f"{node.name!r} has type {node.type}, and only tensors can be served")
    shape = tuple(size if isinstance(size, int) and size >= 0 else -1 for size in node.shape)
    return TensorSpec(name=node.name, dtype=_DTYPES[node.type], shape=shape)
