"""An ONNX file as a torch module that can be trained, changed and exported again.

    module = import_module(path)                                  # nn.Module in evaluation mode
    scores = module(*inputs)                                      # inputs by position, as the graph has them
    export(module, signature=..., examples=..., target=...)       # nets.exporter; labels come back by themselves

The module runs the graph node by node. Layers with weights are torch's own, so that what prunes, factorizes or rounds
layers finds and may replace them in `module.layers`. It answers one tensor, or a tuple where the graph has more
floating point outputs, the first one being the scores. Scores are what the graph says, logits, log-probabilities or
probabilities; `learning.losses` reads all of them as logits. What turns scores into labels stays ONNX, in
`module.tail`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import ModelProto, NodeProto
from torch import Tensor, nn

from optimizer_jobs.nets.conversion import layers
from optimizer_jobs.nets.conversion.graph import Body, NotImportableError, attributes_of, function_of, read
from optimizer_jobs.nets.conversion.values import Operator, Value, as_tensor, is_number

__all__ = ["GraphModule", "NotImportableError", "Step", "import_module", "not_importable"]


@dataclass(frozen=True)
class Step:
    """One node: an operator with its attributes, or the layer of that name."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    function: Operator | None = None
    """What computes it; None for a layer."""

    @property
    def layer(self) -> bool:
        """Whether it is a layer of the module."""
        return self.function is None


def not_importable(graph: ModelProto) -> str | None:
    """Return why a graph cannot be trained again, naming the operator, or None. Weights need not be loaded."""
    try:
        read(graph)
    except NotImportableError as error:
        return str(error)
    return None


def import_module(model: Path) -> "GraphModule":
    """Return the module, in evaluation mode.

    Raises:
        NotImportableError: with what `not_importable` says.
    """
    module = GraphModule(read(onnx.load(model)))
    module.eval()
    return module


class GraphModule(nn.Module):  # type: ignore[misc] # the library has no types
    """A graph that torch runs: `layers` by node name, other weights as parameters, constants as buffers."""

    def __init__(self, body: Body) -> None:
        super().__init__()
        self.inputs, self.outputs, self.tail, self.opset = body.inputs, body.outputs, body.tail, body.opset
        built = layers.build(body.nodes, body.constants, read_by_others={*body.outputs, *body.tail.taps})
        self.layers = nn.ModuleDict({_safe(name): layer for name, layer in built.layers.items()})
        self.steps = [_step(node, built, body.opset) for node in body.nodes if node.name not in built.absorbed]
        used = {name for step in self.steps for name in step.inputs} | set(self.outputs)
        self._fixed: dict[str, Value] = {}
        self._weights: list[str] = []
        for name, values in body.constants.items():
            if name in used:
                self._keep(name, values)

    def forward(self, *given: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs, the score output first, then what the tail takes."""
        values = self._values(given)
        found = tuple(as_tensor(values[name]) for name in (*self.outputs, *self.tail.taps))
        return found[0] if len(found) == 1 else found

    def shapes(self, given: tuple[Tensor, ...]) -> dict[str, torch.Size]:
        """Return the shape of every tensor that some inputs lead to."""
        with torch.no_grad():
            return {name: value.shape for name, value in self._values(given).items() if isinstance(value, Tensor)}

    def layer_of(self, step: Step) -> nn.Module | None:
        """Return the layer that a step runs; None when it is an operator."""
        return self.layers[_safe(step.name)] if step.layer else None

    def add_layer(self, name: str, layer: nn.Module) -> None:
        """Let the step of this name run a layer."""
        self.layers[_safe(name)] = layer

    def keep_batch(self, given: tuple[Tensor, ...]) -> None:
        """Let every step that reshapes rows, with the batch left open, take the batch from its input instead.

        Then the layers before it can lose channels: what is left open is what follows from them. Whether a step keeps
        the batch is seen on all rows given and on one.
        """
        seen = [self.shapes(given), self.shapes(tuple(values[:1] for values in given))] if len(given[0]) > 1 else []
        self.steps = [self._keeping(step, seen) for step in self.steps]

    def _keeping(self, step: Step, seen: Sequence[Mapping[str, torch.Size]]) -> Step:
        sizes = self._fixed.get(step.inputs[-1]) if step.operator == "Reshape" else None
        if not isinstance(sizes, tuple) or not sizes or not is_number(sizes[0], -1):
            return step
        if not seen or any(_rows(shapes, step.outputs[0]) != _rows(shapes, step.inputs[0]) for shapes in seen):
            return step
        return dataclasses.replace(step, attributes={**step.attributes, "batch": True})

    def _values(self, given: tuple[Tensor, ...]) -> dict[str, Value]:
        values: dict[str, Value] = {"": None, **self._fixed, **dict(zip(self.inputs, given, strict=True))}
        for name in self._weights:
            values[name] = getattr(self, _safe(name))
        for step in self.steps:
            arguments = [values[name] for name in step.inputs]
            layer = self.layer_of(step)
            made = layer(*arguments) if layer is not None else self._run(step, arguments)
            values.update(zip(step.outputs, made if len(step.outputs) > 1 else (made,), strict=False))
        return values

    @staticmethod
    def _run(step: Step, arguments: Sequence[Value]) -> Value:
        if step.function is None:
            raise TypeError(f"step {step.name} is a layer")
        return step.function(arguments, step.attributes)

    def _keep(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Keep a constant: floating point of more than one number is trained, small whole numbers are sizes."""
        tensor = torch.from_numpy(values.copy())
        if values.dtype.kind in "iu" and values.ndim <= 1 and values.size <= _MOST_SIZES:
            self._fixed[name] = tuple(values.tolist()) if values.ndim else int(values)
            return
        if tensor.is_floating_point() and _varies(values):
            self.register_parameter(_safe(name), nn.Parameter(tensor))
        else:
            self.register_buffer(_safe(name), tensor)
        self._weights.append(name)


_MOST_SIZES = 64
"""Whole numbers up to which a constant is sizes, not data."""


def _rows(shapes: Mapping[str, torch.Size], name: str) -> int | None:
    """Return the size of a tensor's first axis; None for what is no tensor, or has no axes."""
    return next(iter(shapes.get(name, ())), None)


def _varies(values: np.ndarray[Any, Any]) -> bool:
    """Return whether numbers look learned: a mask has only two values, and some that are not finite."""
    return values.size > 1 and bool(np.isfinite(values).all()) and len(np.unique(values[:1000])) > 2


def _step(node: NodeProto, built: layers.Built, opset: int) -> Step:
    attributes = {**attributes_of(node), "opset": opset, "outputs": len(node.output)}
    layer = node.name in built.layers
    inputs = (node.input[built.argument(node)],) if layer else tuple(node.input)
    outputs = built.renamed.get(node.name, tuple(node.output))
    return Step(node.name, node.op_type, inputs, outputs, attributes, None if layer else function_of(node))


def _safe(name: str) -> str:
    """Return a name that torch takes for a member."""
    return "t_" + "".join(letter if letter.isalnum() else f"_{ord(letter):x}_" for letter in name)
