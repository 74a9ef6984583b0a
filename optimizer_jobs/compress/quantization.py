"""Technique Quantization: 8-bit weights and activations, with ranges found while running or calibrated beforehand.

Dynamic quantization never touches convolutions: the engine's kernels for it are several times slower than floats.
Calibration reads the calibration rows only. Labels, scores and inputs keep their names, types and shapes.
"""

import contextlib
import io
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer_jobs.compress import fallback
from optimizer_jobs.compress.base import Applied, Context, Params, Skipped
from optimizer_jobs.data.datasets import Rows
from retune.api.spec import CalibrationMethod, Quantization, QuantizationScheme, TechniqueType
from retune.api.spec import Technique as TechniqueSpec

if TYPE_CHECKING:
    import onnx
    from optuna.trial import BaseTrial

TYPE = TechniqueType.QUANTIZATION
CHEAP = False

OFF = "Off"
DYNAMIC_OPS = ("MatMul", "Gemm")
STATIC_OPS = ("Conv", "MatMul", "Gemm")
AROUND_OPS = (
    "Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul", "Relu", "Reshape",
    "Transpose",
)  # fmt: skip
"""Cheap operators between layers; in 8 bits they spare a conversion to float and back."""

LAYERS, WHOLE = "Layers", "LayersAndBetween"
_CALIBRATION_BATCH = 64


def unavailable(model: "onnx.ModelProto", spec: TechniqueSpec, *, calibration: bool) -> str | None:
    """Return why this model cannot be quantized with the schemes that the data allows."""
    kinds = {node.op_type for node in _weighted_nodes(model)}
    if any(node.op_type in {"QuantizeLinear", "DequantizeLinear", "MatMulInteger"} for node in model.graph.node):
        return "the model is quantized already"
    schemes = _schemes(spec, calibration=calibration)
    if not schemes:
        return "static quantization needs data.training or data.calibration to observe value ranges on"
    wanted = set(STATIC_OPS if QuantizationScheme.STATIC in schemes else DYNAMIC_OPS)
    if not kinds & wanted:
        return f"the model has no {' or '.join(sorted(wanted))} with constant weights to quantize"
    return None


def suggest(trial: "BaseTrial", spec: TechniqueSpec, *, calibration: bool) -> Params | None:
    """Choose scheme, calibration method and scope."""
    variant = str(trial.suggest_categorical(f"{spec.name}.variant", (OFF, *_variants(spec, calibration=calibration))))
    per_channel = bool(trial.suggest_categorical(f"{spec.name}.per_channel", (True, False)))
    scope = str(trial.suggest_categorical(f"{spec.name}.scope", (LAYERS, WHOLE)))
    scheme, _, method = variant.partition(" ")
    if scheme == OFF:
        return None
    params: Params = {"scheme": scheme, "per_channel": per_channel}
    if scheme == QuantizationScheme.STATIC:
        settings = _settings(spec)
        params |= {"method": method, "scope": scope, "samples": settings.calibration.samples,
                   "fallback": settings.fallback}  # fmt: skip
    return params


def defaults(spec: TechniqueSpec, *, calibration: bool) -> tuple[Params, ...]:
    """Return every scheme with every calibration method, per channel."""
    return tuple(
        {f"{spec.name}.variant": variant, f"{spec.name}.per_channel": True, f"{spec.name}.scope": WHOLE}
        for variant in _variants(spec, calibration=calibration)
    )


def off(spec: TechniqueSpec) -> Params:
    """Return no quantization."""
    return {f"{spec.name}.variant": OFF, f"{spec.name}.per_channel": True, f"{spec.name}.scope": WHOLE}


def describe(params: Params) -> str:
    """Return scheme, calibration and granularity in words."""
    words = ["int8", str(params["scheme"]).lower()]
    if "method" in params:
        words += [str(params["method"]).lower(), *(["layers only"] if params["scope"] == LAYERS else [])]
    return " ".join(words + ([] if params["per_channel"] else ["per tensor"]))


