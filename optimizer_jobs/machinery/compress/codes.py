"""Float weights stored in a file as 8-bit codes: a quarter of the bytes, and the same computation in floats.

A table gives each code its level, and every output channel has a scale. The graph looks up the levels and scales them.
All of that is constant, so an engine does it once when it opens the file, and then runs as with float weights. It is
not written as DequantizeLinear, because engines would unpack the weights at every call.
"""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.compress.layers import is_set

_MOST = 127
"""The largest level; the smallest is its negative."""
_LEVELS = "retune_levels"


def store(path: Path, layers: Iterable[str]) -> int:
    """Rewrite a file with the float32 weights of the named layers as codes; return how many weights that were.

    A weight that is not constant, or that several nodes read, is left as it is.
    """
    model, names = onnx.load(path), set(layers)
    weights = {tensor.name: tensor for tensor in model.graph.initializer if tensor.data_type == TensorProto.FLOAT}
    readers = [name for node in model.graph.node for name in node.input]
    nodes = list(model.graph.node)
    del model.graph.node[:]
    stored = 0
    for node in nodes:
        weight = node.input[1] if node.name in names else ""
        if weight in weights and readers.count(weight) == 1:
            values = numpy_helper.to_array(weights[weight])
            model.graph.initializer.remove(weights[weight])
            _unpack(model, weight, values, axis=_channels(node, values.ndim))
            stored += 1
        model.graph.node.append(node)
    if stored:
        levels = np.arange(-_MOST, _MOST + 1, dtype=np.float32)
        model.graph.initializer.append(numpy_helper.from_array(levels, _LEVELS))
        onnx.save(model, path)
    return stored


def _channels(node: NodeProto, axes: int) -> int:
    """Return the axis of a layer's weight that counts its output channels."""
    return 0 if node.op_type == "Conv" or is_set(node, "transB") else axes - 1


def _unpack(model: ModelProto, name: str, values: NDArray[np.float32], *, axis: int) -> None:
    """Append codes and scales of a weight, and the nodes that compute the weight from them under its old name."""
    others = tuple(other for other in range(values.ndim) if other != axis)
    scale = np.abs(values).max(axis=others, keepdims=True) / _MOST
    scale = np.where(scale > 0, scale, 1).astype(np.float32)
    codes = (np.rint(values / scale) + _MOST).astype(np.uint8)
    parts = {"codes": codes, "scale": scale}
    model.graph.initializer.extend(numpy_helper.from_array(array, f"{name}_{part}") for part, array in parts.items())
    model.graph.node.extend(
        [
            helper.make_node("Cast", [f"{name}_codes"], [f"{name}_places"], to=TensorProto.INT32),
            helper.make_node("Gather", [_LEVELS, f"{name}_places"], [f"{name}_levels"]),
            helper.make_node("Mul", [f"{name}_levels", f"{name}_scale"], [name]),
        ]
    )
