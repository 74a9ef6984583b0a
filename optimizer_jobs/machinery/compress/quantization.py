"""Quantize a model by one of the schemes, and see that the result runs.

Labels, scores and inputs keep their names, types and shapes. A file that ONNX Runtime refuses to open is never handed
on. Value ranges are observed on calibration rows only.
"""

from pathlib import Path

import onnx
from onnx import ModelProto

from optimizer_jobs.machinery.compress import aware, layers, one_line, schemes, smoothing, static, tables, weights
from optimizer_jobs.machinery.compress.calibration import batches, quiet, sample
from optimizer_jobs.machinery.compress.preparing import prepare
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.technique import ONE_LINE, Applied, Context, Params, Skipped
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
    if ONE_LINE in params:
        done = one_line.quantize(model, target, params, context)
    elif params["scheme"] == QuantizationScheme.HALF:
        done = _to_half(model, target)
    else:
        done = _to_integers(model, target, params, context)
        if not isinstance(done, Skipped) and not layers.is_quantized(layers.graph_of(target)):
            done = Skipped(reason="the quantizer left every layer in float")
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
        graph = prepare(model, prepared)
    if params.get("scope") == schemes.TABLES:
        return weights.tables_alone(prepared, target, params)
    ops = schemes.layers_of(QuantizationScheme(str(params["scheme"])))
    names = tuple(node.name for node in layers.weighted(graph, ops))
    if not names:
        return Skipped(reason=f"no {' or '.join(ops)} with constant weights is left to quantize")
    match params["scheme"]:
        case QuantizationScheme.WEIGHT_ONLY:
            return weights.weight_only(prepared, target, params)
        case QuantizationScheme.AWARE:
            return _aware(prepared, target, params, context=context)
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


def _aware(prepared: Path, target: Path, params: Params, *, context: Context) -> str | Skipped:
    """Quantize a network that trains on; its embedding tables are stored afterwards."""
    done = aware.quantize(prepared, target, params, context=context)
    if not isinstance(done, Skipped):
        tables.store_in(target, params)
    return done


def _smooth(graph: ModelProto, prepared: Path, params: Params, context: Context) -> int:
    """Rewrite the prepared file with smoothed inputs of its layers; return how many inputs that were."""
    if context.calibration is None:
        return 0
    observed = batches(sample(context.calibration, int(params["samples"]), seed=context.seed), context)
    names = [node.name for node in layers.weighted(graph, schemes.DYNAMIC_OPS)]
    count = smoothing.smooth(graph, names, observed)
    onnx.save(graph, prepared)
    return count


READABLE_BYTES = 512 << 20
"""Size up to which it is worth the time to see beforehand whether a quantizer can read a model."""


def unreadable(model: Path, *, into: Path) -> str | None:
    """Return why ONNX Runtime's quantizer cannot read a model, as words without a full stop, or None when it can.

    Args:
        model: The ONNX file.
        into: Scratch folder.
    """
    if model.stat().st_size > READABLE_BYTES:
        return None
    try:
        with quiet():
            prepare(model, into / "prepared.onnx")
    except Exception as error:  # noqa: BLE001 - the library raises whatever its graph passes raise
        return (
            f"ONNX Runtime's quantizer cannot read the graph ({type(error).__name__}: {str(error)[:200].rstrip('.')})"
        )
    return None
