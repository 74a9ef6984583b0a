"""Quantization-aware training: a network learns weights and ranges that round well, and is written with 8-bit layers.

The network trains on as the plan says, with the float model as a teacher beside the labels. Every number that will be
an integer is rounded during training already, and exactly these numbers are written: int8 weights, and QuantizeLinear
and DequantizeLinear with the trained ranges, which engines run as integer kernels.
"""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.calibration import batches, sample
from optimizer_jobs.machinery.compress.layers import PRODUCTS, graph_of, is_set, name_nodes, weighted
from optimizer_jobs.machinery.compress.static import saturates
from optimizer_jobs.technique import Context, Params, Skipped

if TYPE_CHECKING:
    from optimizer_jobs.nets.conversion.importer import GraphModule
    from optimizer_jobs.nets.learning.rounding import Grid

Floats = NDArray[np.float32]

_EPOCHS = 15
_LEVELS, _SAFE_LEVELS = 127, 63
"""Largest integer of a weight, and the largest one where products of 8-bit numbers overflow."""
_EXAMPLES = 4
_TOLERANCE = 0.05
"""Largest difference between the trained network and the file, relative to the largest answer. Summing in another order
can round a value in the middle between two integers to the other one."""
_SMALLEST = 1e-8


def quantize(prepared: Path, target: Path, params: Params, *, context: Context) -> str | Skipped:
    """Write the model with 8-bit layers after training; return what was done, or why nothing was.

    Args:
        prepared: The float file, with every node named.
        target: The new file.
        params: `samples` to observe, and whether weights have a scale `per_channel`.
        context: Rows, training plan and flags of the machine.
    """
    from optimizer_jobs.nets.conversion.exporter import ExportError
    from optimizer_jobs.nets.conversion.importer import not_importable

    reason = not_importable(graph_of(prepared))
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
    from optimizer_jobs.nets.conversion.importer import import_module
    from optimizer_jobs.nets.learning import rounding
    from optimizer_jobs.nets.learning.determinism import deterministic

    module = import_module(prepared)
    grid = rounding.Grid(
        weight_levels=_SAFE_LEVELS if saturates(context.cpu_flags) else _LEVELS,
        per_channel=bool(params["per_channel"]),
        signed=bool({"asimd", "neon"} & context.cpu_flags),
    )
    pieces = batches(sample(rows, int(params["samples"]), seed=context.seed), context)
    with deterministic(seed=context.seed, threads=context.threads):
        rounds = _round(module, grid, pieces, context)
    if not rounds:
        return Skipped(reason="the network has no linear layer or convolution that would run on integers")
    words = _train_on(module, prepared, context)
    rounding.settle(module)
    layers = _export(module, grid, target, context)
    return f"{layers} layers, {words}"


def _round(module: "GraphModule", grid: "Grid", pieces: Sequence[Mapping[str, Any]], context: Context) -> bool:
    """Round weights and activations in place, with ranges found on batches; return whether there are layers."""
    import torch

    from optimizer_jobs.nets.learning import rounding
    from optimizer_jobs.nets.learning.losses import task_scores

    scores = partial(
        task_scores, context.task, place=context.signature.score_place, scale=context.signature.score_scale
    )
    inputs = [tuple(torch.from_numpy(piece[spec.name]) for spec in context.signature.inputs) for piece in pieces]
    with torch.no_grad():
        answers = [scores(module(*batch)) for batch in inputs]
    rounded = rounding.round_layers(module, grid)
    rounding.find_ranges(module, rounded, inputs, answers, context.task, scores=scores, alive=context.alive)
    return bool(rounded)


def _train_on(module: "GraphModule", teacher: Path, context: Context) -> str:
    """Train on; the weights stay as they were where training made nothing better. Return what was done."""
    from optimizer_jobs.nets.learning.loop import train_on

    before = copy.deepcopy(module.state_dict())
    trained = train_on(module, context, model=teacher, epochs=_EPOCHS)
    if trained.quality >= trained.before:
        return f"{trained.epochs} epochs, {trained.quality:.4g} on validation, {trained.before:.4g} before"
    module.load_state_dict(before)
    return f"training made nothing better than {trained.before:.4g} on validation"


