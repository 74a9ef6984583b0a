"""Reading an ONNX graph that is to become a network: the part up to its scores, its constants, and what comes behind.

Everything that cannot be trained again is found here, by name, before any weight is looked at.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor

from optimizer_jobs.nets.conversion.operators import OPERATORS, PREPARING
from optimizer_jobs.nets.conversion.values import DTYPES, Operator, as_tensor

Array = NDArray[Any]
Constants = dict[str, Array]

STANDARD = {"", "ai.onnx"}
PREPARING_DOMAIN = "ai.onnx.ml"
WEIGHTED = frozenset({"Conv", "Gather", "Gemm", "MatMul"})
"""Operators whose constant operand holds what is learned."""

_OLDEST_OPSET = 9
_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}
_TRAINED = {TensorProto.FLOAT, TensorProto.DOUBLE}
_FEW = 4096
"""Elements up to which what follows from constants is worked out beforehand."""
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
_MANY_OUTPUTS = {"Split"}
_REFUSED: Mapping[str, Callable[[Mapping[str, Any]], bool]] = {
    "ArgMax": lambda given: bool(given.get("select_last_index", 0)),
    "ArgMin": lambda given: bool(given.get("select_last_index", 0)),
    "AveragePool": lambda given: any(each != 1 for each in given.get("dilations", ())),
    "ConvTranspose": lambda given: "output_shape" in given or "auto_pad" in given or _uneven(given.get("pads", ())),
    "CumSum": lambda given: bool(given.get("exclusive", 0) or given.get("reverse", 0)),
    "Pad": lambda given: given.get("mode", b"constant") not in {b"constant", b"reflect", b"edge"},
}
"""Whether an operator has attributes that its function does not honour."""


class NotImportableError(ValueError):
    """The graph has something that cannot be trained; the message names it."""


@dataclass(frozen=True)
class Tail:
    """The end of a graph that turns scores into labels, as it was: no gradient passes it."""

    nodes: tuple[NodeProto, ...] = ()
    initializers: tuple[TensorProto, ...] = ()
    opsets: tuple[Any, ...] = ()
    outputs: tuple[Any, ...] = ()
    """Descriptions of the outputs that it makes."""
    taps: tuple[str, ...] = ()
    """Tensors that it takes from the rest, besides the module's inputs and outputs."""


@dataclass(frozen=True)
class Body:
    """The part of a graph up to its scores."""

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, Array]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tail: Tail
    opset: int


def read(proto: ModelProto) -> Body:
    """Return the body of a graph. Weights that are kept beside the file and not loaded are read as zeros.

    Raises:
        NotImportableError: The graph cannot be trained again.
    """
    graph = proto.graph
    opset = next((each.version for each in proto.opset_import if each.domain in STANDARD), 0)
    if opset < _OLDEST_OPSET:
        raise NotImportableError(f"the model is of opset {opset}; at least {_OLDEST_OPSET} can be trained again")
    if graph.sparse_initializer:
        raise NotImportableError("the model has sparse weights, which cannot be trained again")
    constants = {tensor.name: _array(tensor) for tensor in graph.initializer}
    nodes = [_copy(node) for node in graph.node]
    _name(nodes)
    shown = {output.name for output in graph.output}
    nodes = list(_folded(nodes, constants, opset=opset, shown=shown))
    floats = [output for output in graph.output if output.type.tensor_type.elem_type in _FLOATS]
    if not floats:
        raise NotImportableError("the model has no floating point output to learn by")
    needed = _needed(nodes, [output.name for output in floats])
    body = tuple(node for node in nodes if node.name in needed)
    _check(body, constants)
    inputs = tuple(each.name for each in graph.input if each.name not in constants)
    rest = [node for node in nodes if node.name not in needed]
    return Body(
        nodes=body,
        constants=constants,
        inputs=inputs,
        outputs=tuple(output.name for output in floats),
        tail=_tail(proto, rest, floats, constants=constants, inputs=inputs),
        opset=opset,
    )


def function_of(node: NodeProto) -> Operator | None:
    """Return what computes a node, None when nothing does."""
    table = PREPARING if node.domain == PREPARING_DOMAIN else OPERATORS if node.domain in STANDARD else {}
    return table.get(node.op_type)


def attributes_of(node: NodeProto) -> dict[str, Any]:
    """Return the attributes of a node; tensors are torch's."""
    return dict(_each_attribute(node))


def _each_attribute(node: NodeProto) -> Iterator[tuple[str, Any]]:
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        is_tensor = isinstance(value, TensorProto)
        yield attribute.name, torch.from_numpy(numpy_helper.to_array(value).copy()) if is_tensor else value


