"""What can be compressed in a graph: layers, embedding tables and attention, and how many bytes their weights have.

Graphs may come without external data, so only shapes are read here, never values.
"""

from collections.abc import Iterable, Iterator, Mapping
from math import prod
from pathlib import Path

import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto

from optimizer_jobs.nets.dense import is_dense

PRODUCTS = ("Conv", "MatMul", "Gemm")
"""Operators that multiply by constant weights."""
TABLE_BYTES = 64 << 10
"""Bytes of an embedding table from which quantizing it is worth it."""
_QUANTIZED = {
    "ConvInteger",
    "DequantizeLinear",
    "DynamicQuantizeLSTM",
    "DynamicQuantizeLinear",
    "DynamicQuantizeMatMul",
    "GatherBlockQuantized",
    "MatMulInteger",
    "MatMulIntegerToFloat",
    "MatMulNBits",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QuantizeLinear",
}
_FUSED_ATTENTION = {"Attention", "MultiHeadAttention", "GroupQueryAttention", "PackedAttention"}
_BETWEEN = {"Add", "Sub", "Mul", "Div", "Where", "Cast", "Reshape", "Transpose", "Identity", "Dropout", "Expand"}
"""Operators that may lie between the products of an attention and its Softmax: they scale, mask or reshape."""


def graph_of(model: Path) -> ModelProto:
    """Return the graph without external data, which most questions do not need."""
    return onnx.load(model, load_external_data=False)


def weighted(model: ModelProto, ops: Iterable[str] = PRODUCTS) -> list[NodeProto]:
    """Return the layers: nodes of these types of the ONNX standard that multiply by a constant."""
    constants = _constants(model)
    types = set(ops)
    return [
        node
        for node in model.graph.node
        if node.op_type in types and node.domain in {"", "ai.onnx"} and constants & set(node.input[:2])
    ]


def tables(model: ModelProto) -> list[NodeProto]:
    """Return the Gather nodes that look up rows of a large constant table of float32, shape (entries, width)."""
    return _lookups(model, TensorProto.FLOAT, least=TABLE_BYTES // 4)


def float_bytes(model: ModelProto) -> int:
    """Return the bytes of all constants of type float32."""
    return sum(4 * prod(tensor.dims) for _, tensor in _named_tensors(model) if tensor.data_type == TensorProto.FLOAT)


def is_quantized(model: ModelProto) -> bool:
    """Return whether the graph computes with numbers of 8 bits or fewer already, or looks up rows of them."""
    codes = (TensorProto.INT8, TensorProto.UINT8)
    if any(_lookups(model, kind, least=TABLE_BYTES // 8) for kind in codes):
        return True
    return any(node.op_type in _QUANTIZED for node in model.graph.node)


def has_attention(model: ModelProto) -> bool:
    """Return whether the graph has attention: a Softmax between two products of activations, or one fused operator."""
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
    """Return whether the graph has a dense convolution of images, which a separable one could replace."""
    sizes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    weights = [sizes[node.input[1]] for node in weighted(model, ("Conv",)) if node.input[1] in sizes]
    return any(len(dims) == 4 and is_dense(channels=dims[1], kernel=dims[2:]) for dims in weights)


def is_set(node: NodeProto, name: str) -> bool:
    """Return whether a whole number among the attributes, such as transB, is there and not 0."""
    return any(attribute.name == name and attribute.i for attribute in node.attribute)


def graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield a graph and those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            for inner in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from graphs(inner)


def name_nodes(model: ModelProto) -> None:
    """Give a name to every node without one, because quantizers select nodes by name."""
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


def _lookups(model: ModelProto, kind: int, *, least: int) -> list[NodeProto]:
    """Return the Gather nodes that look up rows of a constant table of this type with at least so many numbers."""
    large = {
        name
        for name, tensor in _named_tensors(model)
        if tensor.data_type == kind and len(tensor.dims) == 2 and prod(tensor.dims) >= least
    }
    lookups = [node for node in model.graph.node if node.op_type == "Gather" and not is_set(node, "axis")]
    return [node for node in lookups if node.input[0] in large]


def _constants(model: ModelProto) -> set[str]:
    names = {tensor.name for tensor in model.graph.initializer}
    return names | {name for node in model.graph.node if node.op_type == "Constant" for name in node.output}


def _named_tensors(model: ModelProto) -> Iterator[tuple[str, TensorProto]]:
    yield from ((tensor.name, tensor) for tensor in model.graph.initializer)
    for node in model.graph.node:
        if node.op_type == "Constant":
            yield from ((node.output[0], attribute.t) for attribute in node.attribute if attribute.name == "value")
