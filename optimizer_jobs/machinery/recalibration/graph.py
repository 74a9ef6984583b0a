"""Write a correction of probabilities into an ONNX graph: behind its scores, and labels that follow from them.

Inputs, outputs, their types and shapes stay. Only operators that are the same in every operator set from 9 on are used,
in 32-bit floats, which every engine has. The label output is made anew only where a label may change.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.compress.layers import graphs
from optimizer_jobs.machinery.compress.preparing import LEAST_OPSET, upgraded
from optimizer_jobs.machinery.recalibration.corrections import SMALLEST, Correction, Curve, UnfitRowsError

Array = NDArray[Any]

_LEAST = 9
"""First operator set that has all operators that are written here."""
_FLOAT, _INT64, _TEXT = TensorProto.FLOAT, TensorProto.INT64, TensorProto.STRING
_EVEN = 0.5


@dataclass(frozen=True)
class Outputs:
    """The outputs of a classifier that a correction changes."""

    scores: str
    """Name of the output with scores."""
    are_logits: bool
    width: int
    """Numbers of a row of scores; 1 for those of the second of two classes alone."""
    axes: int
    """Axes of the scores: 1 or 2."""
    label: str | None = None
    """Name of the output with one class a row; None where there is none, or where it stays as it is."""
    label_axes: int = 1
    """Axes of the label: 1 or 2."""
    classes: tuple[int | str, ...] = ()
    """Label of each class, in the order of the scores; empty where it is the column's number."""


def correct(model: ModelProto, outputs: Outputs, correction: Correction) -> ModelProto:
    """Return the model with corrected scores, and labels of the classes that come first in them.

    Args:
        model: The model, which may be changed.
        outputs: What is corrected.
        correction: How.

    Raises:
        UnfitRowsError: The graph has a form in which scores cannot be replaced.
    """
    model = _modern(model)
    graph = model.graph
    kind, writing = _kind(graph, outputs.scores), _Writing(graph, prefix=_prefix(graph))
    raw = writing.taken_over(outputs.scores)
    made = _written(writing, raw if kind == _FLOAT else writing.put("Cast", raw, to=_FLOAT), outputs, correction)
    if outputs.label is not None:
        writing.taken_over(outputs.label)
        _write_label(writing, made, outputs, name=outputs.label, kind=_kind(graph, outputs.label))
    writing.cast(made, kind, into=outputs.scores, made_of=_FLOAT)
    return model


class _Writing:
    """Nodes and constants that are added to a graph, behind all that it has."""

    def __init__(self, graph: GraphProto, *, prefix: str) -> None:
        self._graph, self._prefix, self._count = graph, prefix, 0

    def put(self, operator: str, *inputs: "str | Array", into: str | None = None, **attributes: Any) -> str:
        """Add a node whose inputs are tensors by name, or constants; return the name of its output."""
        names = [each if isinstance(each, str) else self._constant(each) for each in inputs]
        output = into or self._name(operator)
        self._graph.node.append(
            helper.make_node(operator, names, [output], name=f"{self._prefix}_make_{output}", **attributes)
        )
        return output

    def cast(self, tensor: str, kind: int, *, into: str, made_of: int) -> None:
        """Give a tensor the name of an output, and its type where it has another one."""
        if kind == made_of:
            self.put("Identity", tensor, into=into)
        else:
            self.put("Cast", tensor, to=kind, into=into)

    def taken_over(self, name: str) -> str:
        """Let what makes an output make a tensor of another name; return that name."""
        new, made = f"{self._prefix}_before_{name}", False
        for part in graphs(self._graph):
            for node in part.node:
                made |= part is self._graph and name in node.output
                node.input[:] = [new if tensor == name else tensor for tensor in node.input]
                node.output[:] = [new if tensor == name else tensor for tensor in node.output]
        if not made:
            raise UnfitRowsError(f"output {name} is made by no operator, so none can stand behind it")
        return new

    def _constant(self, values: Array) -> str:
        name = self._name("constant")
        self._graph.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _name(self, what: str) -> str:
        self._count += 1
        return f"{self._prefix}_{what.lower()}_{self._count}"


def _written(writing: _Writing, raw: str, outputs: Outputs, correction: Correction) -> str:
    """Add the correction of 32-bit scores; return the corrected scores, in the form that the output has."""
    logs, width = _logs(writing, raw, outputs), outputs.width
    if isinstance(correction, Curve):
        return _curved(writing, logs, outputs, correction)
    offsets = correction.offsets[1:] - correction.offsets[0] if width == 1 else correction.offsets
    scaled = writing.put("Mul", logs, _numbers([correction.slope]))
    moved = writing.put("Add", scaled, _numbers(offsets)) if correction.moves_labels else scaled
    if outputs.are_logits:
        return moved
    return writing.put("Sigmoid", moved) if width == 1 else writing.put("Softmax", moved, axis=1)


def _logs(writing: _Writing, raw: str, outputs: Outputs) -> str:
    """Add what makes log scores of scores, or log-odds of one probability."""
    if outputs.are_logits:
        return raw
    smallest = _numbers([SMALLEST])
    logged = writing.put("Log", writing.put("Max", raw, smallest))
    if outputs.width > 1:
        return logged
    rest = writing.put("Max", writing.put("Sub", _numbers([1]), raw), smallest)
    return writing.put("Sub", logged, writing.put("Log", rest))


