"""Technique Quantization: smaller numbers in place of 32-bit floats.

Calibration reads the calibration rows only. Labels, scores and inputs keep their names, types and shapes. A file that
ONNX Runtime refuses to open is never handed on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from optimizer_jobs.machinery.compress import aware, layers, schemes, smoothing, static, weights
from optimizer_jobs.machinery.compress.calibration import batches, quiet, sample
from optimizer_jobs.machinery.compress.schemes import BLOCK_SIZES, CODES, DYNAMIC_OPS, FLOATS, SMOOTH, SMOOTH_LAYERS
from optimizer_jobs.machinery.compress.static import LAYERS, WHOLE
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.techniques import Quantization, QuantizationScheme, TechniqueType
from retune.api.techniques import Technique as TechniqueSpec

if TYPE_CHECKING:
    import onnx
    from optuna.trial import BaseTrial

TYPE = TechniqueType.QUANTIZATION
CHEAP = False
TRAINS = False

OFF = "Off"
_BY_NNCF = (QuantizationScheme.STATIC, SMOOTH)
_METHOD_WORDS = {SMOOTH_LAYERS: "smooth layers"}


def unavailable(subject: Subject, spec: TechniqueSpec) -> str | None:
    """Return why this model cannot be quantized with the schemes that spec and data allow."""
    return schemes.unavailable(spec, subject)


def suggest(trial: "BaseTrial", spec: TechniqueSpec, subject: Subject) -> Params | None:
    """Choose scheme, calibration method or bits, how finely numbers share a scale, and how much stays in float."""
    variant = str(trial.suggest_categorical(f"{spec.name}.variant", (OFF, *schemes.variants(spec, subject))))
    per_channel = bool(trial.suggest_categorical(f"{spec.name}.per_channel", (True, False)))
    scope = str(trial.suggest_categorical(f"{spec.name}.scope", (LAYERS, WHOLE)))
    block_size = BLOCK_SIZES[0]
    if QuantizationScheme.WEIGHT_ONLY in schemes.schemes(spec, subject):
        block_size = int(trial.suggest_categorical(f"{spec.name}.block_size", BLOCK_SIZES))
    kept, choices = 0, schemes.kept_choices(spec, subject)
    if len(choices) > 1:
        kept = int(trial.suggest_categorical(f"{spec.name}.kept", choices))
    kept_as, ways = FLOATS, schemes.kept_as_choices(spec, subject)
    if len(ways) > 1:
        kept_as = str(trial.suggest_categorical(f"{spec.name}.kept_as", ways))
    if variant == OFF:
        return None
    found = _that_matter(
        variant, schemes.settings_of(spec), per_channel=per_channel, scope=scope, block_size=block_size
    )
    return _stored(_with_kept(found, kept if subject.calibration else 0), kept_as)


def defaults(spec: TechniqueSpec, subject: Subject) -> tuple[Params, ...]:
    """Return every scheme with every calibration method and number of bits, per channel and in small blocks.

    Transformers lose most by few layers, so the one of theirs that can leave layers in float is asked with a few, too.
    """
    choices = schemes.kept_choices(spec, subject)
    few = {f"{spec.name}.kept": choices[min(len(choices) // 2 + 1, len(choices) - 1)]}
    found = list[Params]()
    for variant in schemes.variants(spec, subject):
        found.append(_told(spec, subject, variant))
        if variant.endswith(SMOOTH_LAYERS) and len(choices) > 1:
            found.append(found[-1] | few)
    return tuple(found)


def off(spec: TechniqueSpec, subject: Subject) -> Params:
    """Return no quantization."""
    return _told(spec, subject, OFF)


def describe(params: Params) -> str:
    """Return scheme, calibration and granularity in words."""
    match QuantizationScheme(str(params["scheme"])):
        case QuantizationScheme.HALF:
            return "float16"
        case QuantizationScheme.WEIGHT_ONLY:
            return f"int{params['bits']} weights in blocks of {params['block_size']}"
        case QuantizationScheme.AWARE:
            words = ["int8 trained"]
        case scheme:
            words = ["int8", scheme.lower()]
    if "method" in params:
        words += [_METHOD_WORDS.get(str(params["method"]), str(params["method"]).lower())]
        words += ["layers only"] if params.get("scope") == LAYERS else []
    words += [] if params.get("per_channel", True) else ["per tensor"]
    words += [f"but {params['kept']} most sensitive"] if "kept" in params else []
    words += ["stored in 8-bit codes"] if {"kept", "kept_as"} <= params.keys() else []
    return " ".join(words)


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Quantize; skipped when there is nothing to quantize, or nothing comes out that runs and gains."""
    target = context.workdir / "model.onnx"
    done = (
        _half(model, target)
        if params["scheme"] == QuantizationScheme.HALF
        else _eighth(model, target, params, context=context)
    )
    if isinstance(done, Skipped):
        return done
    try:
        open_model(target, EngineOptions(spinning=False))
    except EngineError as error:
        return Skipped(reason=f"ONNX Runtime does not run the result: {str(error)[:200]}")
    return Applied(model=target, summary=f"{describe(params)}: {done}")


def _half(model: Path, target: Path) -> str | Skipped:
    done = weights.half(model, target)
    return done if target.stat().st_size < model.stat().st_size else Skipped(reason="16-bit floats save nothing")


