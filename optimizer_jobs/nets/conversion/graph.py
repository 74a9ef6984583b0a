"""Read an ONNX graph that is to become a network: the part up to its scores, its constants, and the part behind.

Everything that cannot be trained again is found here, with its name, before any weight is read.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper

from optimizer_jobs.nets.conversion.operators import OPERATORS, PREPARING
from optimizer_jobs.nets.conversion.values import DTYPES, Operator, as_tensor

Array = NDArray[Any]
Constants = dict[str, Array]

STANDARD = {"", "ai.onnx"}
PREPARING_DOMAIN = "ai.onnx.ml"
WEIGHTED = frozenset({"Conv", "Gather", "Gemm", "MatMul"})
"""Operators whose constant operand holds learned weights."""

_OLDEST_OPSET = 9
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TYPES = {"float32", "float64", "int8", "uint8", "int32", "int64", "bool"}
"""Element types that constants may have."""
_MOST_FOLDED = 4096
"""Elements up to which nodes with constant inputs are computed beforehand."""
_FOLDED = frozenset(
    {
        "Add",
        "Cast",
        "Concat",
        "Div",
        "Equal",
        "Exp",
        "Floor",
        "Gather",
        "Log",
        "Mod",
        "Mul",
        "Neg",
        "Not",
        "Pow",
        "Reciprocal",
        "Reshape",
        "Shape",
        "Slice",
        "Sqrt",
        "Squeeze",
        "Sub",
        "Unsqueeze",
        "Where",
    }
)
"""Operators that are computed beforehand when their inputs are constant."""
_SPARE_OUTPUTS = {"BatchNormalization", "Dropout", "LayerNormalization", "MaxPool"}
"""Operators with further outputs that often nothing reads."""
_MANY_OUTPUTS = {"Split"}
"""Operators whose functions return several outputs."""


def _has_unknown_padding(attributes: Mapping[str, Any]) -> bool:
    """Return whether the padding of a transposed convolution is computed, or differs between the ends of an axis."""
    pads = list(attributes.get("pads", ()))
    uneven = pads[: len(pads) // 2] != pads[len(pads) // 2 :]
    return "output_shape" in attributes or "auto_pad" in attributes or uneven


_REFUSED: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "ArgMax": lambda attributes: bool(attributes.get("select_last_index", 0)),
    "ArgMin": lambda attributes: bool(attributes.get("select_last_index", 0)),
    "AveragePool": lambda attributes: any(dilation != 1 for dilation in attributes.get("dilations", ())),
    "ConvTranspose": _has_unknown_padding,
    "CumSum": lambda attributes: bool(attributes.get("exclusive", 0) or attributes.get("reverse", 0)),
    "Pad": lambda attributes: attributes.get("mode", b"constant") not in {b"constant", b"reflect", b"edge"},
}
"""Whether an operator has attributes that its function does not support."""


class NotImportableError(ValueError):
    """Something in the graph cannot be trained; the message names it."""


@dataclass(frozen=True)
class Tail:
    """The end of a graph, which turns scores into labels. No gradient passes it, so it stays as it is."""

    nodes: tuple[NodeProto, ...] = ()
    initializers: tuple[TensorProto, ...] = ()
    opsets: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()
    """Descriptions of its outputs."""
    taps: tuple[str, ...] = ()
    """Tensors that it reads from the rest of the graph, besides inputs and scores."""


@dataclass(frozen=True)
class Body:
    """The part of a graph up to its scores."""

    nodes: tuple[NodeProto, ...]
    """Nodes with names of their own, without those that are constant."""
    constants: Mapping[str, Array]
    """Weights, and outputs of constant nodes."""
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    """Floating point outputs, the scores first."""
    tail: Tail
    opset: int


def read(proto: ModelProto) -> Body:
    """Return the body of a graph. Weights in external files that are not loaded are read as zeros.

    Raises:
        NotImportableError: The graph cannot be trained again.
    """
    graph, opset = proto.graph, _opset(proto)
    if graph.sparse_initializer:
        raise NotImportableError("the model has sparse weights, which cannot be trained again")
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    nodes = _folded_nodes(proto, constants, opset)
    floats = [output for output in graph.output if output.type.tensor_type.elem_type in _FLOATS]
    if not floats:
        raise NotImportableError("the model has no floating point output to learn by")
    outputs = tuple(output.name for output in floats)
    needed = _needed(nodes, outputs)
    body = tuple(node for node in nodes if node.name in needed)
    _check(body, constants)
    inputs = tuple(value.name for value in graph.input if value.name not in constants)
    rest = [node for node in nodes if node.name not in needed]
    tail = _tail(proto, rest, floats, constants=constants, inputs=inputs)
    return Body(nodes=body, constants=constants, inputs=inputs, outputs=outputs, tail=tail, opset=opset)


def function_of(node: NodeProto) -> Operator | None:
    """Return the function that computes a node, or None when there is none."""
    table = PREPARING if node.domain == PREPARING_DOMAIN else OPERATORS if node.domain in STANDARD else {}
    return table.get(node.op_type)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node; tensors among them are torch's."""
    return {attribute.name: _attribute_value(attribute) for attribute in node.attribute}


