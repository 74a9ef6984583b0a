"""Which layers quantization hurts most: each is quantized alone, and the error of the model's answers is measured.

So nothing is assumed from a layer's kind or place, and an error that later layers absorb counts for little. One graph
holds both forms of every layer, with an input that says which layer computes in its quantized form. A large model is
therefore opened only once. The files that are compared are never changed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.compress.calibration import session_of
from optimizer_jobs.technique import Alive

Makers = Mapping[str, NodeProto]
"""Tensor to the node that makes it."""

_CHOSEN = "retune_chosen_layer"
"""Name of the input that says which layer is quantized, by its place."""
_NONE = -1


def rank(
    quantized: Path,
    prepared: Path,
    *,
    layers: Sequence[str],
    batches: Sequence[Mapping[str, Any]],
    alive: Alive | None = None,
) -> tuple[str, ...]:
    """Return the layers by the error of the answers when only that layer is quantized, worst first.

    Args:
        quantized: The model with all layers quantized.
        prepared: The float model that it was made from.
        layers: Names of nodes of `prepared`. Layers with equal errors keep this order.
        batches: Inputs to run the model on.
        alive: Asked before each layer; what it raises passes through.
    """
    session = session_of(_with_both(onnx.load(prepared), onnx.load(quantized), layers))
    exact = _answers(session, batches, _NONE)
    errors = {}
    for number, name in enumerate(layers):
        if alive is not None:
            alive()
        errors[name] = _error(_answers(session, batches, number), exact)
    return tuple(sorted(layers, key=errors.__getitem__, reverse=True))


def _with_both(model: ModelProto, quantized: ModelProto, layers: Sequence[str]) -> ModelProto:
    """Return the float model with the quantized form of each layer beside it, and a switch between the two."""
    source = _Quantized.of(quantized)
    nodes = list(model.graph.node)
    places = {name: number for number, name in enumerate(layers)}
    paths = [_path(node, nodes, source.makers) for node in nodes if node.name in places]
    by_end = {path[-1].name: path for path in paths}
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        if path := by_end.get(node.name):
            _add_switch(model, path, source, place=places[path[0].name])
    model.graph.input.append(helper.make_tensor_value_info(_CHOSEN, TensorProto.INT64, []))
    del model.opset_import[:]
    model.opset_import.extend(quantized.opset_import)
    model.ir_version = max(model.ir_version, quantized.ir_version)
    return model


def _path(layer: NodeProto, nodes: Sequence[NodeProto], makers: Makers) -> list[NodeProto]:
    """Return the layer and the nodes behind it that the quantizer merged with it."""
    path = [layer]
    while path[-1].output[0] not in makers:
        path.append(next(node for node in nodes if path[-1].output[0] in node.input))
    return path


def _add_switch(model: ModelProto, path: Sequence[NodeProto], source: "_Quantized", *, place: int) -> None:
    """Append a layer's quantized form, and the switch between both forms, behind its last float node."""
    end, suffix = path[-1].output[0], f"_alone_{place}"
    outside = {name for node in path for name in node.input} - {name for node in path for name in node.output}
    nodes, constants, rounded = source.part(end, since=outside, suffix=suffix)
    model.graph.initializer.extend([*constants, numpy_helper.from_array(np.array(place), f"place{suffix}")])
    model.graph.node[-1].output[0] = f"{end}_float"
    model.graph.node.extend(
        [
            *nodes,
            helper.make_node("Equal", [_CHOSEN, f"place{suffix}"], [f"chosen{suffix}"]),
            helper.make_node("Where", [f"chosen{suffix}", rounded, f"{end}_float"], [end]),
        ]
    )


@dataclass(frozen=True)
class _Quantized:
    """The quantized graph, to copy parts of."""

    nodes: Sequence[NodeProto]
    makers: Makers
    constants: Mapping[str, TensorProto]

    @classmethod
    def of(cls, model: ModelProto) -> "_Quantized":
        """Return the graph of a model."""
        makers = {tensor: node for node in model.graph.node for tensor in node.output}
        return cls(list(model.graph.node), makers, {tensor.name: tensor for tensor in model.graph.initializer})

    def part(self, tensor: str, *, since: set[str], suffix: str) -> tuple[list[NodeProto], list[TensorProto], str]:
        """Copy the nodes that compute a tensor as its readers get it, that is dequantized where it was quantized.

        Args:
            tensor: Name of a tensor that both graphs have.
            since: Tensors that the copies start from; they keep their names.
            suffix: Ending of all names of the copies.

        Returns:
            Nodes, constants, and the name of the copied tensor.
        """
        from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX

        read = f"{tensor}{DEQUANT_OUTPUT_SUFFIX}"
        last = read if read in self.makers else tensor
        tensors = set(_upstream(last, self.makers, until=since))
        nodes = [node for node in self.nodes if tensors & set(node.output)]
        fixed = {name for node in nodes for name in node.input if name in self.constants}
        names = {name: f"{name}{suffix}" for name in (*fixed, *(name for node in nodes for name in node.output))}
        constants = [_renamed(self.constants[name], names[name]) for name in sorted(fixed)]
        return [_copy(node, names, suffix) for node in nodes], constants, names[last]


def _upstream(tensor: str, makers: Makers, *, until: set[str]) -> Iterator[str]:
    """Yield the tensor and those that it is computed from, back to the tensors in `until` and to constants."""
    waiting, seen = [tensor], set(until)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        yield name
        waiting.extend(makers[name].input)


def _copy(node: NodeProto, names: Mapping[str, str], suffix: str) -> NodeProto:
    """Return a copy of the node that reads and writes tensors under their new names."""
    copy = NodeProto()
    copy.CopyFrom(node)
    copy.name = f"{node.name}{suffix}"
    copy.input[:] = [names.get(tensor, tensor) for tensor in node.input]
    copy.output[:] = [names[tensor] for tensor in node.output]
    return copy


def _renamed(tensor: TensorProto, name: str) -> TensorProto:
    copy = TensorProto()
    copy.CopyFrom(tensor)
    copy.name = name
    return copy


def _answers(session: Any, batches: Sequence[Mapping[str, Any]], chosen: int) -> list[Any]:
    """Return each output over all batches, with layer `chosen` quantized; scores alone where there are any."""
    outputs = session.get_outputs()
    names = [output.name for output in outputs if "float" in output.type] or [output.name for output in outputs]
    answers = [session.run(names, {**batch, _CHOSEN: np.array(chosen)}) for batch in batches]
    return [np.concatenate(parts) for parts in zip(*answers, strict=True)]


def _error(answers: Sequence[Any], exact: Sequence[Any]) -> float:
    """Return the sum of the errors of all outputs."""
    return sum(_output_error(output, exact_output) for output, exact_output in zip(answers, exact, strict=True))


def _output_error(output: Any, exact: Any) -> float:
    """Return the squared error relative to the square of the exact scores, or the share of labels that differ."""
    if not np.issubdtype(exact.dtype, np.floating):
        return float(np.mean(output != exact))
    size = float(np.square(exact, dtype=np.float64).sum()) or 1.0
    error = float(np.square(np.subtract(output, exact, dtype=np.float64)).sum()) / size
    return error if np.isfinite(error) else np.inf