def _curved(writing: _Writing, logs: str, outputs: Outputs, curve: Curve) -> str:
    """Add the curve; return scores in the form that the output has."""
    width = outputs.width
    if width == 1:
        odds = writing.put("Reshape", logs, _whole([-1, 1]))
    else:
        first, second = (writing.put("Gather", logs, _whole([column]), axis=1) for column in (0, 1))
        odds = writing.put("Sub", second, first)
    height = _interpolated(writing, odds, curve)
    other = writing.put("Sub", _numbers([1]), height)
    if outputs.are_logits:
        height = writing.put("Sub", writing.put("Log", height), writing.put("Log", other))
        height = height if width == 1 else writing.put("Mul", height, _numbers([_EVEN]))
        other = writing.put("Neg", height)
    if width > 1:
        return writing.put("Concat", other, height, axis=1)
    return height if outputs.axes > 1 else writing.put("Reshape", height, _whole([-1]))


def _interpolated(writing: _Writing, odds: str, curve: Curve) -> str:
    """Add straight lines between the points of a curve: heights (N, 1) of log-odds (N, 1)."""
    places, heights = _numbers(curve.places), _numbers(curve.heights)
    slopes = _numbers(np.diff(heights.astype(np.float64)) / np.diff(places.astype(np.float64)))
    within = writing.put("Min", writing.put("Max", odds, places[:1]), places[-1:])
    line = _passed(writing, within, places)
    left, low, slope = (writing.put("Gather", table, line, axis=0) for table in (places[:-1], heights[:-1], slopes))
    risen = writing.put("Add", low, writing.put("Mul", slope, writing.put("Sub", within, left)))
    return writing.put("Min", writing.put("Max", risen, heights[:1]), heights[-1:])


def _passed(writing: _Writing, within: str, places: Array) -> str:
    """Add how many inner points lie before each number (N, 1): the line that it is on; for no number, the first."""
    inner = np.concatenate([places[1:-1], _numbers([np.inf])])[np.newaxis]  # one that is never passed: never empty
    passed = writing.put("Cast", writing.put("Greater", within, inner), to=_FLOAT)
    counted = writing.put("MatMul", passed, np.ones((inner.shape[1], 1), dtype=np.float32))
    return writing.put("Cast", counted, to=_INT64)


def _write_label(writing: _Writing, scores: str, outputs: Outputs, *, name: str, kind: int) -> None:
    """Add the label of the class that comes first, under the name and with the type and shape of the label output."""
    if outputs.width > 1:
        place = writing.put("ArgMax", scores, axis=1, keepdims=0)
    else:
        border = 0.0 if outputs.are_logits else _EVEN
        beyond = writing.put("Not", writing.put("Less", scores, _numbers([border])))
        place = writing.put("Reshape", writing.put("Cast", beyond, to=_INT64), _whole([-1]))
    classes = outputs.classes or tuple(range(max(outputs.width, 2)))
    named = writing.put("Gather", _names(classes, kind), place, axis=0)
    shaped = named if outputs.label_axes == 1 else writing.put("Reshape", named, _whole([-1, 1]))
    writing.cast(shaped, kind, into=name, made_of=_TEXT if kind == _TEXT else _INT64)


def _names(classes: Sequence[int | str], kind: int) -> Array:
    """Return the labels of classes as text or whole numbers, as the type of the output asks."""
    if kind == _TEXT:
        return np.asarray([str(name) for name in classes], dtype=object)
    try:
        return np.asarray([int(name) for name in classes], dtype=np.int64)
    except ValueError as error:
        raise UnfitRowsError("the label output has numbers, and the classes have names") from error


def _kind(graph: GraphProto, name: str) -> int:
    """Return the element type of an output."""
    return next(int(value.type.tensor_type.elem_type) for value in graph.output if value.name == name)


def _numbers(values: Any) -> Array:
    return np.asarray(values, dtype=np.float32)


def _whole(values: Sequence[int]) -> Array:
    return np.asarray(values, dtype=np.int64)


def _prefix(graph: GraphProto) -> str:
    """Return a beginning of names that no tensor or node has."""
    taken = {name for part in graphs(graph) for node in part.node for name in _named(node)}
    taken |= {tensor.name for tensor in graph.initializer} | {value.name for value in graph.input}
    prefix = "recalibrated"
    while any(name.startswith(prefix) for name in taken):
        prefix += "_"
    return prefix


def _named(node: NodeProto) -> tuple[str, ...]:
    return (node.name, *node.input, *node.output)


def _modern(model: ModelProto) -> ModelProto:
    """Return the model in an operator set that has all that is written here."""
    own = [entry for entry in model.opset_import if entry.domain in {"", "ai.onnx"}]
    if not own:
        model.opset_import.append(helper.make_opsetid("", LEAST_OPSET))
    if not own or max(entry.version for entry in own) >= _LEAST:
        return model
    modern = upgraded(model, LEAST_OPSET)
    if modern is None:
        raise UnfitRowsError(f"its operator set is older than {_LEAST}, and onnx cannot convert it")
    return modern