def apply(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Quantize; with a fallback, return the layers that hurt most to float until the quality limits hold."""
    import onnx

    prepared = context.workdir / "prepared.onnx"
    with _quiet():
        _prepare(model, prepared)
    ops = DYNAMIC_OPS if params["scheme"] == QuantizationScheme.DYNAMIC else STATIC_OPS
    layers = tuple(node.name for node in _weighted_nodes(onnx.load(prepared)) if node.op_type in ops)
    if not layers:
        return Skipped(reason=f"no {' or '.join(ops)} with constant weights is left to quantize")
    target = context.workdir / "model.onnx"
    if params["scheme"] == QuantizationScheme.DYNAMIC:
        _dynamic(prepared, target, params, context)
        return Applied(model=target, summary=f"{describe(params)}: {len(layers)} layers")
    return _static_with_fallback(prepared, target, params, context=context, layers=layers)


def _static_with_fallback(
    prepared: Path, target: Path, params: Params, *, context: Context, layers: tuple[str, ...]
) -> Applied | Skipped:
    if context.calibration is None:
        return Skipped(reason="there are no calibration rows")
    rows = _sample(context.calibration, int(params["samples"]), seed=context.seed)
    static = _Static(prepared=prepared, params=params, context=context, rows=rows)
    static.quantize(target, kept=())
    if params["fallback"] == "None" or context.shortfall is None:
        return Applied(model=target, summary=f"{describe(params)}: {len(layers)} layers")
    outcome = fallback.revert_worst(
        target, prepared, layers=layers, quantize=static.quantize, shortfall=context.shortfall,
        batches=_batches(rows.take(np.arange(min(len(rows), fallback.RANKING_ROWS))), context),
    )  # fmt: skip
    if len(outcome.kept) == len(layers):
        return Skipped(reason=f"quality holds only with all {len(layers)} layers in float")
    return Applied(model=target, summary=f"{describe(params)}: {outcome.words(len(layers))}")


@dataclass(frozen=True)
class _Static:
    """Static quantization of one model on one set of rows, with some layers kept in float."""

    prepared: Path
    params: Params
    context: Context
    rows: Rows

    def quantize(self, target: Path, kept: Sequence[str]) -> None:
        """Write the quantized model; `kept` names the nodes that stay in float."""
        from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

        arm = {"asimd", "neon"} & self.context.cpu_flags
        ops = [*STATIC_OPS, *(AROUND_OPS if self.params["scope"] == WHOLE else ())]
        with _quiet():
            quantize_static(
                self.prepared, target, _reader(_batches(self.rows, self.context)),
                quant_format=QuantFormat.QDQ, op_types_to_quantize=ops, per_channel=bool(self.params["per_channel"]),
                reduce_range=_saturates(self.context.cpu_flags), nodes_to_exclude=[*kept, *self._beside(kept)],
                activation_type=QuantType.QInt8 if arm else QuantType.QUInt8, weight_type=QuantType.QInt8,
                calibrate_method=_method(str(self.params["method"])), extra_options={"ActivationSymmetric": bool(arm)},
            )  # fmt: skip

    def _beside(self, kept: Sequence[str]) -> list[str]:
        """Return the nodes between layers that touch a kept one: in 8 bits they would quantize its input or output."""
        import onnx

        nodes = onnx.load(self.prepared).graph.node if kept else []
        tensors = {tensor for node in nodes if node.name in kept for tensor in (*node.input, *node.output)}
        return [node.name for node in nodes if node.op_type in AROUND_OPS and tensors & {*node.input, *node.output}]


def _dynamic(prepared: Path, target: Path, params: Params, context: Context) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet():
        quantize_dynamic(
            prepared, target, op_types_to_quantize=list(DYNAMIC_OPS), per_channel=bool(params["per_channel"]),
            reduce_range=_saturates(context.cpu_flags), weight_type=QuantType.QInt8,
        )  # fmt: skip


def _prepare(model: Path, target: Path) -> None:
    """Write the model with shapes inferred, constants folded and every node named, as the quantizer needs it."""
    import onnx
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(model, target, skip_symbolic_shape=True)
    prepared = onnx.load(target)
    for number, node in enumerate(prepared.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"
    _flatten_biases(prepared)
    onnx.save(prepared, target)


def _flatten_biases(model: "onnx.ModelProto") -> None:
    """Make a Gemm's bias of shape (1, N) one of shape (N,), which is the same sum.

    The fusion of MatMul and Add leaves such a bias, and the per-channel quantizer of ONNX Runtime 1.32 fails on it.
    """
    biases = {node.input[2] for node in model.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    for tensor in model.graph.initializer:
        if tensor.name in biases and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]


def _weighted_nodes(model: "onnx.ModelProto") -> list["onnx.NodeProto"]:
    """Return the layers: nodes of the ONNX domain that multiply by a constant."""
    constants = {tensor.name for tensor in model.graph.initializer}
    constants |= {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}
    return [
        node for node in model.graph.node
        if node.op_type in STATIC_OPS and node.domain in {"", "ai.onnx"} and constants & set(node.input[:2])
    ]  # fmt: skip


def _settings(spec: TechniqueSpec) -> Quantization:
    return spec.quantization or Quantization()


def _schemes(spec: TechniqueSpec, *, calibration: bool) -> tuple[QuantizationScheme, ...]:
    allowed = set(QuantizationScheme) if calibration else {QuantizationScheme.DYNAMIC}
    return tuple(scheme for scheme in _settings(spec).schemes if scheme in allowed)


def _variants(spec: TechniqueSpec, *, calibration: bool) -> tuple[str, ...]:
    """Return `Static MinMax`, `Static Percentile`, `Dynamic`: what the spec and the data allow."""
    methods = _settings(spec).calibration.methods
    return tuple(
        variant
        for scheme in _schemes(spec, calibration=calibration)
        for variant in (
            [f"{scheme} {method}" for method in methods] if scheme == QuantizationScheme.STATIC else [scheme]
        )
    )


def _saturates(flags: frozenset[str]) -> bool:
    """Return whether 8-bit products overflow: x86 with AVX2 or AVX-512 but without VNNI needs 7-bit weights."""
    return "avx2" in flags and not {"avx512_vnni", "avx_vnni"} & flags


def _method(name: str) -> Any:
    from onnxruntime.quantization import CalibrationMethod as Method

    return {CalibrationMethod.MIN_MAX: Method.MinMax, CalibrationMethod.ENTROPY: Method.Entropy,
            CalibrationMethod.PERCENTILE: Method.Percentile}[CalibrationMethod(name)]  # fmt: skip


def _sample(rows: Rows, count: int, *, seed: int) -> Rows:
    """Return `count` rows drawn without replacement, in their order; all of them when there are fewer."""
    drawn = np.random.default_rng(seed).permutation(len(rows))[:count]
    return rows.take(np.sort(drawn))


def _batches(rows: Rows, context: Context) -> list[dict[str, Any]]:
    """Return the model's inputs in batches of one size, as histograms need it; a rest that fills none is left out."""
    pieces = -(-len(rows) // _CALIBRATION_BATCH)
    size = context.signature.batch or len(rows) // pieces
    return [dict(rows.take(slice(at, at + size)).inputs) for at in range(0, len(rows) - size + 1, size)]


def _reader(batches: Sequence[dict[str, Any]]) -> Any:
    from onnxruntime.quantization import CalibrationDataReader

    class Reader(CalibrationDataReader):  # type: ignore[misc] # the library has no types
        """Hands the batches out one by one."""

        def __init__(self) -> None:
            self._left = iter(batches)

        def get_next(self) -> dict[str, Any] | None:
            return next(self._left, None)

        def rewind(self) -> None:
            self._left = iter(batches)

    return Reader()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hold back the quantizer's advice in log and stdout; errors still pass."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(before)
