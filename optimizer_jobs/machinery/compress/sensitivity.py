"""Which layers quantization hurts most: each is quantized alone, and what that does to the answers is measured.

Nothing is assumed from a layer's kind or place, and an error that later layers absorb counts as little as it matters.
Both forms of every layer stand in one graph, so that a large model is opened once; an input says which layer answers
in its quantized form. Never changes the files it compares.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from optimizer_jobs.machinery.compress.calibration import session_of

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto, TensorProto

    Makers = Mapping[str, NodeProto]

_CHOSEN = "retune_chosen_layer"
"""Name of the input that says which layer is quantized, by its place."""
_NONE = -1


def rank(
    quantized: Path, prepared: Path, *, layers: Sequence[str], batches: Sequence[Mapping[str, Any]]
) -> tuple[str, ...]:
    """Return the layers by the error of the answers when each alone is quantized, worst first; ties keep their order.

    Args:
        quantized: The model with all layers quantized.
        prepared: The model that it was made of, in float.
        layers: Names of nodes of `prepared`.
        batches: Inputs to answer.
    """
    import onnx

    session = session_of(_with_both(onnx.load(prepared), onnx.load(quantized), layers))
    exact = _answers(session, batches, _NONE)
    harm = {name: _error(_answers(session, batches, number), exact) for number, name in enumerate(layers)}
    return tuple(sorted(layers, key=harm.__getitem__, reverse=True))


def _with_both(model: "ModelProto", quantized: "ModelProto", layers: Sequence[str]) -> "ModelProto":
    """Return the float model with the quantized form of each layer beside it, and a switch between the two."""
    from onnx import TensorProto, helper

    other = _Quantized.of(quantized)
    nodes = list(model.graph.node)
    places = {name: number for number, name in enumerate(layers)}
    paths = [_path(node, nodes, other.makers) for node in nodes if node.name in places]
    by_end = {path[-1].name: path for path in paths}
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        if path := by_end.get(node.name):
            _add_switch(model, path, other, place=places[path[0].name])
    model.graph.input.append(helper.make_tensor_value_info(_CHOSEN, TensorProto.INT64, []))
    del model.opset_import[:]
    model.opset_import.extend(quantized.opset_import)
    model.ir_version = max(model.ir_version, quantized.ir_version)
    return model


def _path(layer: "NodeProto", nodes: Sequence["NodeProto"], makers: "Makers") -> list["NodeProto"]:
    """Return the layer and the nodes after it that the quantizer folded into it."""
    path = [layer]
    while path[-1].output[0] not in makers:
        path.append(next(node for node in nodes if path[-1].output[0] in node.input))
    return path


def _add_switch(model: "ModelProto", path: Sequence["NodeProto"], other: "_Quantized", *, place: int) -> None:
    """Append a layer's quantized form, and what chooses between the two, just behind its last float node."""
    from onnx import helper, numpy_helper

    end, mine = path[-1].output[0], f"_alone_{place}"
    outside = {name for node in path for name in node.input} - {name for node in path for name in node.output}
    nodes, constants, rounded = other.part(end, since=outside, suffix=mine)
    model.graph.initializer.extend([*constants, numpy_helper.from_array(np.array(place), f"place{mine}")])
    model.graph.node[-1].output[0] = f"{end}_float"
    model.graph.node.extend(
        [
            *nodes,
            helper.make_node("Equal", [_CHOSEN, f"place{mine}"], [f"chosen{mine}"]),
            helper.make_node("Where", [f"chosen{mine}", rounded, f"{end}_float"], [end]),
        ]
    )


@dataclass(frozen=True)
class _Quantized:
    """The quantized graph, to copy parts of."""

    nodes: Sequence["NodeProto"]
    makers: "Makers"
    """Tensor to the node that makes it."""
    constants: Mapping[str, "TensorProto"]

    @classmethod
    def of(cls, model: "ModelProto") -> "_Quantized":
        """Return a model's graph."""
        makers = {tensor: node for node in model.graph.node for tensor in node.output}
        return cls(list(model.graph.node), makers, {tensor.name: tensor for tensor in model.graph.initializer})

    def part(self, tensor: str, *, since: set[str], suffix: str) -> tuple[list["NodeProto"], list["TensorProto"], str]:
        """Return copies of what makes a tensor as its readers get it, and the copy's name; only `since` keeps its name.

        Args:
            tensor: Name of a tensor that both graphs have.
            since: Tensors that are given.
            suffix: What all names of the copies end with.
        """
        from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX

        read = f"{tensor}{DEQUANT_OUTPUT_SUFFIX}"
        last = read if read in self.makers else tensor
        made = set(_upstream(last, self.makers, until=since))
        nodes = [node for node in self.nodes if made & set(node.output)]
        fixed = {name for node in nodes for name in node.input if name in self.constants}
        names = {name: f"{name}{suffix}" for name in (*fixed, *(name for node in nodes for name in node.output))}
        constants = [_renamed(self.constants[name], names[name]) for name in sorted(fixed)]
        return [_under(node, names, suffix) for node in nodes], constants, names[last]


def _upstream(tensor: str, makers: "Makers", *, until: set[str]) -> Iterator[str]:
    """Yield the tensor and those that it is made of, back to the given ones and to constants."""
    waiting, seen = [tensor], set(until)
    while waiting:
        name = waiting.pop()
        if name in seen or name not in makers:
            continue
        seen.add(name)
        yield name
        waiting.extend(makers[name].input)


def _under(node: "NodeProto", names: Mapping[str, str], suffix: str) -> "NodeProto":
    made = type(node)()
    made.CopyFrom(node)
    made.name = f"{node.name}{suffix}"
    made.input[:] = [names.get(tensor, tensor) for tensor in node.input]
    made.output[:] = [names[tensor] for tensor in node.output]
    return made


def _renamed(tensor: "TensorProto", name: str) -> "TensorProto":
    made = type(tensor)()
    made.CopyFrom(tensor)
    made.name = name
    return made


def _answers(session: Any, batches: Sequence[Mapping[str, Any]], chosen: int) -> list[Any]:
    """Return the outputs over all batches, scores alone where there are any."""
    outputs = session.get_outputs()
    names = [one.name for one in outputs if "float" in one.type] or [one.name for one in outputs]
    found = [session.run(names, {**batch, _CHOSEN: np.array(chosen)}) for batch in batches]
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def _error(found: Sequence[Any], exact: Sequence[Any]) -> float:
    """Return the squared error relative to the answers' own size, or for labels the share that differs."""
    return sum(_off(one, other) for one, other in zip(found, exact, strict=True))


def _off(found: Any, exact: Any) -> float:
    if not np.issubdtype(exact.dtype, np.floating):
        return float(np.mean(found != exact))
    size = float(np.square(exact, dtype=np.float64).sum()) or 1.0
    error = float(np.square(np.subtract(found, exact, dtype=np.float64)).sum()) / size
    return error if np.isfinite(error) else np.inf
