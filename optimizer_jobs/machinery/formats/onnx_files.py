"""Format ONNX, as strangers' exporters write it: rewritten where it has a form that an engine or a technique refuses.

What is rewritten changes no answer, and each change is said. The file may be hostile, so this runs in a process of its
own, which checks the result too. External data stays where it is, beside both files.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper
from pydantic import TypeAdapter

from optimizer_jobs.machinery.estimators.several import of_lists
from optimizer_jobs.models.onnx_file import check_onnx, parse_onnx
from optimizer_jobs.models.sandbox import CHECK_SECONDS, run_in_sandbox
from optimizer_jobs.progress import say
from optimizer_jobs.signature import Signature

_STANDARD = {"", "ai.onnx"}
_OPSET = 18
"""Version of the standard operators that a file gets which uses none of them, and so names none."""
_SHOWN = 5
_LABELS: TypeAdapter[tuple[int | str, ...]] = TypeAdapter(tuple[int | str, ...])
REWRITTEN = "delivered-rewritten.onnx"
"""Name of a rewritten file, which lies beside the delivered one."""


@dataclass(frozen=True)
class Checked:
    """A checked ONNX file, as it was or rewritten."""

    path: Path
    signature: Signature
    classes: tuple[int | str, ...] = ()
    """Label of each score column, where the file named them; empty where the column's number is the label."""


def check_in_sandbox(path: Path, *, uri: str) -> Checked:
    """Check an ONNX file, and rewrite it beside itself where engines or techniques would refuse its form.

    Raises:
        JobError: ModelTooLarge or ModelInvalid, also when it crashes or stalls the process.
    """
    question = {"path": str(path), "uri": uri}
    reply = run_in_sandbox(f"{__name__}:answer", question, uri=uri, seconds=CHECK_SECONDS)
    for change in reply["changes"]:
        say(f"  the delivered file is changed: {change}")
    return Checked(
        path=path.with_name(REWRITTEN) if reply["changes"] else path,
        signature=Signature.model_validate(reply["signature"]),
        classes=_LABELS.validate_python(reply["classes"]),
    )


def answer(question: dict[str, str]) -> dict[str, Any]:
    """Check and rewrite; called in the child process."""
    path, uri = Path(question["path"]), question["uri"]
    model = parse_onnx(path, uri=uri)
    classes = _classes(model)
    changes = [change for rewrite in _REWRITES for change in rewrite(model)]
    if changes:
        path = path.with_name(REWRITTEN)
        path.write_bytes(model.SerializeToString(deterministic=True))
    return {"changes": changes, "classes": classes, "signature": check_onnx(path, uri=uri).to_dict()}


def _classes(model: ModelProto) -> list[int | str]:
    """Return the keys of the maps that answer scores by class, where they are no plain numbers of columns."""
    nodes = _zip_maps(model)
    labels = _keys(nodes[0]) if nodes else []
    return [] if labels == list(range(len(labels))) else labels


def _strip_zip_maps(model: ModelProto) -> list[str]:
    """Let each output that is a sequence of maps be the matrix that the maps are made of."""
    nodes = _zip_maps(model)
    for node in nodes:
        scores, output = node.input[0], node.output[0]
        shape = [None, len(_keys(node))]
        place = next(number for number, value in enumerate(model.graph.output) if value.name == output)
        model.graph.output[place].CopyFrom(helper.make_tensor_value_info(output, TensorProto.FLOAT, shape))
        _replace(model, node, scores, output)
    names = ", ".join(repr(node.output[0]) for node in nodes)
    return [f"output {names} is one matrix of scores, not a map for each row (ZipMap)"] if nodes else []


def _zip_maps(model: ModelProto) -> list[NodeProto]:
    outputs = {value.name for value in model.graph.output}
    return [node for node in model.graph.node if node.op_type == "ZipMap" and node.output[0] in outputs]


def _keys(node: NodeProto) -> list[int | str]:
    """Return the labels of a ZipMap node."""
    values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    texts = [text.decode(errors="replace") for text in values.get("classlabels_strings", ())]
    return texts or [int(number) for number in values.get("classlabels_int64s", ())]


def _replace(model: ModelProto, node: NodeProto, scores: str, output: str) -> None:
    """Remove the node, and let whatever makes its input make its output instead."""
    model.graph.node.remove(node)
    makers = [other for other in model.graph.node if scores in other.output]
    kept = {value.name for value in (*model.graph.input, *model.graph.output)}
    if not makers or scores in kept:
        model.graph.node.append(helper.make_node("Identity", [scores], [output]))
        return
    for other in model.graph.node:
        other.input[:] = [output if name == scores else name for name in other.input]
        other.output[:] = [output if name == scores else name for name in other.output]


def _stack_label_probabilities(model: ModelProto) -> list[str]:
    """Let an output with two probabilities for each of several labels be one matrix (N, labels) of having them."""
    value = next((value for value in model.graph.output if _is_of_lists(value)), None)
    labels = _labels(model)
    if value is None or labels is None:
        return []
    name, pairs = value.name, f"{value.name}_of_labels"
    for node in model.graph.node:
        node.input[:] = [pairs if other == name else other for other in node.input]
        node.output[:] = [pairs if other == name else other for other in node.output]
    before = onnx.ValueInfoProto()
    before.CopyFrom(value)
    before.name, made = pairs, f"{name}_made"
    cast = helper.make_node("Cast", [made], [name], to=TensorProto.FLOAT)
    model.graph.node.extend([*of_lists(model, before, made), cast])
    value.CopyFrom(helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, labels]))
    return [f"output {name!r} is one matrix with the probability of each label, not two for each"]


def _is_of_lists(value: onnx.ValueInfoProto) -> bool:
    """Return whether an output is a list of tensors, or has two numbers for each label and row (labels, N, 2)."""
    if value.type.HasField("sequence_type"):
        return value.type.sequence_type.elem_type.HasField("tensor_type")
    sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
    return value.type.tensor_type.elem_type == TensorProto.FLOAT and len(sizes) == 3 and sizes[0] > 1 and sizes[2] == 2


def _labels(model: ModelProto) -> int | None:
    """Return how many labels a row has by the output that holds whole numbers (N, labels), or None."""
    for value in model.graph.output:
        sizes = [size.dim_value for size in value.type.tensor_type.shape.dim]
        if value.type.tensor_type.elem_type == TensorProto.INT64 and len(sizes) == 2 and sizes[1] > 1:
            return sizes[1]
    return None


def _inline_functions(model: ModelProto) -> list[str]:
    """Put the bodies of the model's own functions into its graph, where techniques look for layers."""
    if not model.functions:
        return []
    from onnx import inliner

    names = ", ".join(function.name for function in model.functions[:_SHOWN])
    model.CopyFrom(inliner.inline_local_functions(model))
    return [f"the bodies of its functions are part of the graph ({names})"]


def _name_standard_operators(model: ModelProto) -> list[str]:
    """Name the version of the standard operators, which files of trees alone leave out."""
    if any(opset.domain in _STANDARD for opset in model.opset_import):
        return []
    model.opset_import.append(helper.make_opsetid("", _OPSET))
    return [f"it names a version of the standard operators, {_OPSET}, as tools want it"]


_REWRITES: Sequence[Callable[[ModelProto], list[str]]] = (
    _inline_functions,
    _strip_zip_maps,
    _stack_label_probabilities,
    _name_standard_operators,
)
"""Each changes the model in place and says in words what it has changed. In this order."""
