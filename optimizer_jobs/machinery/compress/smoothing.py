"""SmoothQuant (Xiao et al., 2022): move what is hard to hold in 8 bits from the input of a layer into its weights.

In transformers a few channels are far larger than the others, and one scale for all channels then loses the small
ones. Each channel of a layer's input is divided, and its row of the weight multiplied, by the same number, so that the
product stays the same. A weight that is not constant, or that several nodes read, is never touched.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.compress.calibration import session_of
from optimizer_jobs.machinery.compress.layers import is_set

Floats = NDArray[np.float32]

STRENGTH = 0.7
"""How much of an input's range moves into the weights: 0 is nothing, 1 is all.

On a sentence encoder, more than this was a little better for texts like those observed, and worse for longer ones.
"""
_SMALLEST = 1e-5
"""Magnitude up to which a channel counts as unused."""


def smooth(model: ModelProto, layers: Sequence[str], batches: Sequence[Mapping[str, Any]]) -> int:
    """Smooth, in place, the inputs of the named MatMul and Gemm layers; return how many inputs that were.

    Args:
        model: The float model.
        layers: Names of the nodes.
        batches: Inputs of the model on which value ranges are observed.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    groups = _groups(model, set(layers), weights)
    ranges = _ranges(model, list(groups), batches) if groups else {}
    for tensor, nodes in groups.items():
        arrays = [_rows_first(numpy_helper.to_array(weights[node.input[1]]), node) for node in nodes]
        scale = _scale(ranges[tensor], np.max([np.abs(array).max(axis=1) for array in arrays], axis=0))
        for node, array in zip(nodes, arrays, strict=True):
            scaled = np.ascontiguousarray(_rows_first(array * scale[:, None], node))
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(scaled, node.input[1]))
        _divide(model, tensor, nodes, scale)
    return len(groups)


def _groups(model: ModelProto, layers: set[str], weights: Mapping[str, TensorProto]) -> dict[str, list[NodeProto]]:
    """Return the layers that can be smoothed, by the input that they share, in the order of the graph."""
    uses = Counter(name for node in model.graph.node for name in node.input)
    groups: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        weight = weights.get(node.input[1]) if node.name in layers and node.op_type in {"MatMul", "Gemm"} else None
        if weight is None or weight.data_type != TensorProto.FLOAT or len(weight.dims) != 2 or is_set(node, "transA"):
            continue
        if uses[weight.name] == 1:
            groups.setdefault(node.input[0], []).append(node)
    return groups


def _divide(model: ModelProto, tensor: str, nodes: Sequence[NodeProto], scale: Floats) -> None:
    """Multiply the tensor by 1 / scale before these layers, which read it."""
    factor, smoothed = f"{tensor}_smoothing", f"{tensor}_smooth"
    model.graph.initializer.append(numpy_helper.from_array(1 / scale, factor))
    first = next(at for at, node in enumerate(model.graph.node) if node.output[0] == nodes[0].output[0])
    for node in nodes:
        node.input[0] = smoothed
    model.graph.node.insert(first, helper.make_node("Mul", [tensor, factor], [smoothed], name=f"{smoothed}_mul"))


def _rows_first(weight: Floats, node: NodeProto) -> Floats:
    """Return the weight with its summed axis first; the same again brings it back."""
    return weight.T if is_set(node, "transB") else weight


def _scale(inputs: Floats, rows: Floats) -> Floats:
    """Return what each channel is divided by; 1 for a channel that is never used.

    Args:
        inputs: Largest magnitude of each channel of the input, (channels,).
        rows: Largest magnitude of each row of the weights, (channels,).
    """
    used = (inputs > _SMALLEST) & (rows > _SMALLEST)
    scale = np.maximum(inputs, _SMALLEST) ** STRENGTH / np.maximum(rows, _SMALLEST) ** (1 - STRENGTH)
    return np.where(used, scale, 1).astype(np.float32)


def _ranges(model: ModelProto, tensors: Sequence[str], batches: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """Return the largest magnitude of every channel (the last axis) of each tensor, over all batches."""
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    observed = ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors if name not in known)
    session = session_of(observed)
    inside = [value.name for value in session.get_outputs()]
    largest: dict[str, Floats] = {}
    for batch in batches:
        values = dict(batch) | dict(zip(inside, session.run(inside, dict(batch)), strict=True))
        for name in tensors:
            channels = np.abs(values[name]).reshape(-1, values[name].shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, channels), channels)
    return largest
