"""ONNX Runtime's quantizers as their documentation calls them: one line, with their defaults, on the file as it is.

This is what a user would try first, so a search must not end with less. Nothing is prepared, chosen or repaired here.
"""

from pathlib import Path

from optimizer_jobs.machinery.compress.calibration import batches, quiet, reader, sample
from optimizer_jobs.machinery.compress.layers import graph_of, is_quantized
from optimizer_jobs.technique import Context, Params, Skipped
from retune.api.techniques import QuantizationScheme

ROWS = 100
"""Calibration rows of the static quantizer."""


def quantize(model: Path, target: Path, params: Params, context: Context) -> str | Skipped:
    """Write the quantized model; return what was done, or why it stayed as it was.

    Args:
        model: The ONNX file.
        target: The new file.
        params: `scheme`: Dynamic, or Static with ranges of `samples` rows.
        context: Rows to observe.
    """
    from onnxruntime.quantization import QuantFormat, quantize_dynamic, quantize_static

    rows, dynamic = context.calibration, params["scheme"] == QuantizationScheme.DYNAMIC
    with quiet():
        if dynamic:
            quantize_dynamic(model, target)
        elif rows is None:
            return Skipped(reason="there are no calibration rows")
        else:
            observed = reader(batches(sample(rows, int(params["samples"]), seed=context.seed), context), context)
            quantize_static(model, target, observed, quant_format=QuantFormat.QDQ, per_channel=True)
    if not is_quantized(graph_of(target)):
        return Skipped(reason=f"quantize_{'dynamic' if dynamic else 'static'} finds nothing to quantize in it")
    return "all defaults" if dynamic else f"QDQ per channel, MinMax of {params['samples']} rows"
