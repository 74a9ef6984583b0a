"""The engine `tensorrt`: ONNX Runtime's TensorRT provider on an NVIDIA GPU.

Needs the package onnxruntime-gpu in place of onnxruntime, and NVIDIA's driver and TensorRT libraries. Where TensorRT
does not start, ONNX Runtime falls back to the CPU in silence; that is refused here, because the model would be judged
as something that it is not. Single operators that TensorRT lacks do run on the CPU, and are measured like that.
"""

from collections.abc import Set as AbstractSet
from contextlib import suppress
from ctypes import CDLL
from pathlib import Path

import onnxruntime as ort

from optimizer_jobs.models.engine import EngineError, EngineOptions, Precision
from optimizer_jobs.models.ort import OrtSession, session_options

PROVIDER = "TensorrtExecutionProvider"
DEVICES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))
"""Either is there where a container may use an NVIDIA GPU: on Linux itself, and in Windows' virtual machine."""
LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")
"""TensorRT's library, by the major versions that providers are built against."""


def unavailable() -> str | None:
    """Return the first thing that is missing, or None."""
    if PROVIDER not in ort.get_available_providers():
        return "this onnxruntime has no TensorRT provider; the package onnxruntime-gpu brings it"
    if not any(device.exists() for device in DEVICES):
        return "this container has no NVIDIA GPU"
    if not any(_loads(library) for library in LIBRARIES):
        return f"TensorRT is not installed (none of {', '.join(LIBRARIES)} loads)"
    return None


def precisions(cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:  # noqa: ARG001 - the GPU computes
    """Return what every GPU that TensorRT still supports computes in by itself."""
    return ("float16", "float32")


def open_model(path: Path, options: EngineOptions) -> OrtSession:
    """Build an engine for the GPU from `path`, which may take minutes.

    Raises:
        EngineError: The file cannot be built, or TensorRT does not take part; as UnsupportedModelError when an input
            or output is no tensor.
    """
    try:
        session = ort.InferenceSession(
            str(path), session_options(options, path), providers=[(PROVIDER, _settings(options))]
        )
    except EngineError:
        raise
    except Exception as error:  # the runtime's exceptions share no other base
        raise EngineError(str(error)) from error
    if PROVIDER not in session.get_providers():
        raise EngineError("TensorRT could not be started, and running on the CPU instead would be another model")
    return OrtSession(session)


def _settings(options: EngineOptions) -> dict[str, str]:
    """Return the provider's own options for ours; timing caches stay off, so that nothing is written beside a model."""
    return {
        "trt_fp16_enable": "1" if options.precision == "float16" else "0",
        "trt_bf16_enable": "1" if options.precision == "bfloat16" else "0",
        "trt_engine_cache_enable": "0",
        "trt_timing_cache_enable": "0",
    }


def _loads(library: str) -> bool:
    with suppress(OSError):
        CDLL(library)
        return True
    return False
