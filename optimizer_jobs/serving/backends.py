"""Triton's backends: how each is told a bundle's engine options, and which of them it cannot be told.

What a backend understands is read from its source (onnxruntime_backend and openvino_backend of June and August 2026).
"""

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineError, EngineOptions, Precision
from optimizer_jobs.serving.base import called, lost_rows
from optimizer_jobs.serving.prototext import Fields
from optimizer_jobs.serving.trial import try_out
from optimizer_jobs.signature import TEXT, Signature
from retune.contract.results import Reason

_LEVELS = {"basic": -1, "extended": 1, "disabled": 2}
"""Triton's number of each graph level; without one, the whole graph is rewritten."""
_MODES: Mapping[Precision, str] = {"float32": "FP32", "float16": "FP16", "bfloat16": "BF16"}
_OPENVINO_LACKS = (TEXT, "float64")
"""Element types that Triton's backend for OpenVINO does not take."""


@dataclass(frozen=True)
class Backend:
    """What the configuration says of the backend."""

    name: str
    signature: Signature
    """Inputs and outputs with the shapes that the backend itself reports: it compares them exactly."""
    parameters: dict[str, str]
    lost: tuple[str, ...]
    tried: str
    instances: int = 1
    kind: str = "KIND_CPU"
    optimization: Fields | None = None


def backend_of(bundle: Bundle, *, instead: str) -> Backend:
    """Return the backend of a bundle's engine, set to its options.

    Args:
        bundle: The bundle.
        instead: What a person does where it cannot work, as a sentence.

    Raises:
        JobError: The backend cannot serve the bundle, or what has to be asked of the engine is not installed here.
    """
    if bundle.manifest.engine.engine == "openvino":
        return _openvino(bundle, instead)
    return _onnxruntime(bundle, instead)


def _onnxruntime(bundle: Bundle, instead: str) -> Backend:
    options = bundle.manifest.engine
    same = EngineOptions(spinning=False, graph_level=options.graph_level)
    trial = try_out(bundle, same, instead=instead)
    is_gpu = options.engine == "tensorrt"
    lost = [*lost_rows(bundle), *([] if is_gpu else _lost_on_cpu(options))]
    return Backend(
        name="onnxruntime",
        signature=trial.session.signature if trial.session else bundle.manifest.signature,
        parameters={
            "intra_op_thread_count": str(options.threads),
            "inter_op_thread_count": "1",
            "execution_mode": "0",
        },
        lost=tuple(lost),
        tried=f"{trial.words} TensorRT was not tried." if is_gpu else trial.words,
        kind="KIND_GPU" if is_gpu else "KIND_CPU",
        optimization=[*_graph(options), *(_tensorrt(options) if is_gpu else [])] or None,
    )


def _graph(options: EngineOptions) -> Fields:
    level = _LEVELS.get(options.graph_level)
    return [] if level is None else [("graph", [("level", level)])]


def _tensorrt(options: EngineOptions) -> Fields:
    """Return the accelerator; a model that it cannot be started for is not served, least of all on the CPU."""
    mode: Fields = [("key", "precision_mode"), ("value", _MODES[options.precision])]
    return [
        ("execution_accelerators", [("gpu_execution_accelerator", [("name", "tensorrt"), ("parameters", mode)])]),
    ]


def _lost_on_cpu(options: EngineOptions) -> list[str]:
    lost = []
    if not options.spinning:
        lost.append(
            "The bundle's idle threads do not spin; Triton has no setting for it and lets them spin, which costs other "
            "processes on the same cores."
        )
    if options.precision != "float32":
        lost.append(
            f"The bundle multiplies in {options.precision} on Arm processors that have it; Triton has no setting for "
            "it and computes in the format of the file."
        )
    return lost


def _openvino(bundle: Bundle, instead: str) -> Backend:
    options = bundle.manifest.engine
    _check_openvino(bundle, instead)
    trial = try_out(bundle, EngineOptions(engine="openvino"), instead=instead)
    if trial.session is None:
        raise JobError(
            Reason.ENGINE_UNAVAILABLE,
            called(bundle),
            "Triton wants the shapes of outputs exactly as OpenVINO infers them, and OpenVINO is not installed here.",
            "Install the extra `engines`, or use the optimizer's image.",
        )
    hints = {"HINT_BF16": "YES"} if options.precision == "bfloat16" else {}
    return Backend(
        name="openvino",
        signature=_inferred(bundle, instead),
        parameters={
            "TARGET_DEVICE": "CPU",
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": str(options.streams),
            "INFERENCE_NUM_THREADS": str(options.threads * options.streams),
            **hints,
        },
        lost=(*lost_rows(bundle), *_lost_in_openvino(options)),
        tried=trial.words,
        instances=options.streams,
    )


def _check_openvino(bundle: Bundle, instead: str) -> None:
    signature = bundle.manifest.signature
    for spec in (*signature.inputs, *signature.outputs):
        fault = f"type {spec.dtype}" if spec.dtype in _OPENVINO_LACKS else "" if spec.shape else "no axis"
        if fault:
            refusal = f"{spec.name!r} has {fault}, which Triton's backend for OpenVINO does not take."
            raise JobError(Reason.MODEL_INVALID, called(bundle), refusal, instead)


def _inferred(bundle: Bundle, instead: str) -> Signature:
    """Return the bundle's signature with the shapes of outputs as OpenVINO infers them."""
    from optimizer_jobs.models.openvino import inferred_outputs

    signature = bundle.manifest.signature
    try:
        shapes = inferred_outputs(bundle.model)
    except EngineError as error:
        raise JobError(Reason.MODEL_INVALID, called(bundle), f"OpenVINO: {error}.", instead) from error
    names = [spec.name for spec in signature.outputs]
    if sorted(names) != sorted(shapes):
        fault = f"OpenVINO calls its outputs {', '.join(shapes)} and not {', '.join(names)}, and Triton goes by these."
        raise JobError(Reason.MODEL_INVALID, called(bundle), fault, instead)
    outputs = tuple(spec.model_copy(update={"shape": shapes[spec.name]}) for spec in signature.outputs)
    return signature.model_copy(update={"outputs": outputs})


def _lost_in_openvino(options: EngineOptions) -> list[str]:
    lost = ["The bundle's threads are not pinned to cores; Triton has no setting for it, and OpenVINO may pin them."]
    if options.planned is not None:
        lost.append(
            "The bundle has a second copy of the model, compiled for its most frequent shape; Triton has one, for any "
            "shape."
        )
    if options.precision == "float32":
        lost.append(
            "The bundle computes in float32; Triton has no setting for it, and on processors that have 16-bit floats "
            "in hardware OpenVINO computes in these."
        )
    if options.precision == "float16":
        lost.append("The bundle computes in float16; Triton has no setting for it.")
    return lost
