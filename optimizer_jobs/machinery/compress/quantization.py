"""Quantize a model by one of the schemes, and see that the result runs.

Labels, scores and inputs keep their names, types and shapes. A file that ONNX Runtime refuses to open is never handed
on. Value ranges are observed on calibration rows only.
"""

from pathlib import Path

import onnx
from onnx import ModelProto

from optimizer_jobs.machinery.compress import aware, dialect, layers, schemes, smoothing, static, weights
from optimizer_jobs.machinery.compress.calibration import batches, quiet, sample
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import Applied, Context, Params, Skipped
from retune.api.techniques import QuantizationScheme


def quantize(model: Path, params: Params, context: Context, *, words: str) -> Applied | Skipped:
    """Write the quantized model; skipped when there is nothing to quantize, or the result does not run or gain.

    Args:
        model: The ONNX file.
        params: The scheme, and what it depends on.
        context: Where the new file goes, and the rows to observe and train on.
        words: What the summary calls these parameters.
    """
    target = context.workdir / "model.onnx"
    if params["scheme"] == QuantizationScheme.HALF:
        done = _to_half(model, target)
    else:
        done = _to_integers(model, target, params, context)
    if isinstance(done, Skipped):
        return done
    try:
        open_model(target, EngineOptions(spinning=False))
    except EngineError as error:
        return Skipped(reason=f"ONNX Runtime does not run the result: {str(error)[:200]}")
    return Applied(model=target, summary=f"{words}: {done}")


def _to_half(model: Path, target: Path) -> str | Skipped:
    done = weights.half(model, target)
    return done if target.stat().st_size < model.stat().st_size else Skipped(reason="16-bit floats save nothing")


def _to_integers(model: Path, target: Path, params: Params, context: Context) -> str | Skipped:
    """Quantize to 8 bits or fewer; return what was done."""
    prepared = context.workdir / "prepared.onnx"
    with quiet():
        graph = _prepare(model, prepared)
    if params.get("per_channel") and dialect.opset(graph) < dialect.PER_CHANNEL_OPSET:
        return Skipped(
            reason=f"its operator set {dialect.opset(graph)} has no scales for each channel, and onnx cannot upgrade it"
        )
    ops = schemes.layers_of(QuantizationScheme(str(params["scheme"])))
    names = tuple(node.name for node in layers.weighted(graph, ops))
    if not names:
        return Skipped(reason=f"no {' or '.join(ops)} with constant weights is left to quantize")
    match params["scheme"]:
        case QuantizationScheme.WEIGHT_ONLY:
            return weights.weight_only(prepared, target, params)
        case QuantizationScheme.AWARE:
            return aware.quantize(prepared, target, params, context=context)
        case QuantizationScheme.DYNAMIC:
            return _dynamic(graph, prepared, target, params, context=context)
    if params["method"] == schemes.SMOOTH:
        return static.by_nncf(prepared, target, params, context=context)
    return static.by_onnxruntime(prepared, target, params, context=context, layers=names)


def _dynamic(graph: ModelProto, prepared: Path, target: Path, params: Params, *, context: Context) -> str | Skipped:
    """Quantize with ranges found while running, after smoothing where the parameters say so."""
    if params.get("method") == schemes.SMOOTH and not _smooth(graph, prepared, params, context):
        return Skipped(reason="there are no calibration rows, or no layer whose input can be smoothed")
    return weights.dynamic(prepared, target, params, context=context)


def _smooth(graph: ModelProto, prepared: Path, params: Params, context: Context) -> int:
    """Rewrite the prepared file with smoothed inputs of its layers; return how many inputs that were."""
    if context.calibration is None:
        return 0
    observed = batches(sample(context.calibration, int(params["samples"]), seed=context.seed), context)
    names = [node.name for node in layers.weighted(graph, schemes.DYNAMIC_OPS)]
    count = smoothing.smooth(graph, names, observed)
    onnx.save(graph, prepared)
    return count


def _prepare(model: Path, target: Path) -> ModelProto:
    """Write the model as quantizers need it.

    Its operators are recent ones, its weights float32, its shapes inferred, its constants folded, every node named.
    """
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(_in_dialect(model, target.with_suffix(".dialect.onnx")), target, skip_symbolic_shape=True)
    prepared = onnx.load(target)
    layers.name_nodes(prepared)
    _flatten_biases(prepared)
    onnx.save(prepared, target)
    return prepared


def _in_dialect(model: Path, target: Path) -> Path:
    """Return the file, or a new one with operators that have scales for each channel, and with weights in float32."""
    proto = onnx.load(model)
    modern = dialect.upgraded(proto, dialect.PER_CHANNEL_OPSET) or proto
    if not dialect.to_single(modern) and modern is proto:
        return model
    onnx.save(modern, target)
    return target


def _flatten_biases(model: ModelProto) -> None:
    """Give the bias of a Gemm with shape (1, N) the shape (N,); the sum is the same.

    The fusion of MatMul and Add leaves such a bias, and the per-channel quantizer of ONNX Runtime 1.32 fails on it.
    """
    biases = {node.input[2] for node in model.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    for tensor in model.graph.initializer:
        if tensor.name in biases and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]
