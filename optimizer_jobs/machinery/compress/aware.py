"""Quantization-aware training: a network learns weights and ranges that round well, and is written with 8-bit layers.

The network trains on as the plan says, with the float model as a teacher beside the labels, while everything that will
be an integer is rounded already. What is written are the very numbers that it was trained with: int8 weights, and
QuantizeLinear and DequantizeLinear with the trained ranges, which engines run as integer kernels.
"""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.calibration import batches, sample
from optimizer_jobs.machinery.compress.layers import PRODUCTS, name_nodes, weighted
from optimizer_jobs.machinery.compress.static import saturates
from optimizer_jobs.technique import Context, Params, Skipped

Floats = NDArray[np.float32]

_EPOCHS = 15
_LEVELS, _SAFE_LEVELS = 127, 63
_EXAMPLES = 4
_TOLERANCE = 0.05
"""Largest difference between the trained network and the file, relative to the largest answer: where a value lies
between two integers, sums in another order may fall to the other one."""
_SMALLEST = 1e-8


def quantize(prepared: Path, target: Path, params: Params, *, context: Context) -> str | Skipped:
    """Write the model with 8-bit layers after training; return what was done."""
    from optimizer_jobs.nets.conversion.exporter import ExportError
    from optimizer_jobs.nets.conversion.importer import not_importable

    reason = not_importable(onnx.load(prepared, load_external_data=False))
    rows = context.calibration or context.training
    if context.training is None or rows is None:
        reason = "there are no rows to train on while weights are rounded"
    if reason is not None or rows is None:
        return Skipped(reason=str(reason))
    try:
        return _quantized(prepared, target, rows, params, context=context)
    except ExportError as error:
        return Skipped(reason=str(error).removesuffix("."))


def _quantized(prepared: Path, target: Path, rows: Rows, params: Params, *, context: Context) -> str | Skipped:
    import torch

    from optimizer_jobs.nets.conversion.exporter import export
    from optimizer_jobs.nets.conversion.importer import import_module
    from optimizer_jobs.nets.learning import rounding
    from optimizer_jobs.nets.learning.determinism import deterministic
    from optimizer_jobs.nets.learning.losses import scores_of

    module = import_module(prepared)
    pieces = batches(sample(rows, int(params["samples"]), seed=context.seed), context)
    inputs = [tuple(torch.from_numpy(piece[spec.name]) for spec in context.signature.inputs) for piece in pieces]
    grid = rounding.Grid(
        weight_levels=_SAFE_LEVELS if saturates(context.cpu_flags) else _LEVELS,
        per_channel=bool(params["per_channel"]),
        signed=bool({"asimd", "neon"} & context.cpu_flags),
    )
    with deterministic(seed=context.seed, threads=context.threads):
        with torch.no_grad():
            answers = [scores_of(module(*given)) for given in inputs]
        rounded = rounding.round_layers(module, grid)
        rounding.find_ranges(module, rounded, inputs, answers, context.task)
    if not rounded:
        return Skipped(reason="the network has no linear layer or convolution that would run on integers")
    words = _train_on(module, prepared, context)
    rounding.settle(module)
    stored = list[int]()
    export(
        module,
        signature=context.signature,
        examples=context.examples(_EXAMPLES),
        target=target,
        tolerance=_TOLERANCE,
        rewrite=lambda graph: stored.append(store(graph, levels=grid.weight_levels, per_channel=grid.per_channel)),
    )
    return f"{stored[0]} layers, {words}"


def _train_on(module: Any, teacher: Path, context: Context) -> str:
    """Train on; what was there before stays where training made nothing better. Return what was done."""
    import copy

    from optimizer_jobs.nets.learning.loop import train_on

    before = copy.deepcopy(module.state_dict())
    trained = train_on(module, context, model=teacher, epochs=_EPOCHS)
    if trained.quality >= trained.before:
        return f"{trained.epochs} epochs, {trained.quality:.4g} on validation, {trained.before:.4g} before"
    module.load_state_dict(before)
    return f"training made nothing better than {trained.before:.4g} on validation"


