"""Static quantization: 8-bit weights and activations, with value ranges that were observed beforehand.

Transformers need more care than other models, because a few activations are far larger than the others and would make
the scale of all too coarse. They are moved into the weights first (SmoothQuant), and Softmax, normalization and sums
stay in float. NNCF quantizes all products that way. ONNX Runtime's quantizer is used for layers alone, which every
engine has fast kernels for. Embedding tables are stored by row, apart from it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress import codes, fallback, smoothing, tables
from optimizer_jobs.machinery.compress.calibration import batches, quiet, reader, sample
from optimizer_jobs.machinery.compress.layers import weighted
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
"""Cheap operators between layers. In 8 bits they save a conversion to float and back."""

LAYERS, WHOLE = "Layers", "LayersAndBetween"
"""Scope: layers alone, or the cheap operators between them too."""


def by_nncf(prepared: Path, target: Path, params: Params, *, context: Context) -> str | Skipped:
    """Write a transformer whose products are all in 8 bits; return what was done."""
    import nncf

    if context.calibration is None:
        return Skipped(reason="there are no calibration rows")
    pieces = batches(sample(context.calibration, int(params["samples"]), seed=context.seed), context)
    try:
        with quiet():
            quantized = nncf.quantize(
                onnx.load(prepared),
                nncf.Dataset(pieces),
                model_type=nncf.ModelType.TRANSFORMER,
                subset_size=len(pieces),
                preset=nncf.QuantizationPreset.MIXED,
            )
    except nncf.ValidationError as error:  # behind fused operators, whose outputs have no known shapes
        return Skipped(reason=f"NNCF cannot follow the graph: {str(error)[:200].rstrip('.')}")
    onnx.save(quantized, target)
    count = sum(node.op_type == "QuantizeLinear" for node in quantized.graph.node)
    return f"{count} activations"


def by_onnxruntime(
    prepared: Path, target: Path, params: Params, *, context: Context, layers: tuple[str, ...]
) -> str | Skipped:
    """Write the model with 8-bit layers, the most sensitive in float where params or limits ask for it.

    Args:
        prepared: The float file, with every node named.
        target: The new file.
        params: `method`, `samples`, `per_channel`, `fallback`, and maybe `scope`, `kept` and `kept_as`.
        context: Rows to observe, and how far a file misses the quality limits.
        layers: Names of the nodes that can be quantized.

    Returns:
        What was done, or why nothing was.
    """
    if context.calibration is None:
        return Skipped(reason="there are no calibration rows")
    rows = sample(context.calibration, int(params["samples"]), seed=context.seed)
    static = Static(prepared=prepared, params=params, context=context, rows=rows)
    floats = static.float_file(kept=())
    if floats is None:
        return Skipped(reason="there is no layer whose input can be smoothed")
    static.quantize(target, kept=())
    if int(params.get("kept", 0)):
        return _keep(static, floats, target, layers)
    if params["fallback"] == "None" or context.shortfall is None:
        return f"{len(layers)} layers"
    return _revert(static, floats, target, layers, context.shortfall)


def saturates(flags: frozenset[str]) -> bool:
    """Return whether 8-bit products overflow: x86 with AVX2 or AVX-512 but without VNNI needs 7-bit weights."""
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni"} & flags


@dataclass(frozen=True)
class Static:
    """Static quantization of one model with ranges from one set of rows, by ONNX Runtime's quantizer."""

    prepared: Path
    """The float file, with every node named."""
    params: Params
    context: Context
    rows: Rows
    """Rows on which value ranges are observed."""

    def float_file(self, kept: Sequence[str]) -> Path | None:
        """Return the file to quantize.

        Where the method says so, the inputs of its layers are smoothed, except those of the layers `kept` in float.
        None when no input can be smoothed.
        """
        if not self._smooths:
            return self.prepared
        graph = onnx.load(self.prepared)
        names = [node.name for node in weighted(graph, DYNAMIC_OPS) if node.name not in kept]
        if not smoothing.smooth(graph, names, batches(self.rows, self.context)) and not kept:
            return None
        smoothed = self.prepared.with_suffix(".smooth.onnx")
        onnx.save(graph, smoothed)
        return smoothed

    def quantize(self, target: Path, kept: Sequence[str]) -> None:
        """Write the quantized model. The nodes in `kept` stay in float, with weights stored as `kept_as` says."""
        from onnxruntime.quantization import quantize_static

        floats = self.float_file(kept) or self.prepared
        with quiet():
            quantize_static(
                floats,
                target,
                reader(batches(self.rows, self.context), self.context),
                nodes_to_exclude=[*kept, *self._beside(kept)],
                **self._numbers(),
                **(self._only_products() if self._smooths else self._whole_graph()),
            )
        if self.params.get("kept_as") == CODES:
            codes.store(target, kept)
        tables.store_in(target, self.params)

    @property
    def _smooths(self) -> bool:
        return self.params["method"] == SMOOTH_LAYERS

    @property
    def _arm(self) -> bool:
        return bool({"asimd", "neon"} & self.context.cpu_flags)

    def _numbers(self) -> dict[str, Any]:
        """Return the quantizer's options that say which integers this machine computes with."""
        from onnxruntime.quantization import QuantFormat, QuantType

        return {
            "quant_format": QuantFormat.QDQ,
            "per_channel": bool(self.params["per_channel"]),
            "reduce_range": saturates(self.context.cpu_flags),
            "activation_type": QuantType.QInt8 if self._arm else QuantType.QUInt8,
            "weight_type": QuantType.QInt8,
        }

    def _whole_graph(self) -> dict[str, Any]:
        """Return the quantizer's options for layers, and for what is between them where the scope says so."""
        around = AROUND_OPS if self.params.get("scope") == WHOLE else ()
        return {
            "op_types_to_quantize": [*STATIC_OPS, *around],
            "calibrate_method": _method(str(self.params["method"])),
            "extra_options": {"ActivationSymmetric": self._arm},
        }

    def _only_products(self) -> dict[str, Any]:
        """Return the quantizer's options for nothing but smoothed layers."""
        return {
            "op_types_to_quantize": [*DYNAMIC_OPS],
            "nodes_to_quantize": [node.name for node in weighted(onnx.load(self.prepared), DYNAMIC_OPS)],
            "calibrate_method": _method(CalibrationMethod.MIN_MAX),
            "extra_options": {
                "ActivationSymmetric": self._arm,
                "OpTypesToExcludeOutputQuantization": [*DYNAMIC_OPS],
                "DefaultTensorType": onnx.TensorProto.FLOAT,
            },
        }

    def _beside(self, kept: Sequence[str]) -> list[str]:
        """Return the cheap nodes next to a kept layer: in 8 bits they would quantize its input or output."""
        nodes = onnx.load(self.prepared).graph.node if kept else []
        tensors = {tensor for node in nodes if node.name in kept for tensor in (*node.input, *node.output)}
        return [node.name for node in nodes if node.op_type in AROUND_OPS and tensors & {*node.input, *node.output}]


