"""What the quantizers look for in a graph: layers, embedding tables, attention, and how much there is to gain.

Reads graphs without external data too, so it uses shapes and never values.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path

import onnx
from onnx import ModelProto, NodeProto, TensorProto

from optimizer_jobs.nets.dense import is_dense

PRODUCTS = ("Conv", "MatMul", "Gemm")
"""Operators that multiply by constant weights."""
TABLE_BYTES = 64 << 10
"""Bytes from which on an embedding table is worth to be quantized."""
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "MatMulInteger", "MatMulNBits", "GatherBlockQuantized"}
_FUSED_ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention"}
_BETWEEN = {"Add", "Sub", "Mul", "Div", "Where", "Cast", "Reshape", "Transpose", "Identity", "Dropout", "Expand"}
"""Operators that may lie between the products of an attention and its Softmax: scaling, masks, other shapes."""


def graph_of(model: Path) -> ModelProto:
    """Return the graph without external data, which is all that most questions need."""
    return onnx.load(model, load_external_data=False)


def weighted(model: ModelProto, ops: Iterable[str] = PRODUCTS) -> list[NodeProto]:
    """Return the layers: nodes of the ONNX domain and of these types that multiply by a constant."""
    constants = _constants(model)
    wanted = set(ops)
    return [
        node
        for node in model.graph.node
        if node.op_type in wanted and node.domain in {"", "ai.onnx"} and constants & set(node.input[:2])
    ]


def tables(model: ModelProto) -> list[NodeProto]:
    """Return the Gather nodes that look rows up in a large constant table of float32, shape (entries, width)."""
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    return [
        node
        for node in model.graph.node
        if node.op_type == "Gather"
        and node.input[0] in weights
        and _is_table(weights[node.input[0]])
        and all(attribute.i == 0 for attribute in node.attribute if attribute.name == "axis")
    ]


def float_bytes(model: ModelProto) -> int:
    """Return the bytes of all constants of type float32."""
    return sum(4 * prod(tensor.dims) for tensor in _tensors(model) if tensor.data_type == TensorProto.FLOAT)


def is_quantized(model: ModelProto) -> bool:
    """Return whether the graph holds numbers of 8 bits or fewer already."""
    return any(node.op_type in _QUANTIZED for node in model.graph.node)


def has_attention(model: ModelProto) -> bool:
    """Return whether a Softmax stands between two products of activations, or an operator is attention itself."""
    nodes = model.graph.node
    if any(node.op_type in _FUSED_ATTENTION for node in nodes):
        return True
    constants = _constants(model)
    products = {node.output[0]: node for node in nodes if node.op_type == "MatMul" and not constants & set(node.input)}
    makers = {tensor: node for node in nodes for tensor in node.output}
    softmaxes = [node for node in nodes if node.op_type == "Softmax"]
    read = {tensor for node in products.values() for tensor in _upstream(node, makers)}
    return any(
        node.output[0] in read and any(tensor in products for tensor in _upstream(node, makers)) for node in softmaxes
    )


def has_dense(model: ModelProto) -> bool:
    """Return whether a convolution filters images of several channels, each pair of channels on its own."""
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    weights = [sizes[node.input[1]] for node in weighted(model, ("Conv",)) if node.input[1] in sizes]
    return any(len(dims) == 4 and is_dense(channels=dims[1], kernel=dims[2:]) for dims in weights)


def is_set(node: NodeProto, name: str) -> bool:
    """Return whether an attribute that is a switch, such as transB, is on."""
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def name_nodes(model: ModelProto) -> None:
    """Give every node without a name one, as quantizers need it."""
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"{node.op_type}_{number}"


def _upstream(node: NodeProto, makers: Mapping[str, NodeProto]) -> Iterator[str]:
    """Yield the tensors that `node` reads, directly or through operators that only scale, mask or reshape."""
    waiting, seen = list(node.input), set[str]()
    while waiting:
        tensor = waiting.pop()
        if tensor in seen:
            continue
        seen.add(tensor)
        yield tensor
        maker = makers.get(tensor)
        if maker is not None and maker.op_type in _BETWEEN:
            waiting.extend(maker.input)


def _is_table(tensor: TensorProto) -> bool:
    return tensor.data_type == TensorProto.FLOAT and len(tensor.dims) == 2 and 4 * prod(tensor.dims) >= TABLE_BYTES


def _constants(model: ModelProto) -> set[str]:
    names = {tensor.name for tensor in model.graph.initializer}
    return names | {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}


def _tensors(model: ModelProto) -> Iterator[TensorProto]:
    yield from model.graph.initializer
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from (attribute.t for attribute in node.attribute if attribute.name == "value")
