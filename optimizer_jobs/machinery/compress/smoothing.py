"""SmoothQuant: move what makes a layer's input hard to hold in 8 bits from the input into the weights.

In transformers a few channels are far larger than the others, and one scale for all channels then loses the small
ones. Each channel of a layer's input is divided, and the weight's row multiplied, by the same number, so that the
product stays what it was. A weight that is not constant, or that several layers share, is never touched.
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
"""How much of an input's range moves into the weights: 0 nothing, 1 all.

On a sentence encoder more is a little better for rows like those observed, and worse for longer ones.
"""
_SMALLEST = 1e-5


def smooth(model: ModelProto, layers: Sequence[str], batches: Sequence[Mapping[str, Any]]) -> int:
    """Smooth the inputs of the named MatMul and Gemm layers in place, and return how many inputs that were.

    `batches` are inputs of the model on which value ranges are observed.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    groups = _groups(model, set(layers), weights)
    ranges = _ranges(model, list(groups), batches) if groups else {}
    for tensor, nodes in groups.items():
        arrays = [_rows_first(numpy_helper.to_array(weights[node.input[1]]), node) for node in nodes]
        scale = _scale(ranges[tensor], np.max([np.abs(array).max(axis=1) for array in arrays], axis=0))
        for node, array in zip(nodes, arrays, strict=True):
            made = np.ascontiguousarray(_rows_first(array * scale[:, None], node))
            weights[node.input[1]].CopyFrom(numpy_helper.from_array(made, node.input[1]))
        _divide(model, tensor, nodes, scale)
    return len(groups)


def _groups(model: ModelProto, layers: set[str], weights: Mapping[str, TensorProto]) -> dict[str, list[NodeProto]]:
    """Return the layers by the input they share, in the graph's order."""
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
    """Put a product with 1 / scale between the tensor and these layers that read it."""
    factor, smoothed = f"{tensor}_smoothing", f"{tensor}_smooth"
    model.graph.initializer.append(numpy_helper.from_array(1 / scale, factor))
    first = next(at for at, node in enumerate(model.graph.node) if node.output[0] == nodes[0].output[0])
    for node in nodes:
        node.input[0] = smoothed
    model.graph.node.insert(first, helper.make_node("Mul", [tensor, factor], [smoothed], name=f"{smoothed}_mul"))


def _rows_first(weight: Floats, node: NodeProto) -> Floats:
    """Return the weight with the axis that is summed over first; the same again turns it back."""
    return weight.T if is_set(node, "transB") else weight


def _scale(inputs: Floats, rows: Floats) -> Floats:
    """Return what each channel is divided by, from the largest magnitudes; a channel that is never used keeps 1."""
    used = (inputs > _SMALLEST) & (rows > _SMALLEST)
    scale = np.maximum(inputs, _SMALLEST) ** STRENGTH / np.maximum(rows, _SMALLEST) ** (1 - STRENGTH)
    return np.where(used, scale, 1).astype(np.float32)


def _ranges(model: ModelProto, tensors: Sequence[str], batches: Sequence[Mapping[str, Any]]) -> dict[str, Floats]:
    """Return the largest magnitude of every channel, the last axis, of each tensor."""
    known = {value.name for value in (*model.graph.input, *model.graph.output)}
    observed = ModelProto()
    observed.CopyFrom(model)
    observed.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in tensors if name not in known)
    session = session_of(observed)
    inside = [value.name for value in session.get_outputs()]
    largest: dict[str, Floats] = {}
    for batch in batches:
        seen = dict(batch) | dict(zip(inside, session.run(inside, dict(batch)), strict=True))
        for name in tensors:
            channels = np.abs(seen[name]).reshape(-1, seen[name].shape[-1]).max(axis=0)
            largest[name] = np.maximum(largest.get(name, channels), channels)
    return largest
