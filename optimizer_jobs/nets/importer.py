"""An ONNX file as a torch module that can be trained, changed and exported again.

The module runs the graph node by node; layers with weights are torch's own, so that what prunes, factorizes or rounds
layers finds them. It answers the score output first; what turns scores into labels stays ONNX and is put back by the
export.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, numpy_helper
from torch import Tensor, nn

from optimizer_jobs.nets import layers
from optimizer_jobs.nets.operators import DTYPES, OPERATORS, Value

_STANDARD = {"", "ai.onnx"}
_OLDEST_OPSET = 9


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
    """Tensors that it takes from the rest, besides the module's outputs."""


@dataclass(frozen=True)
class Step:
    """One node: an operator with its attributes, or the layer of that name."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    layer: bool = False


def not_importable(graph: ModelProto) -> str | None:
    """Return why a graph cannot be trained again, naming the operator, or None."""
    try:
        body = _body(graph)
    except NotImportableError as error:
        return str(error)
    unknown = sorted({node.op_type for node in body.nodes if not _known(node)})
    if unknown:
        return f"the model has operator {', '.join(unknown)}, which cannot be trained again"
    if not any(node.op_type in layers.WEIGHTED for node in body.nodes):
        return "the model has no layers with weights that could be trained"
    return None


def import_module(model: Path) -> "GraphModule":
    """Return the module, in evaluation mode.

    It takes the inputs by position and answers one tensor, or a tuple where the graph has more floating point outputs.
    Scores are what the graph says, logits or probabilities.

    Raises:
        NotImportableError: with what `not_importable` says.
    """
    proto = onnx.load(model)
    reason = not_importable(proto)
    if reason is not None:
        raise NotImportableError(reason)
    module = GraphModule(_body(proto))
    module.eval()
    return module


class GraphModule(nn.Module):  # type: ignore[misc] # the library has no types
    """A graph that torch runs: `layers` by node name, other weights as parameters, constants as buffers."""

    def __init__(self, body: "_Body") -> None:
        super().__init__()
        self.inputs, self.outputs, self.tail = body.inputs, body.outputs, body.tail
        built = layers.build(body.nodes, body.constants)
        self.layers = nn.ModuleDict({_safe(name): layer for name, layer in built.layers.items()})
        self.steps = [self._step(node, built, body.opset) for node in body.nodes if node.name not in built.absorbed]
        used = {name for step in self.steps for name in step.inputs} | set(self.outputs)
        self._fixed: dict[str, Value] = {}
        self._weights: list[str] = []
        for name, values in body.constants.items():
            if name in used:
                self._keep(name, values)

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs, the score output first, then what the tail takes."""
        values = self._values(given)
        found = tuple(values[name] for name in (*self.outputs, *self.tail.taps))
        return found[0] if len(found) == 1 else found

    def shapes(self, given: tuple[Tensor, ...]) -> dict[str, torch.Size]:
        """Return the shape of every tensor that some inputs lead to."""
        with torch.no_grad():
            return {name: value.shape for name, value in self._values(given).items() if isinstance(value, Tensor)}

    def layer_of(self, step: Step) -> nn.Module | None:
        """Return the layer that a step runs; None when it is an operator."""
        return self.layers[_safe(step.name)] if step.layer else None

    def _values(self, given: tuple[Tensor, ...]) -> dict[str, Value]:
        values: dict[str, Value] = {"": None, **self._fixed, **dict(zip(self.inputs, given, strict=True))}
        for name in self._weights:
            values[name] = getattr(self, _safe(name))
        for step in self.steps:
            arguments = [values[name] for name in step.inputs]
            made = self.layers[_safe(step.name)](*arguments) if step.layer else self._run(step, arguments)
            results = made if len(step.outputs) > 1 else (made,)
            values.update(zip(step.outputs, results, strict=False))
        return values

    @staticmethod
    def _run(step: Step, arguments: Sequence[Value]) -> Value:
        return OPERATORS[step.operator](arguments, step.attributes)

    def _step(self, node: NodeProto, built: layers.Built, opset: int) -> Step:
        attributes = {**_attributes(node), "opset": opset, "outputs": len(node.output)}
        layer = node.name in built.layers
        inputs = (node.input[built.argument(node)],) if layer else tuple(node.input)
        output = built.renamed.get(node.name, tuple(node.output))
        return Step(node.name, node.op_type, inputs, output, attributes, layer=layer)

    def _keep(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Keep a constant: floating point of more than one number is trained, small whole numbers are sizes."""
        tensor = torch.from_numpy(values.copy())
        if values.dtype.kind in "iu" and values.ndim <= 1 and values.size <= 64:
            self._fixed[name] = tuple(values.tolist()) if values.ndim else int(values)
        elif tensor.is_floating_point() and tensor.numel() > 1:
            self.register_parameter(_safe(name), nn.Parameter(tensor))
        else:
            self.register_buffer(_safe(name), tensor)
        if name not in self._fixed:
            self._weights.append(name)


def _safe(name: str) -> str:
    """Return a name that torch takes for a member."""
    return "t_" + "".join(letter if letter.isalnum() else f"_{ord(letter):x}_" for letter in name)


@dataclass(frozen=True)
class _Body:
    """The part of a graph up to its scores."""

    nodes: tuple[NodeProto, ...]
    constants: Mapping[str, np.ndarray[Any, Any]]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    tail: Tail
    opset: int


def _body(proto: ModelProto) -> _Body:
    graph = proto.graph
    opset = next((each.version for each in proto.opset_import if each.domain in _STANDARD), 0)
    if opset < _OLDEST_OPSET:
        raise NotImportableError(f"the model is of opset {opset}; at least {_OLDEST_OPSET} can be trained again")
    constants = _constants(graph)
    nodes = [node for node in graph.node if node.op_type != "Constant"]
    _name(nodes)
    floats = [output for output in graph.output if output.type.tensor_type.elem_type in {1, 10, 11, 16}]
    if not floats:
        raise NotImportableError("the model has no floating point output to learn by")
    needed = _needed(nodes, [output.name for output in floats])
    tail = _tail(proto, [node for node in nodes if node.name not in needed], floats, constants)
    fixed = set(constants)
    return _Body(
        nodes=tuple(node for node in nodes if node.name in needed), constants=constants,
        inputs=tuple(each.name for each in graph.input if each.name not in fixed),
        outputs=tuple(output.name for output in floats), tail=tail, opset=opset,
    )  # fmt: skip


def _constants(graph: Any) -> dict[str, np.ndarray[Any, Any]]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = _constant(node)
    return found


def _constant(node: NodeProto) -> np.ndarray[Any, Any]:
    attribute = node.attribute[0]
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, TensorProto):
        return numpy_helper.to_array(value)
    kind = np.float32 if attribute.name.startswith("value_float") else np.int64
    return np.asarray(value, dtype=kind)


def _name(nodes: Sequence[NodeProto]) -> None:
    """Give every node a name of its own."""
    taken: set[str] = set()
    for number, node in enumerate(nodes):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{number}"
        taken.add(node.name)


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
    proto: ModelProto, nodes: Sequence[NodeProto], floats: Sequence[Any], constants: Mapping[str, np.ndarray[Any, Any]]
) -> Tail:
    graph = proto.graph
    shown = [output for output in graph.output if output not in floats]
    needed = _needed(nodes, [output.name for output in shown])
    kept = tuple(node for node in nodes if node.name in needed)
    made = {name for node in kept for name in node.output}
    taken = dict.fromkeys(name for node in kept for name in node.input if name and name not in made)
    taken |= dict.fromkeys(output.name for output in shown if output.name not in made)
    fixed = [name for name in taken if name in constants]
    outputs = {output.name for output in floats}
    return Tail(
        nodes=kept, initializers=tuple(numpy_helper.from_array(constants[name], name) for name in fixed),
        opsets=tuple(proto.opset_import), outputs=tuple(shown),
        taps=tuple(name for name in taken if name not in fixed and name not in outputs),
    )  # fmt: skip


def _known(node: NodeProto) -> bool:
    if node.domain not in _STANDARD or any(each.type == AttributeProto.GRAPH for each in node.attribute):
        return False
    if node.op_type == "Cast":
        return onnx.helper.get_node_attr_value(node, "to") in DTYPES
    return node.op_type in OPERATORS or node.op_type in layers.WEIGHTED


def _attributes(node: NodeProto) -> dict[str, Any]:
    return dict(_each_attribute(node))


def _each_attribute(node: NodeProto) -> Iterator[tuple[str, Any]]:
    for attribute in node.attribute:
        value = onnx.helper.get_attribute_value(attribute)
        is_tensor = isinstance(value, TensorProto)
        yield attribute.name, torch.from_numpy(numpy_helper.to_array(value).copy()) if is_tensor else value
