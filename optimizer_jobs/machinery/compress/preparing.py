"""Bring a float model into the form that quantizers need: float32 inside, a recent operator set, a name for each node.

Inputs and outputs keep their names, types and shapes, and the answers stay those of the delivered file up to rounding.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, version_converter

from optimizer_jobs.machinery.compress import layers

LEAST_OPSET = 13
"""First operator set in which a scale may belong to a channel."""
_HALF, _FLOAT = TensorProto.FLOAT16, TensorProto.FLOAT
_TYPE_ATTRIBUTES = {"to", "dtype"}
"""Attributes that name the type of a node's output."""


def prepare(model: Path, target: Path) -> ModelProto:
    """Write the model with shapes inferred, constants folded and every node named; return it."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(_modern(model, target.with_suffix(".modern.onnx")), target, skip_symbolic_shape=True)
    prepared = onnx.load(target)
    layers.name_nodes(prepared)
    _flatten_biases(prepared)
    _drop_unused_sets(prepared)
    onnx.save(prepared, target)
    return prepared


def _drop_unused_sets(model: ModelProto) -> None:
    """Forget operator sets that no node is of: ONNX Runtime names all it has, and earlier ones refuse newer sets."""
    functions = {node.domain for function in model.functions for node in function.node}
    used = {node.domain for graph in layers.graphs(model.graph) for node in graph.node} | functions
    kept = [entry for entry in model.opset_import if entry.domain in {"", "ai.onnx", *used}]
    del model.opset_import[:]
    model.opset_import.extend(kept)


def _modern(model: Path, target: Path) -> Path:
    """Return the model, or a copy of it at `target` that computes in float32 and in a recent operator set."""
    graph = layers.graph_of(model)
    old, half = _opset(graph) < LEAST_OPSET, any(tensor.data_type == _HALF for tensor in graph.graph.initializer)
    if not old and not half:
        return model
    copy = onnx.load(model)
    if half:
        widen(copy)
    onnx.save(upgraded(copy, LEAST_OPSET) or copy, target)
    return target


def upgraded(model: ModelProto, version: int) -> ModelProto | None:
    """Return the model in this operator set of the standard, or a later one it has; None where onnx cannot convert."""
    try:
        return model if _opset(model) >= version else version_converter.convert_version(model, version)
    except (RuntimeError, version_converter.ConvertError):
        return None


def _opset(model: ModelProto) -> int:
    """Return the version of the standard operator set; a graph that uses none of its operators needs no other."""
    return max((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), default=LEAST_OPSET)


def widen(model: ModelProto) -> None:
    """Let a graph compute in float32 where it did in float16, in place; inputs and outputs are cast."""
    graph = model.graph
    for part in layers.graphs(graph):
        _widen_constants(part)
        del part.value_info[:]
        for value in (*part.input, *part.output) if part is not graph else ():
            if value.type.tensor_type.elem_type == _HALF:
                value.type.tensor_type.elem_type = _FLOAT
    casts = [_cast_in(graph, value.name) for value in graph.input if value.type.tensor_type.elem_type == _HALF]
    ends = [_cast_out(graph, value.name) for value in graph.output if value.type.tensor_type.elem_type == _HALF]
    nodes = [*casts, *graph.node, *ends]
    del graph.node[:]
    graph.node.extend(nodes)


def _widen_constants(graph: GraphProto) -> None:
    for tensor in graph.initializer:
        _widen_tensor(tensor)
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                _widen_tensor(attribute.t)
            elif attribute.name in _TYPE_ATTRIBUTES and attribute.i == _HALF:
                attribute.i = _FLOAT


def _widen_tensor(tensor: TensorProto) -> None:
    if tensor.data_type == _HALF:
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))


def _cast_in(graph: GraphProto, name: str) -> NodeProto:
    """Let everything read a float32 copy of an input; return the node that makes the copy."""
    _rename(graph, name, f"{name}_wide", outputs=False)
    return helper.make_node("Cast", [name], [f"{name}_wide"], to=_FLOAT, name=f"{name}_widened")


def _cast_out(graph: GraphProto, name: str) -> NodeProto:
    """Let an output be made in float32 under another name; return the node that casts it back."""
    _rename(graph, name, f"{name}_wide_out", outputs=True)
    return helper.make_node("Cast", [f"{name}_wide_out"], [name], to=_HALF, name=f"{name}_narrowed")


def _rename(graph: GraphProto, name: str, new: str, *, outputs: bool) -> None:
    for part in layers.graphs(graph):
        for node in part.node:
            node.input[:] = [new if tensor == name else tensor for tensor in node.input]
            if outputs:
                node.output[:] = [new if tensor == name else tensor for tensor in node.output]


def _flatten_biases(model: ModelProto) -> None:
    """Give the bias of a Gemm with shape (1, N) the shape (N,); the sum is the same.

    The fusion of MatMul and Add leaves such a bias, and the per-channel quantizer of ONNX Runtime 1.32 fails on it.
    """
    biases = {node.input[2] for node in model.graph.node if node.op_type == "Gemm" and len(node.input) > 2}
    for tensor in model.graph.initializer:
        if tensor.name in biases and len(tensor.dims) == 2 and tensor.dims[0] == 1:
            del tensor.dims[0]
