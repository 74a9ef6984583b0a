"""Which layers quantization hurts most: each is quantized alone, and what that does to the answers is measured.

Nothing is assumed from a layer's kind or place, and an error that later layers absorb counts as little as it matters.
Both forms of every layer stand in one graph, so that a large model is opened once; an input says which layer answers
in its quantized form. Never changes the files it compares.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

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

    session = _session(_with_both(onnx.load(prepared), onnx.load(quantized), layers))
    exact = _answers(session, batches, _NONE)
    harm = {name: _error(_answers(session, batches, number), exact) for number, name in enumerate(layers)}
    return tuple(sorted(layers, key=harm.__getitem__, reverse=True))


def _with_both(model: "ModelProto", quantized: "ModelProto", layers: Sequence[str]) -> "ModelProto":
    """Return the float model with the quantized form of each layer beside it, and a switch between the two."""
    from onnx import TensorProto, helper

    makers = {tensor: node for node in quantized.graph.node for tensor in node.output}
    places = {name: number for number, name in enumerate(layers)}
    paths = {(path := _path(node, model, makers))[-1].name: (places[node.name], path)
             for node in model.graph.node if node.name in places}  # fmt: skip
    nodes = list(model.graph.node)
    del model.graph.node[:]
    for node in nodes:
        model.graph.node.append(node)
        if node.name in paths:
            place, path = paths[node.name]
            _add_other(model, quantized, place=place, path=path, makers=makers)
    model.graph.input.append(helper.make_tensor_value_info(_CHOSEN, TensorProto.INT64, []))
    del model.opset_import[:]
    model.opset_import.extend(quantized.opset_import)
    model.ir_version = max(model.ir_version, quantized.ir_version)
    return model


def _path(layer: "NodeProto", model: "ModelProto", makers: "Makers") -> list["NodeProto"]:
    """Return the layer and the nodes after it that the quantizer folded into it."""
    path = [layer]
    while path[-1].output[0] not in makers:
        path.append(next(node for node in model.graph.node if path[-1].output[0] in node.input))
    return path


def _add_other(
    model: "ModelProto", quantized: "ModelProto", *, place: int, path: Sequence["NodeProto"], makers: "Makers"
) -> None:
    """Append a layer's quantized form and the switch, just behind its last float node."""
    from onnx import helper, numpy_helper
    from onnxruntime.quantization.quant_utils import DEQUANT_OUTPUT_SUFFIX

    end = path[-1].output[0]
    own, mine = f"{end}_float", f"_alone_{place}"
    rounded = f"{end}{DEQUANT_OUTPUT_SUFFIX}" if f"{end}{DEQUANT_OUTPUT_SUFFIX}" in makers else end
    outside = {name for node in path for name in node.input} - {name for node in path for name in node.output}
    taken = set(_upstream(rounded, makers, until=outside))
    constants = {tensor.name: tensor for tensor in quantized.graph.initializer}
    renamed = dict[str, str]()
    model.graph.node[-1].output[0] = own
    for node in quantized.graph.node:
        if taken & set(node.output):
            renamed |= {name: name + mine for name in (*node.output, *(set(node.input) & set(constants)))}
            model.graph.node.add().CopyFrom(_under_new_names(node, renamed, node.name + mine))
    for name in constants.keys() & renamed.keys():
        model.graph.initializer.add().CopyFrom(constants[name])
        model.graph.initializer[-1].name = renamed[name]
    model.graph.initializer.append(numpy_helper.from_array(np.array(place), f"place{mine}"))
    model.graph.node.append(helper.make_node("Equal", [_CHOSEN, f"place{mine}"], [f"chosen{mine}"]))
    model.graph.node.append(helper.make_node("Where", [f"chosen{mine}", renamed[rounded], own], [end]))


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


def _under_new_names(node: "NodeProto", names: Mapping[str, str], name: str) -> "NodeProto":
    from onnx import NodeProto

    made = NodeProto()
    made.CopyFrom(node)
    made.name = name
    made.input[:] = [names.get(tensor, tensor) for tensor in node.input]
    made.output[:] = [names[tensor] for tensor in node.output]
    return made


def _session(model: "ModelProto") -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


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