def store(model: ModelProto, *, levels: int, per_channel: bool) -> int:
    """Store the weights of layers whose input is rounded as int8, in place, and return how many layers that were.

    The weights must be multiples of a scale already, of which the largest is `levels`, so that nothing is lost. Biases
    become int32 of the product of both scales, as integer kernels add them.
    """
    name_nodes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    stored = _Stored(model, constants, levels=levels, per_channel=per_channel)
    layers = [
        node
        for node in weighted(model, PRODUCTS)
        if node.input[0] in makers
        and makers[node.input[0]].op_type == "DequantizeLinear"
        and node.input[1] in constants
        and len(constants[node.input[1]].dims) > 1
    ]
    for node in layers:
        stored.layer(node, float(_value(makers[node.input[0]].input[1], constants, makers)))
    stored.finish()
    return len(layers)


class _Stored:
    """A graph while its weights become integers."""

    def __init__(self, model: ModelProto, constants: dict[str, TensorProto], *, levels: int, per_channel: bool) -> None:
        self._model, self._constants, self._levels, self._per_channel = model, constants, levels, per_channel
        self._nodes: list[NodeProto] = []
        self._scales: dict[str, Floats] = {}

    def layer(self, node: NodeProto, input_scale: float) -> None:
        """Let a layer read its weight, and its bias where it has one, from integers."""
        weight, axis = node.input[1], _axis(node)
        if weight not in self._scales:
            values = numpy_helper.to_array(self._constants[weight])
            others = tuple(place for place in range(values.ndim) if place != axis)
            largest = np.abs(values).max(axis=others if self._per_channel else None)
            self._scales[weight] = np.maximum(np.float32(largest) / np.float32(self._levels), np.float32(_SMALLEST))
            self._put(weight, values, self._scales[weight], axis=axis, dtype=np.int8)
        node.input[1] = f"{weight}/float"
        if len(node.input) > 2 and node.input[2] in self._constants:
            bias = f"{node.name}/bias"
            values = numpy_helper.to_array(self._constants[node.input[2]])
            self._put(bias, values, self._scales[weight] * np.float32(input_scale), axis=0, dtype=np.int32)
            node.input[2] = f"{bias}/float"

    def finish(self) -> None:
        """Put the nodes that read integers before all others, and drop the floats that nothing reads any more."""
        graph = self._model.graph
        nodes = [*self._nodes, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _put(self, name: str, values: Floats, scale: Floats, *, axis: int, dtype: type[np.integer[Any]]) -> None:
        spread = scale.reshape([-1 if place == axis else 1 for place in range(values.ndim)]) if scale.ndim else scale
        limits = np.iinfo(dtype)
        integers = np.clip(np.rint(values.astype(np.float64) / spread), limits.min, limits.max).astype(dtype)
        zeros = np.zeros(scale.shape, dtype=dtype)  # without a zero point, ONNX Runtime has no kernel for a Gemm
        shared = "/".join(["zeros", str(zeros.dtype), *map(str, zeros.shape)])
        parts = {f"{name}/integers": integers, f"{name}/scale": np.asarray(scale), shared: zeros}
        made = {tensor.name for tensor in self._model.graph.initializer}
        self._model.graph.initializer.extend(
            numpy_helper.from_array(array, part) for part, array in parts.items() if part not in made
        )
        node = helper.make_node("DequantizeLinear", list(parts), [f"{name}/float"], name=f"{name}/dequantize")
        node.attribute.extend([helper.make_attribute("axis", axis)] if scale.ndim else [])
        self._nodes.append(node)


def _axis(node: NodeProto) -> int:
    """Return the axis of a layer's weight that its outputs lie on."""
    turned = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if node.op_type == "Conv" or turned else 1


def _value(name: str, constants: dict[str, TensorProto], makers: dict[str, NodeProto]) -> NDArray[Any]:
    """Return a constant, wherever the graph has it."""
    if name in constants:
        return np.asarray(numpy_helper.to_array(constants[name]))
    return np.asarray(numpy_helper.to_array(helper.get_attribute_value(makers[name].attribute[0])))
