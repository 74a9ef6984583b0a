"""Static quantization: 8-bit weights and activations, with ranges that were observed beforehand.

Quantized like other models, transformers keep nothing of what they had learned: outliers of their activations are
moved into the weights first (SmoothQuant), and Softmax, normalization and sums stay in float. NNCF does that with all
products; our own way takes layers and embedding tables alone, which every engine has fast kernels for.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress import codes, fallback, smoothing
from optimizer_jobs.machinery.compress.calibration import batches, quiet, reader, sample
from optimizer_jobs.machinery.compress.layers import tables, weighted
from optimizer_jobs.machinery.compress.schemes import CODES, DYNAMIC_OPS, SMOOTH_LAYERS, STATIC_OPS
from optimizer_jobs.technique import Context, Params, Skipped
from retune.api.techniques import CalibrationMethod

AROUND_OPS = (
    "Add",
    "AveragePool",
    "Clip",
    "Concat",
    "Flatten",
    "GlobalAveragePool",
    "MaxPool",
    "Mul",
    "Relu",
    "Reshape",
    "Transpose",
)
"""Cheap operators between layers; in 8 bits they spare a conversion to float and back."""

LAYERS, WHOLE = "Layers", "LayersAndBetween"


def smooth(prepared: Path, target: Path, params: Params, *, context: Context) -> str | Skipped:
    """Write a transformer with 8-bit products; return what was done."""
    import nncf
    import onnx

    if context.calibration is None:
        return Skipped(reason="there are no calibration rows")
    pieces = batches(sample(context.calibration, int(params["samples"]), seed=context.seed), context)
    try:
        with quiet():
            made = nncf.quantize(
                onnx.load(prepared),
                nncf.Dataset(pieces),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(pieces),
                preset=nncf.QuantizationPreset.MIXED,
            )
    except nncf.ValidationError as error:  # it loses its way behind fused operators, which no shape comes out of
        return Skipped(reason=f"NNCF cannot follow the graph: {str(error)[:200].rstrip('.')}")
    onnx.save(made, target)
    count = sum(node.op_type == "QuantizeLinear" for node in made.graph.node)
    return f"{count} activations"


def calibrated(
    prepared: Path, target: Path, params: Params, *, context: Context, layers: tuple[str, ...]
) -> str | Skipped:
    """Write the model with 8-bit layers, the worst in float where limits ask for it; return what was done."""
    if context.calibration is None:
        return Skipped(reason="there are no calibration rows")
    rows = sample(context.calibration, int(params["samples"]), seed=context.seed)
    static = Static(prepared=prepared, params=params, context=context, rows=rows)
    floats = static.floats(kept=())
    if floats is None:
        return Skipped(reason="there is no layer whose input can be smoothed")
    static.quantize(target, kept=())
    count = int(params.get("kept", 0))
    if count:
        worst = fallback.worst(target, floats, layers=layers, count=count, rows=rows, context=context)
        static.quantize(target, kept=worst)
        return f"{len(layers) - len(worst)} layers, {fallback.named(worst)} in float"
    if params["fallback"] == "None" or context.shortfall is None:
        return f"{len(layers)} layers"
    outcome = fallback.revert_worst(
        target,
        floats,
        layers=layers,
        quantize=static.quantize,
        shortfall=context.shortfall,
        batches=batches(rows.take(np.arange(min(len(rows), fallback.RANKING_ROWS))), context),
    )
    if len(outcome.kept) == len(layers):
        return Skipped(reason=f"quality holds only with all {len(layers)} layers in float")
    return outcome.words(len(layers))


def saturates(flags: frozenset[str]) -> bool:
    """Return whether 8-bit products overflow: x86 with AVX2 or AVX-512 but without VNNI needs 7-bit weights."""
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni"} & flags


@dataclass(frozen=True)
class Static:
    """Static quantization of one model on one set of rows, with some layers kept in float."""

    prepared: Path
    params: Params
    context: Context
    rows: Rows

    def floats(self, kept: Sequence[str]) -> Path | None:
        """Return the file to quantize: with smooth inputs of its layers, `kept` ones apart, where the method says so.

        None when there is nothing to smooth.
        """
        import onnx

        if self.params["method"] != SMOOTH_LAYERS:
            return self.prepared
        graph = onnx.load(self.prepared)
        names = [node.name for node in weighted(graph, DYNAMIC_OPS) if node.name not in kept]
        if not smoothing.smooth(graph, names, batches(self.rows, self.context)) and not kept:
            return None
        smooth = self.prepared.with_suffix(".smooth.onnx")
        onnx.save(graph, smooth)
        return smooth

    def quantize(self, target: Path, kept: Sequence[str]) -> None:
        """Write the quantized model; `kept` names the nodes that stay in float, their weights stored as is asked."""
        import onnx
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        arm = {"asimd", "neon"} & self.context.cpu_flags
        smooth = self.params["method"] == SMOOTH_LAYERS
        floats = self.floats(kept) or self.prepared
        around = AROUND_OPS if self.params.get("scope") == WHOLE else ()
        ops = [*DYNAMIC_OPS, "Gather"] if smooth else [*STATIC_OPS, *around]
        with quiet():
            quantize_static(
                floats,
                target,
                reader(batches(self.rows, self.context)),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=ops,
                per_channel=bool(self.params["per_channel"]),
                nodes_to_quantize=self._products() if smooth else None,
                reduce_range=saturates(self.context.cpu_flags),
                nodes_to_exclude=[*kept, *self._beside(kept)],
                activation_type=QuantType.QInt8 if arm else QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                calibrate_method=_method(CalibrationMethod.MIN_MAX if smooth else str(self.params["method"])),
                extra_options={
                    "ActivationSymmetric": bool(arm),
                    "OpTypesToExcludeOutputQuantization": ops if smooth else [],
                    **({"DefaultTensorType": onnx.TensorProto.FLOAT} if smooth else {}),
                },
            )
        if self.params.get("kept_as") == CODES:
            codes.store(target, kept)

    def _products(self) -> list[str]:
        """Return the names of layers and embedding tables."""
        import onnx

        graph = onnx.load(self.prepared)
        return [node.name for node in (*weighted(graph, DYNAMIC_OPS), *tables(graph))]

    def _beside(self, kept: Sequence[str]) -> list[str]:
        """Return the nodes between layers that touch a kept one: in 8 bits they would quantize its input or output."""
        import onnx

        nodes = onnx.load(self.prepared).graph.node if kept else []
        tensors = {tensor for node in nodes if node.name in kept for tensor in (*node.input, *node.output)}
        return [node.name for node in nodes if node.op_type in AROUND_OPS and tensors & {*node.input, *node.output}]


def _method(name: str) -> Any:
    from onnxruntime.quantization import CalibrationMethod as Method

    return {
        CalibrationMethod.MIN_MAX: Method.MinMax,
        CalibrationMethod.ENTROPY: Method.Entropy,
        CalibrationMethod.PERCENTILE: Method.Percentile,
    }[CalibrationMethod(name)]
