"""The engine `tensorrt`: ONNX Runtime's TensorRT provider on an NVIDIA GPU.

Needs the package onnxruntime-gpu in place of onnxruntime, and NVIDIA's driver and TensorRT libraries. When TensorRT
does not start, ONNX Runtime silently falls back to the CPU. That is refused here, because the CPU's speed would be
reported as TensorRT's. Single operators that TensorRT lacks do run on the CPU, and are measured like that.
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
"""Device files, one of which exists where a container may use an NVIDIA GPU: on Linux, and on Linux inside Windows."""
LIBRARIES = ("libnvinfer.so.11", "libnvinfer.so.10")
"""File names of TensorRT's library, for the major versions that ONNX Runtime's provider is built for."""


def unavailable() -> str | None:
    """Return the first thing that is missing to run TensorRT, in words, or None."""
    if PROVIDER not in ort.get_available_providers():
        return "this onnxruntime has no TensorRT provider; the package onnxruntime-gpu brings it"
    if not any(device.exists() for device in DEVICES):
        return "this container has no NVIDIA GPU"
    if not any(_loads(library) for library in LIBRARIES):
        return f"TensorRT is not installed (none of {', '.join(LIBRARIES)} loads)"
    return None


def precisions(cpu_flags: AbstractSet[str]) -> tuple[Precision, ...]:  # noqa: ARG001 - the GPU computes
    """Return the precisions that every GPU supported by TensorRT computes in hardware."""
    return ("float16", "float32")


def open_model(path: Path, options: EngineOptions) -> OrtSession:
    """Build a TensorRT engine from the ONNX file at `path`, which may take minutes.

    Raises:
        EngineError: The engine cannot be built, or TensorRT does not start; as UnsupportedModelError when an input or
            output is no tensor.
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
    """Return the provider's options for ours; caches stay off, so that nothing is written beside a model."""
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