def _keep(static: Static, floats: Path, target: Path, layers: Sequence[str]) -> str:
    """Return as many of the most sensitive layers to float as the parameters say."""
    count = int(static.params["kept"])
    worst = fallback.worst(target, floats, layers=layers, count=count, rows=static.rows, context=static.context)
    static.quantize(target, kept=worst)
    return f"{len(layers) - len(worst)} layers, {fallback.named(worst)} in float"


def _revert(
    static: Static, floats: Path, target: Path, layers: Sequence[str], shortfall: Callable[[Path], float]
) -> str | Skipped:
    """Return as many of the most sensitive layers to float as the quality limits need."""
    outcome = fallback.revert_worst(
        target,
        floats,
        layers=layers,
        quantize=static.quantize,
        shortfall=shortfall,
        rows=static.rows,
        context=static.context,
    )
    if len(outcome.kept) == len(layers):
        return Skipped(reason=f"quality holds only with all {len(layers)} layers in float")
    return outcome.words(len(layers))


def _method(name: str) -> Any:
    from onnxruntime.quantization import CalibrationMethod as Method

    methods = {
        CalibrationMethod.MIN_MAX: Method.MinMax,
        CalibrationMethod.ENTROPY: Method.Entropy,
        CalibrationMethod.PERCENTILE: Method.Percentile,
    }
    return methods[CalibrationMethod(name)]