def _export(module: "GraphModule", grid: "Grid", target: Path, context: Context) -> int:
    """Write the network with int8 weights; return how many layers have them."""
    from optimizer_jobs.nets.conversion.exporter import export

    counts = list[int]()

    def store(graph: ModelProto) -> None:
        counts.append(_store(graph, levels=grid.weight_levels, per_channel=grid.per_channel))

    examples = context.examples(_EXAMPLES)
    export(module, signature=context.signature, examples=examples, target=target, rewrite=store, tolerance=_TOLERANCE)
    return counts[0]


def _store(model: ModelProto, *, levels: int, per_channel: bool) -> int:
    """Store, in place, the weights of layers with rounded inputs as int8; return how many layers that were.

    The weights must be whole multiples of a scale, at most `levels` of it, so that nothing is lost. Biases become
    int32 with the product of the scales of input and weight, as integer kernels add them.
    """
    name_nodes(model)
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    makers = {tensor: node for node in model.graph.node for tensor in node.output}
    integers = _Integers(model, constants, levels=levels, per_channel=per_channel)
    layers = [node for node in weighted(model, PRODUCTS) if _runs_on_integers(node, constants, makers)]
    for node in layers:
        input_scale = makers[node.input[0]].input[1]
        integers.store(node, float(_value(input_scale, constants, makers)))
    integers.finish()
    return len(layers)


def _runs_on_integers(node: NodeProto, constants: Mapping[str, TensorProto], makers: Mapping[str, NodeProto]) -> bool:
    """Return whether a layer's input is rounded, and its weight is a constant matrix or filter."""
    maker, weight = makers.get(node.input[0]), constants.get(node.input[1])
    rounded = maker is not None and maker.op_type == "DequantizeLinear"
    return rounded and weight is not None and len(weight.dims) > 1


class _Integers:
    """Stores weights of a graph as integers."""

    def __init__(self, model: ModelProto, constants: dict[str, TensorProto], *, levels: int, per_channel: bool) -> None:
        self._model, self._constants, self._levels, self._per_channel = model, constants, levels, per_channel
        self._nodes: list[NodeProto] = []
        self._scales: dict[str, Floats] = {}

    def store(self, node: NodeProto, input_scale: float) -> None:
        """Store the weight of a layer, and its bias where it has one, as integers that the layer reads."""
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
        """Put the nodes that read integers first, and drop the floats that nothing reads any more."""
        graph = self._model.graph
        nodes = [*self._nodes, *graph.node]
        del graph.node[:]
        graph.node.extend(nodes)
        read = {name for node in nodes for name in node.input}
        kept = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.initializer[:]
        graph.initializer.extend(kept)

    def _put(self, name: str, values: Floats, scale: Floats, *, axis: int, dtype: type[np.integer[Any]]) -> None:
        """Add integers, scale and zero point, and the node that makes floats of them, `NAME/float`.

        `scale` is one number, or one for each place along `axis`.
        """
        scales = scale.reshape([-1 if place == axis else 1 for place in range(values.ndim)]) if scale.ndim else scale
        limits = np.iinfo(dtype)
        integers = np.clip(np.rint(values.astype(np.float64) / scales), limits.min, limits.max).astype(dtype)
        zeros = np.zeros(scale.shape, dtype=dtype)  # without a zero point, ONNX Runtime has no kernel for a Gemm
        shared = "/".join(["zeros", str(zeros.dtype), *map(str, zeros.shape)])
        parts = {f"{name}/integers": integers, f"{name}/scale": np.asarray(scale), shared: zeros}
        present = {tensor.name for tensor in self._model.graph.initializer}
        self._model.graph.initializer.extend(
            numpy_helper.from_array(array, part) for part, array in parts.items() if part not in present
        )
        node = helper.make_node("DequantizeLinear", list(parts), [f"{name}/float"], name=f"{name}/dequantize")
        node.attribute.extend([helper.make_attribute("axis", axis)] if scale.ndim else [])
        self._nodes.append(node)


def _axis(node: NodeProto) -> int:
    """Return the axis of a layer's weight that counts its outputs."""
    return 0 if node.op_type == "Conv" or is_set(node, "transB") else 1


def _value(name: str, constants: Mapping[str, TensorProto], makers: Mapping[str, NodeProto]) -> NDArray[Any]:
    """Return a constant, whether the graph has it as an initializer or as a node."""
    if name in constants:
        return np.asarray(numpy_helper.to_array(constants[name]))
    return np.asarray(numpy_helper.to_array(helper.get_attribute_value(makers[name].attribute[0])))