def _eighth(model: Path, target: Path, params: Params, *, context: Context) -> str | Skipped:
    """Quantize to 8 bits or fewer; return what was done."""
    prepared = context.workdir / "prepared.onnx"
    with quiet():
        graph = _prepare(model, prepared)
    ops = schemes.layers_of(QuantizationScheme(str(params["scheme"])))
    names = tuple(node.name for node in layers.weighted(graph, ops))
    if not names:
        return Skipped(reason=f"no {' or '.join(ops)} with constant weights is left to quantize")
    match params["scheme"], params.get("method"):
        case QuantizationScheme.STATIC, schemes.SMOOTH:
            return static.smooth(prepared, target, params, context=context)
        case QuantizationScheme.WEIGHT_ONLY, _:
            return weights.weight_only(prepared, target, params)
        case QuantizationScheme.AWARE, _:
            return aware.quantize(prepared, target, params, context=context)
        case QuantizationScheme.DYNAMIC, schemes.SMOOTH if not _smooth(graph, prepared, params, context=context):
            return Skipped(reason="there are no calibration rows, or no layer whose input can be smoothed")
        case QuantizationScheme.DYNAMIC, _:
            return weights.dynamic(prepared, target, params, context=context)
    return static.calibrated(prepared, target, params, context=context, layers=names)


def _smooth(graph: "onnx.ModelProto", prepared: Path, params: Params, *, context: Context) -> int:
    """Rewrite the prepared file with smooth inputs of its layers; return how many."""
    import onnx

    if context.calibration is None:
        return 0
    observed = batches(sample(context.calibration, int(params["samples"]), seed=context.seed), context)
    count = smoothing.smooth(graph, [node.name for node in layers.weighted(graph, DYNAMIC_OPS)], observed)
    onnx.save(graph, prepared)
    return count


def _that_matter(variant: str, settings: Quantization, *, per_channel: bool, scope: str, block_size: int) -> Params:
    """Return the parameters that the result of a variant depends on."""
    scheme, _, detail = variant.partition(" ")
    observed: Params = {"method": detail, "samples": settings.calibration.samples}
    match scheme:
        case QuantizationScheme.STATIC if detail == SMOOTH:
            return {"scheme": scheme, **observed}
        case QuantizationScheme.STATIC if detail == SMOOTH_LAYERS:
            return {"scheme": scheme, **observed, "per_channel": per_channel, "fallback": settings.fallback}
        case QuantizationScheme.STATIC:
            further: Params = {"per_channel": per_channel, "scope": scope, "fallback": settings.fallback}
            return {"scheme": scheme, **observed, **further}
        case QuantizationScheme.DYNAMIC:
            return {"scheme": scheme, "per_channel": per_channel, **(observed if detail == SMOOTH else {})}
        case QuantizationScheme.WEIGHT_ONLY:
            return {"scheme": scheme, "bits": int(detail), "block_size": block_size}
        case QuantizationScheme.AWARE:
            return {"scheme": scheme, "samples": settings.calibration.samples, "per_channel": per_channel}
    return {"scheme": scheme}


def _with_kept(params: Params, kept: int) -> Params:
    """Return parameters that leave so many layers in float; then nothing is reverted beyond them.

    NNCF follows a graph of its own, and 4-bit weights have no activations to rank by.
    """
    ranked = params["scheme"] in schemes.RANKED and (params["scheme"], params.get("method")) != _BY_NNCF
    if not kept or not ranked:
        return params
    return params | {"kept": kept} | ({"fallback": "None"} if "fallback" in params else {})


def _stored(params: Params, kept_as: str) -> Params:
    """Return parameters that say how layers in float are stored, where there may be some."""
    some = "kept" in params or params.get("fallback", "None") != "None"
    return params | {"kept_as": kept_as} if some and kept_as != FLOATS else params


def _told(spec: TechniqueSpec, subject: Subject, variant: str) -> Params:
    """Return all parameters of a trial."""
    told: Params = {f"{spec.name}.variant": variant, f"{spec.name}.per_channel": True, f"{spec.name}.scope": WHOLE}
    if len(schemes.kept_choices(spec, subject)) > 1:
        told[f"{spec.name}.kept"] = 0
    if len(schemes.kept_as_choices(spec, subject)) > 1:
        told[f"{spec.name}.kept_as"] = CODES
    if QuantizationScheme.WEIGHT_ONLY in schemes.schemes(spec, subject):
        told[f"{spec.name}.block_size"] = BLOCK_SIZES[0]
    return told


def _prepare(model: Path, target: Path) -> "onnx.ModelProto":
    """Write the model with shapes inferred, constants folded and every node named, as the quantizer needs it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(model, target, skip_symbolic_shape=True)
    prepared = onnx.load(target)
    layers.name_nodes(prepared)
    _flatten_biases(prepared)
    onnx.save(prepared, target)
    return prepared


def _flatten_biases(model: "onnx.ModelProto") -> None:
    """Make a Gemm's bias of shape (1, N) one of shape (N,), which is the same sum.

    The fusion of MatMul and Add leaves such a bias, and the per-channel quantizer of ONNX Runtime 1.32 fails on it.
    """
    biases = {node.input[2] for node in model.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    for tensor in model.graph.initializer:
        if tensor.name in biases and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]