def _attribute_value(attribute: AttributeProto) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    return torch.from_numpy(numpy_helper.to_array(value).copy()) if isinstance(value, TensorProto) else value


def _opset(proto: ModelProto) -> int:
    """Return the version of the standard operator set; raises NotImportableError when it is too old."""
    version = next((opset.version for opset in proto.opset_import if opset.domain in STANDARD), 0)
    if version < _OLDEST_OPSET:
        raise NotImportableError(f"the model is of opset {version}; at least {_OLDEST_OPSET} can be trained again")
    return version


def _folded_nodes(proto: ModelProto, constants: Constants, opset: int) -> list[NodeProto]:
    """Return copies of the nodes that depend on inputs; outputs of the others are added to the constants."""
    nodes = [_copy(node) for node in proto.graph.node]
    _name(nodes)
    exposed = {output.name for output in proto.graph.output}
    return list(_folded(nodes, constants, opset=opset, exposed=exposed))


def _check(nodes: Sequence[NodeProto], constants: Mapping[str, Array]) -> None:
    """Raise NotImportableError for operators without a function, and for weights that cannot be trained."""
    unknown = sorted({node.op_type for node in nodes if not _known(node)})
    if unknown:
        raise NotImportableError(f"the model has operator {', '.join(unknown)}, which cannot be trained again")
    used = {name for node in nodes for name in node.input}
    types = sorted({str(values.dtype) for name, values in constants.items() if name in used} - _TYPES)
    if types:
        raise NotImportableError(f"the model has weights of type {', '.join(types)}; only 32-bit floats are trained")
    weights = [
        constants[name] for node in nodes if node.op_type in WEIGHTED for name in node.input[:2] if name in constants
    ]
    if not any(values.dtype.kind == "f" and values.ndim > 1 for values in weights):
        raise NotImportableError("the model has no layers with weights that could be trained")


def _known(node: NodeProto) -> bool:
    """Return whether a function computes the node, with all its outputs and attributes."""
    if function_of(node) is None or any(attribute.type == AttributeProto.GRAPH for attribute in node.attribute):
        return False
    if node.op_type not in _MANY_OUTPUTS and any(node.output[1:]):
        return False
    if node.op_type == "Cast":
        return onnx.helper.get_node_attr_value(node, "to") in DTYPES
    refused = _REFUSED.get(node.op_type)
    return refused is None or not refused(attributes_of(node))


