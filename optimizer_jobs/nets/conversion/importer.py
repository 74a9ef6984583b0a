"""Turn an ONNX file into a torch module that can be trained, changed and exported again.

    module = import_module(path)                                  # nn.Module in evaluation mode
    scores = module(*inputs)                                      # inputs by position, in the order of the graph
    export(module, signature=..., examples=..., target=...)       # conversion.exporter puts the labels back

The module runs the graph node by node. Layers with weights are torch's own and lie in `module.layers`, where pruning,
factorization and rounding find and replace them. The module answers one tensor, or a tuple when the graph has several
floating point outputs, the scores first. Scores are logits, log-probabilities or probabilities, as in the graph;
`learning.losses` reads all of them as logits. The part that turns scores into labels stays ONNX, in `module.tail`.
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

_MOST_SIZES = 64
"""Whole numbers up to which a constant is taken for sizes, not data."""


@dataclass(frozen=True)
class Step:
    """One node: an operator with its attributes, or a layer that has the name of the step."""

    name: str
    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    function: Operator | None = None
    """Function that computes it; None for a layer."""

    @property
    def layer(self) -> bool:
        """Whether a layer of the module computes it."""
        return self.function is None


def not_importable(graph: ModelProto) -> str | None:
    """Return why a graph cannot be trained again, such as an operator by name, or None. Weights need not be loaded."""
    try:
        read(graph)
    except NotImportableError as error:
        return str(error)
    return None


def import_module(model: Path) -> "GraphModule":
    """Return the module of an ONNX file, in evaluation mode.

    Raises:
        NotImportableError: `not_importable` says why.
    """
    module = GraphModule(read(onnx.load(model)))
    module.eval()
    return module


class GraphModule(nn.Module):  # type: ignore[misc] # the library has no types
    """A graph that torch runs. Its layers are in `layers`, other weights are parameters, and constants are buffers."""

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

    def forward(self, *inputs: Tensor) -> Tensor | tuple[Tensor, ...]:
        """Return the outputs, the scores first, and then the tensors that the tail reads."""
        values = self._values(inputs)
        outputs = tuple(as_tensor(values[name]) for name in (*self.outputs, *self.tail.taps))
        return outputs[0] if len(outputs) == 1 else outputs

    def shapes(self, inputs: tuple[Tensor, ...]) -> dict[str, torch.Size]:
        """Return the shape of every tensor of the graph, by name, for these inputs."""
        with torch.no_grad():
            return {name: value.shape for name, value in self._values(inputs).items() if isinstance(value, Tensor)}

    def layer_of(self, step: Step) -> nn.Module | None:
        """Return the layer that computes a step; None when it is an operator."""
        return self.layers[_safe(step.name)] if step.layer else None

    def add_layer(self, name: str, layer: nn.Module) -> None:
        """Let a layer compute the step of this name."""
        self.layers[_safe(name)] = layer

    def keep_batch(self, examples: tuple[Tensor, ...]) -> None:
        """Change reshapes that leave the batch open: they take it from their input, and leave another size open.

        The layers before them can then lose channels, because the open size follows from the input.

        Args:
            examples: Rows, each input (N, ...). A reshape counts as keeping the batch when it does so for all of them
                and for a single one.
        """
        first = tuple(values[:1] for values in examples)
        shapes = [self.shapes(examples), self.shapes(first)] if len(examples[0]) > 1 else []
        self.steps = [self._keeping(step, shapes) for step in self.steps]

    def _keeping(self, step: Step, shapes: Sequence[Mapping[str, torch.Size]]) -> Step:
        """Return the step, changed when it is a reshape that keeps the batch in all these shapes."""
        sizes = self._fixed.get(step.inputs[-1]) if step.operator == "Reshape" else None
        if not isinstance(sizes, tuple) or not sizes or not is_number(sizes[0], -1):
            return step
        if not shapes or any(_rows(run, step.outputs[0]) != _rows(run, step.inputs[0]) for run in shapes):
            return step
        return dataclasses.replace(step, attributes={**step.attributes, "batch": True})

    def _values(self, inputs: tuple[Tensor, ...]) -> dict[str, Value]:
        """Return every value of the graph, by name, for these inputs."""
        values: dict[str, Value] = {"": None, **self._fixed, **dict(zip(self.inputs, inputs, strict=True))}
        for name in self._weights:
            values[name] = getattr(self, _safe(name))
        for step in self.steps:
            arguments = [values[name] for name in step.inputs]
            layer = self.layer_of(step)
            output = layer(*arguments) if layer is not None else self._run(step, arguments)
            values.update(zip(step.outputs, output if len(step.outputs) > 1 else (output,), strict=False))
        return values

    @staticmethod
    def _run(step: Step, arguments: Sequence[Value]) -> Value:
        if step.function is None:
            raise TypeError(f"step {step.name} is a layer")
        return step.function(arguments, step.attributes)

    def _keep(self, name: str, values: np.ndarray[Any, Any]) -> None:
        """Keep a constant as sizes (a few whole numbers), as a trained weight (several floats), or as a buffer."""
        tensor = torch.from_numpy(values.copy())
        if values.dtype.kind in "iu" and values.ndim <= 1 and values.size <= _MOST_SIZES:
            self._fixed[name] = tuple(values.tolist()) if values.ndim else int(values)
            return
        if tensor.is_floating_point() and _varies(values):
            self.register_parameter(_safe(name), nn.Parameter(tensor))
        else:
            self.register_buffer(_safe(name), tensor)
        self._weights.append(name)


def _rows(shapes: Mapping[str, torch.Size], name: str) -> int | None:
    """Return the size of the first axis of a tensor, or None for a tensor without axes and for other values."""
    return next(iter(shapes.get(name, ())), None)


def _varies(values: np.ndarray[Any, Any]) -> bool:
    """Return whether numbers look learned: all are finite, and there are more than the two values of a mask."""
    return values.size > 1 and bool(np.isfinite(values).all()) and len(np.unique(values[:1000])) > 2


def _step(node: NodeProto, built: layers.Built, opset: int) -> Step:
    attributes = {**attributes_of(node), "opset": opset, "outputs": len(node.output)}
    layer = node.name in built.layers
    inputs = (node.input[built.argument(node)],) if layer else tuple(node.input)
    outputs = built.renamed.get(node.name, tuple(node.output))
    return Step(node.name, node.op_type, inputs, outputs, attributes, None if layer else function_of(node))


def _safe(name: str) -> str:
    """Return a name that torch accepts for a member of a module."""
    return "t_" + "".join(letter if letter.isalnum() else f"_{ord(letter):x}_" for letter in name)
