"""Bring a graph into the form that quantizers take: a recent operator set, and weights in single precision.

The graph computes the same, and its inputs and outputs keep their names and types.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

PER_CHANNEL_OPSET = 13
"""The first operator set in which an 8-bit weight may have a scale for each channel."""

_STANDARD = {"", "ai.onnx"}
_HALF, _SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
_TYPED = frozenset({"to", "dtype"})
"""Attributes that hold a type of numbers."""


def upgraded(model: ModelProto, version: int) -> ModelProto | None:
    """Return the model in at least this version of the standard operators; None where onnx cannot convert it."""
    if opset(model) >= version:
        return model
    try:
        return version_converter.convert_version(model, version)
    except (RuntimeError, ValueError, version_converter.ConvertError):
        return None


def opset(model: ModelProto) -> int:
    """Return the version of the standard operators, or 0 where the model names none."""
    return max((entry.version for entry in model.opset_import if entry.domain in _STANDARD), default=0)


def to_single(model: ModelProto) -> bool:
    """Let the graph compute in float32 where it does in float16, in place; return whether there was any."""
    graphs = list(_graphs(model.graph))
    halves = [tensor for graph in graphs for tensor in _tensors(graph) if tensor.data_type == _HALF]
    if not halves and not any(_is_half(value) for value in (*model.graph.input, *model.graph.output)):
        return False
    for tensor in halves:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    for graph in graphs:
        _retype(graph)
    for graph in graphs[1:]:
        for value in filter(_is_half, (*graph.input, *graph.output)):
            value.type.tensor_type.elem_type = _SINGLE
    _cast_edges(model.graph, graphs)
    return True


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """Yield the graph, and then those inside its nodes."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _graphs(attribute.g)


def _tensors(graph: GraphProto) -> Iterator[TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        yield from (attribute.t for attribute in node.attribute if attribute.type == onnx.AttributeProto.TENSOR)


def _is_half(value: onnx.ValueInfoProto) -> bool:
    return bool(value.type.tensor_type.elem_type == _HALF)


def _retype(graph: GraphProto) -> None:
    """Let nodes that name the type float16 name float32, and forget the types of inner values."""
    del graph.value_info[:]
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.name in _TYPED and attribute.i == _HALF:
                attribute.i = _SINGLE


def _cast_edges(graph: GraphProto, graphs: Sequence[GraphProto]) -> None:
    """Put a Cast behind each float16 input and before each float16 output."""
    inputs = [value.name for value in graph.input if _is_half(value)]
    outputs = [value.name for value in graph.output if _is_half(value)]
    inner = {name: f"{name}_single" for name in (*inputs, *outputs)}
    for node in (node for part in graphs for node in part.node):
        node.input[:] = [inner.get(name, name) for name in node.input]
        node.output[:] = [inner.get(name, name) for name in node.output]
    nodes = [*(_cast(name, inner[name], _SINGLE) for name in inputs), *graph.node]
    del graph.node[:]
    graph.node.extend([*nodes, *(_cast(inner[name], name, _HALF) for name in outputs)])


def _cast(source: str, target: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [source], [target], name=f"cast_{target}", to=kind)