def _array(tensor: TensorProto) -> Array:
    """Return a constant. One in an external file becomes zeros that take no memory."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.broadcast_to(np.zeros((), kind), tuple(tensor.dims))


def _copy(node: NodeProto) -> NodeProto:
    """Return a copy of a node, without its documentation, that may be changed."""
    copied = NodeProto()
    copied.CopyFrom(node)
    copied.doc_string = ""
    return copied


def _name(nodes: Sequence[NodeProto]) -> None:
    """Give every node a name of its own, in place, and drop spare outputs that nothing reads."""
    taken: set[str] = set()
    read_tensors = {name for node in nodes for name in node.input}
    for number, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
        if node.op_type in _SPARE_OUTPUTS:
            last = max((place for place, name in enumerate(node.output) if name in read_tensors), default=0)
            del node.output[last + 1 :]


def _folded(nodes: Sequence[NodeProto], constants: Constants, *, opset: int, exposed: set[str]) -> Iterator[NodeProto]:
    """Yield the nodes that depend on inputs; outputs of the others are added to the constants, unless exposed."""
    for node in nodes:
        value = None if exposed.intersection(node.output) else _result(node, constants, opset)
        if value is None:
            yield node
        else:
            constants[node.output[0]] = value


def _result(node: NodeProto, constants: Mapping[str, Array], opset: int) -> Array | None:
    """Return the output of a node with constant inputs; None for other nodes, and where it would take long."""
    if node.domain not in STANDARD:
        return None
    if node.op_type == "Constant":
        return _constant(node)
    values = [constants.get(name) if name else None for name in node.input]
    if not node.input or any(value is None and name for name, value in zip(node.input, values, strict=True)):
        return None
    known = [value for value in values if value is not None]
    if node.op_type == "Identity":
        return known[0]
    if node.op_type == "Transpose":
        return np.transpose(known[0], attributes_of(node).get("perm"))
    if node.op_type not in _FOLDED or not _known(node) or any(value.size > _MOST_FOLDED for value in known):
        return None
    return _computed(node, values, opset)


def _computed(node: NodeProto, values: Sequence[Array | None], opset: int) -> Array | None:
    """Return the output of a node for these inputs, or None when it is large or an input has an unknown type."""
    inputs = [None if value is None else torch.from_numpy(np.array(value)) for value in values]
    if any(value is not None and str(value.dtype) not in _TYPES for value in values):
        return None
    tensor = as_tensor(OPERATORS[node.op_type](inputs, attributes_of(node) | {"opset": opset, "outputs": 1}))
    return np.asarray(tensor.numpy()) if tensor.numel() <= _MOST_FOLDED else None


def _constant(node: NodeProto) -> Array | None:
    """Return the value of a Constant node, or None for text and sparse tensors."""
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return _array(value)
    if not attribute.name.startswith(("value_float", "value_int")):
        return None
    return np.asarray(value, dtype=np.float32 if attribute.name.startswith("value_float") else np.int64)


def _needed(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> set[str]:
    """Return the names of nodes that these outputs depend on."""
    makers = {name: node for node in nodes for name in node.output}
    waiting, needed = list(outputs), set[str]()
    while waiting:
        node = makers.get(waiting.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            waiting += node.input
    return needed


def _tail(
    proto: ModelProto,
    nodes: Sequence[NodeProto],
    floats: Sequence[Any],
    *,
    constants: Mapping[str, Array],
    inputs: Sequence[str],
) -> Tail:
    """Return the part of a graph behind its scores; `nodes` are those that the scores do not need."""
    outputs = [output for output in proto.graph.output if output not in floats]
    needed = _needed(nodes, [output.name for output in outputs])
    tail = tuple(node for node in nodes if node.name in needed)
    computed = {name for node in tail for name in node.output}
    taken = dict.fromkeys(name for node in tail for name in node.input if name and name not in computed)
    taken |= dict.fromkeys(output.name for output in outputs if output.name not in computed)
    fixed = [name for name in taken if name in constants]
    present = {*fixed, *inputs, *(output.name for output in floats)}
    return Tail(
        nodes=tail,
        initializers=tuple(numpy_helper.from_array(np.array(constants[name]), name) for name in fixed),
        opsets=tuple(proto.opset_import),
        outputs=tuple(outputs),
        taps=tuple(name for name in taken if name not in present),
    )
