"""OpenVINO Model Server: a `config.json` with one model, and the model's folder beside it.

The server always computes with OpenVINO. A bundle that was judged in ONNX Runtime is opened and asked here first,
where OpenVINO is installed; without it, only what is plain from the signature is refused.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions, Precision
from optimizer_jobs.serving.base import Layout, called, lost_rows, model_files, version_of
from optimizer_jobs.serving.trial import ENGINES, try_out
from optimizer_jobs.signature import TEXT
from retune.contract.results import Reason

CONFIG = "config.json"
_HINTS: Mapping[Precision, str] = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_INSTEAD = (
    "Render it for Triton, which runs ONNX Runtime too, or optimize again with OpenVINO alone in spec.serving.engines."
)


def layout(bundle: Bundle, *, name: str, delivered: bool = False) -> Layout:
    """Return the files for OpenVINO Model Server.

    Args:
        bundle: The bundle.
        name: Name that clients ask the model by.
        delivered: Whether it stands for a model as delivered, which no digest names.

    Raises:
        JobError: The server cannot serve it; the message says why and what to do.
    """
    _check(bundle)
    trial = try_out(bundle, EngineOptions(engine="openvino"), instead=_INSTEAD)
    version = version_of(bundle, delivered=delivered)
    config = json.dumps(_config(bundle, name, version), indent=2) + "\n"
    files = {CONFIG: config.encode(), **model_files(bundle, name, version=version)}
    return Layout(files=files, lost=tuple(_lost(bundle)), tried=trial.words)


def _check(bundle: Bundle) -> None:
    signature, engine = bundle.manifest.signature, bundle.manifest.engine
    texts = [spec.name for spec in (*signature.inputs, *signature.outputs) if spec.dtype == TEXT]
    fault = f"{texts[0]!r} is text, and OpenVINO has no texts in ONNX files." if texts else ""
    if engine.engine == "tensorrt":
        fault = "it was made for TensorRT on an NVIDIA GPU, and OpenVINO Model Server has neither."
    if fault:
        raise JobError(Reason.MODEL_INVALID, called(bundle), fault, _INSTEAD)


def _config(bundle: Bundle, name: str, version: int) -> dict[str, Any]:
    model = {
        "name": name,
        "base_path": name,
        "model_version_policy": {"specific": {"versions": [version]}},  # else the largest number would be served
        "target_device": "CPU",  # left out, a GPU would be taken where there is one
        "plugin_config": _properties(bundle.manifest.engine),
    }
    return {"model_config_list": [{"config": model}]}


def _properties(options: EngineOptions) -> dict[str, str | int | bool]:
    """Return OpenVINO's properties for our options. Streams are text, as the server's own documentation has them."""
    is_own = options.engine == "openvino"
    return {
        "NUM_STREAMS": str(options.streams if is_own else 1),
        "INFERENCE_NUM_THREADS": options.threads * (options.streams if is_own else 1),
        "INFERENCE_PRECISION_HINT": _HINTS[options.precision if is_own else "float32"],
        "ENABLE_CPU_PINNING": False,
    }


def _lost(bundle: Bundle) -> Iterator[str]:
    options = bundle.manifest.engine
    if options.engine != "openvino":
        yield (
            f"The bundle was judged in {ENGINES[options.engine]}, and this server computes with OpenVINO: the "
            "verdict's latency and memory do not hold here, and only its number of threads is kept."
        )
    yield from lost_rows(bundle)
    if options.planned is not None:
        yield (
            "The bundle has a second copy of the model, compiled for its most frequent shape; this server has one, for "
            "any shape."
        )
    yield "This server has no warm-up, so that golden requests are not asked before it is ready."
