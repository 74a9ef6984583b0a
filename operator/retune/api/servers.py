"""What runs a model where it serves: the server's kind, its engines, and the engine's version."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from retune.api.base import Text


class EngineName(StrEnum):
    """What runs a model file."""

    ONNX_RUNTIME = "ONNXRuntime"
    OPENVINO = "OpenVINO"
    TENSORRT = "TensorRT"


class ServerRuntime(StrEnum):
    """What reads a bundle and answers requests with it."""

    RETUNE = "Retune"
    """Retune's own runtime, as the example's server and the package retune-runtime have it."""
    TRITON = "Triton"
    """Triton Inference Server."""
    OVMS = "OVMS"
    """OpenVINO Model Server."""
    KSERVE = "KServe"
    """The stock server that KServe has for the engine: kserve-tritonserver, or kserve-openvino for OpenVINO."""
    CUSTOM = "Custom"
    """A server of the owner's own, which sets the engine's options and nothing beyond."""


_FORM = r"[1-9][0-9]{0,3}\.[0-9]{1,2}(\.[0-9]{1,3})?"
EngineVersion = Annotated[
    str,
    Text(
        pattern=_FORM,
        max_length=12,
        message='the version of an engine is a quoted string such as "1.20" or "2025.4"',
    ),
]

_OF_ONNX_RUNTIME = r"1\.(1[5-9]|[2-9][0-9])(\.[0-9]{1,3})?"
"""ONNX Runtime 1.15 is the first version that is known."""
_OF_OPENVINO = r"20(2[3-9]|[3-9][0-9])\.[0-9]{1,2}(\.[0-9]{1,3})?"

_OVMS_ONLY = "serving.runtime OVMS computes with OpenVINO alone: set serving.engines to [OpenVINO]"
_NOT_IN_TRITON = (
    "serving.runtime Triton has no settings for the threads and the precision of OpenVINO: leave it out of "
    "serving.engines"
)
_ONE_OF_KSERVE = (
    "serving.runtime KServe is one server: set serving.engines to [OpenVINO] for kserve-openvino, or leave OpenVINO "
    "out for kserve-tritonserver"
)
_ONE_VERSION = "serving.engineVersion is that of one engine: OpenVINO cannot stand beside another in serving.engines"
_WRONG_ORT = (
    "serving.engineVersion is that of ONNX Runtime, 1.15 or later, such as 1.20, and not that of the server or TensorRT"
)
_WRONG_OPENVINO = (
    "serving.engineVersion is that of OpenVINO, 2023.0 or later, such as 2025.4, and not that of the server"
)

_NO_IMAGE = (
    "serving.image is that of Triton or OpenVINO Model Server, through which the judge then measures: set "
    "serving.runtime to Triton, OVMS or KServe, or leave serving.image out"
)
_WITH_IMAGE = (ServerRuntime.TRITON, ServerRuntime.OVMS, ServerRuntime.KSERVE)
"""Runtimes whose server can be told what to serve while it runs."""

_MIXED = "'OpenVINO' in self.engines && self.engines.size() > 1"


def _is_version(pattern: str) -> str:
    """Return the CEL expression that there is no engine's version, that it is malformed, or that it matches."""
    form, quoted = (text.replace("\\", "\\\\") for text in (_FORM, pattern))
    version = "self.engineVersion"
    return f"!has({version}) || !{version}.matches('^({form})$') || {version}.matches('^({quoted})$')"


RULES = (
    ("self.runtime != 'OVMS' || self.engines == ['OpenVINO']", _OVMS_ONLY),
    ("self.runtime != 'Triton' || !('OpenVINO' in self.engines)", _NOT_IN_TRITON),
    (f"self.runtime != 'KServe' || !({_MIXED})", _ONE_OF_KSERVE),
    (f"!has(self.engineVersion) || !({_MIXED})", _ONE_VERSION),
    (f"{_is_version(_OF_ONNX_RUNTIME)} || 'OpenVINO' in self.engines", _WRONG_ORT),
    (f"{_is_version(_OF_OPENVINO)} || !('OpenVINO' in self.engines) || self.engines.size() > 1", _WRONG_OPENVINO),
    (f"!has(self.image) || self.runtime in {[str(runtime) for runtime in _WITH_IMAGE]}", _NO_IMAGE),
)
"""CEL rules of `spec.serving`, each with its sentence."""


def misfit(
    runtime: ServerRuntime, engines: Sequence[EngineName], version: str | None, image: str | None = None
) -> str | None:
    """Return why runtime, engines, version and image do not fit together, as a sentence without a full stop, or None.

    Args:
        runtime: What runs the bundle.
        engines: The engines that it may use.
        version: Version of the engine, where it is known.
        image: Image of the server, where the judge is to measure through it.
    """
    if image is not None and runtime not in _WITH_IMAGE:
        return _NO_IMAGE
    has_openvino = EngineName.OPENVINO in engines
    mixed = has_openvino and len(engines) > 1
    if runtime is ServerRuntime.OVMS and (mixed or not has_openvino):
        return _OVMS_ONLY
    if runtime is ServerRuntime.TRITON and has_openvino:
        return _NOT_IN_TRITON
    if runtime is ServerRuntime.KSERVE and mixed:
        return _ONE_OF_KSERVE
    return None if version is None else _wrong_version(version, has_openvino=has_openvino, mixed=mixed)


def written_for(runtime: ServerRuntime, engines: Sequence[EngineName]) -> ServerRuntime:
    """Return the server that a bundle is written for: KServe's stock server is one of two."""
    if runtime is not ServerRuntime.KSERVE:
        return runtime
    return ServerRuntime.OVMS if EngineName.OPENVINO in engines else ServerRuntime.TRITON


def _wrong_version(version: str, *, has_openvino: bool, mixed: bool) -> str | None:
    if mixed:
        return _ONE_VERSION
    pattern, fault = (_OF_OPENVINO, _WRONG_OPENVINO) if has_openvino else (_OF_ONNX_RUNTIME, _WRONG_ORT)
    return None if re.fullmatch(pattern, version) else fault