def _check(nodes: Sequence[NodeProto], constants: Mapping[str, Array]) -> None:
    unknown = sorted({node.op_type for node in nodes if not _known(node)})
    if unknown:
        raise NotImportableError(f"the model has operator {', '.join(unknown)}, which cannot be trained again")
    used = {name for node in nodes for name in node.input}
    strange = sorted({str(values.dtype) for name, values in constants.items() if name in used} - _KINDS)
    if strange:
        raise NotImportableError(f"the model has weights of type {', '.join(strange)}; only 32-bit floats are trained")
    weights = [
        constants[name] for node in nodes if node.op_type in WEIGHTED for name in node.input[:2] if name in constants
    ]
    if not any(values.dtype.kind == "f" and values.ndim > 1 for values in weights):
        raise NotImportableError("the model has no layers with weights that could be trained")


_KINDS = {"float32", "float64", "int8", "uint8", "int32", "int64", "bool"}


def _known(node: NodeProto) -> bool:
    if function_of(node) is None or any(each.type == AttributeProto.GRAPH for each in node.attribute):
        return False
    if node.op_type not in _MANY_OUTPUTS and any(node.output[1:]):
        return False
    if node.op_type == "Cast":
        return onnx.helper.get_node_attr_value(node, "to") in DTYPES
    refused = _REFUSED.get(node.op_type)
    return refused is None or not refused(attributes_of(node))


def _uneven(pads: Sequence[int]) -> bool:
    return list(pads[: len(pads) // 2]) != list(pads[len(pads) // 2 :])


def _array(tensor: TensorProto) -> Array:
    """Return a constant; one whose data lies beside the file takes no memory."""
    if tensor.data_location != TensorProto.EXTERNAL:
        return np.asarray(numpy_helper.to_array(tensor))
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    return np.broadcast_to(np.zeros((), kind), tuple(tensor.dims))


def _copy(node: NodeProto) -> NodeProto:
    """Return a node that may be given a name; only outputs that something may read are kept."""
    copied = NodeProto()
    copied.CopyFrom(node)
    copied.doc_string = ""
    return copied


def _name(nodes: Sequence[NodeProto]) -> None:
    """Give every node a name of its own, and drop outputs that nothing reads besides its first."""
    taken: set[str] = set()
    read_names = {name for node in nodes for name in node.input}
    for number, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)
        if node.op_type in {"BatchNormalization", "Dropout", "LayerNormalization", "MaxPool"}:
            del node.output[
                1 + max((place for place, name in enumerate(node.output[1:], 1) if name in read_names), default=0) :
            ]


def _folded(nodes: Sequence[NodeProto], constants: Constants, *, opset: int, shown: set[str]) -> Iterator[NodeProto]:
    """Yield the nodes that depend on the inputs; what the others make is added to the constants."""
    for node in nodes:
        value = None if shown.intersection(node.output) else _result(node, constants, opset)
        if value is None:
            yield node
        else:
            constants[node.output[0]] = value


def _result(node: NodeProto, constants: Mapping[str, Array], opset: int) -> Array | None:
    """Return what a node makes of constants; None when it takes others, or would take long."""
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
    if node.op_type not in _FOLDED or not _known(node) or any(value.size > _FEW for value in known):
        return None
    return _computed(node, values, opset)


def _computed(node: NodeProto, values: Sequence[Array | None], opset: int) -> Array | None:
    given = [None if value is None else torch.from_numpy(np.array(value)) for value in values]
    if any(value is not None and str(value.dtype) not in _KINDS for value in values):
        return None
    made = OPERATORS[node.op_type](given, attributes_of(node) | {"opset": opset, "outputs": 1})
    tensor = made if isinstance(made, Tensor) else as_tensor(made)
    return np.asarray(tensor.numpy()) if tensor.numel() <= _FEW else None


def _constant(node: NodeProto) -> Array | None:
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return _array(value)
    if not attribute.name.startswith(("value_float", "value_int")):
        return None
    return np.asarray(value, dtype=np.float32 if attribute.name.startswith("value_float") else np.int64)


def _needed(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> set[str]:
    """Return the names of nodes that these outputs depend on."""
    maker = {name: node for node in nodes for name in node.output}
    wanted, needed = list(outputs), set[str]()
    while wanted:
        node = maker.get(wanted.pop())
        if node is not None and node.name not in needed:
            needed.add(node.name)
            wanted += node.input
    return needed


def _tail(
    proto: ModelProto,
    nodes: Sequence[NodeProto],
    floats: Sequence[Any],
    *,
    constants: Mapping[str, Array],
    inputs: Sequence[str],
) -> Tail:
    shown = [output for output in proto.graph.output if output not in floats]
    needed = _needed(nodes, [output.name for output in shown])
    kept = tuple(node for node in nodes if node.name in needed)
    made = {name for node in kept for name in node.output}
    taken = dict.fromkeys(name for node in kept for name in node.input if name and name not in made)
    taken |= dict.fromkeys(output.name for output in shown if output.name not in made)
    fixed = [name for name in taken if name in constants]
    present = {*fixed, *inputs, *(output.name for output in floats)}
    return Tail(
        nodes=kept,
        initializers=tuple(numpy_helper.from_array(np.array(constants[name]), name) for name in fixed),
        opsets=tuple(proto.opset_import),
        outputs=tuple(shown),
        taps=tuple(name for name in taken if name not in present),
    )
