"""Add, to an ONNX file that answers scores, the label output of the classifier that it replaces.

The label is the class of the largest score, a whole number or text. torch has no text, so this is done in the graph. Of
several labels a row, each is given where it is more probable than not.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from optimizer_jobs.signature import TEXT, Scale, Signature, TensorSpec


def add_label(model: Path, *, signature: Signature, classes: Sequence[int | str]) -> None:
    """Add the label to the file, and put the outputs into the order of the signature.

    Args:
        model: The ONNX file; it is rewritten, unless the signature has no label.
        signature: Inputs and outputs that the file is to have.
        classes: Label of each score column; empty means that the column's number is the label.
    """
    label, score = signature.label_output, signature.score_output
    if label is None or score is None:
        return
    proto = onnx.load(model)
    best = f"{label.name}_column"
    proto.graph.node.append(helper.make_node("ArgMax", [score.name], [best], name=best, axis=-1, keepdims=0))
    _look_up(proto, best, label=label, classes=classes or range(score.row_size))
    _save(proto, model, signature, row=[1] if len(label.shape) == 2 else [])


def add_label_sets(model: Path, *, signature: Signature) -> None:
    """Add zeros and ones for several labels a row to the file, and put the outputs into the order of the signature.

    Args:
        model: The ONNX file; it is rewritten, unless the signature has no such output.
        signature: Inputs and outputs that the file is to have.
    """
    label, score = signature.label_output, signature.score_output
    if label is None or score is None:
        return
    proto = onnx.load(model)
    even = 0.5 if signature.score_scale is Scale.PROBABILITIES else 0.0
    limit, above = f"{label.name}_limit", f"{label.name}_given"
    kind = next(output.type.tensor_type.elem_type for output in proto.graph.output if output.name == score.name)
    proto.graph.initializer.append(helper.make_tensor(limit, kind, [], [even]))
    proto.graph.node.append(helper.make_node("Greater", [score.name, limit], [above], name=above))
    proto.graph.node.append(helper.make_node("Cast", [above], [label.name], name=label.name, to=_kind(label)))
    _save(proto, model, signature, row=list(label.shape[1:]))


def _save(proto: onnx.ModelProto, model: Path, signature: Signature, *, row: Sequence[int]) -> None:
    """Write the file with the label, of which a row has the shape `row`, as an output in the signature's order."""
    label, score = signature.label_output, signature.score_output
    if label is None or score is None:
        raise ValueError("there is no label to be an output")
    outputs = {output.name: output for output in proto.graph.output}
    batch = outputs[score.name].type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value, *row]
    outputs[label.name] = helper.make_tensor_value_info(label.name, _kind(label), shape)
    del proto.graph.output[:]
    proto.graph.output.extend(outputs[tensor.name] for tensor in signature.outputs)
    onnx.checker.check_model(proto)
    onnx.save(proto, model)


def _look_up(proto: onnx.ModelProto, best: str, *, label: TensorSpec, classes: Sequence[int | str]) -> None:
    """Add the nodes from column numbers to labels, with the shape (N,) or (N, 1) of the label output."""
    values: list[Any] = [str(name).encode() if label.dtype == TEXT else int(name) for name in classes]
    table, flat = f"{label.name}_classes", f"{label.name}_found"
    proto.graph.initializer.append(helper.make_tensor(table, _kind(label), [len(values)], values))
    looked_up = flat if len(label.shape) == 2 else label.name
    proto.graph.node.append(helper.make_node("Gather", [table, best], [looked_up], name=looked_up, axis=0))
    if looked_up == flat:
        axis = f"{label.name}_axis"
        proto.graph.initializer.append(helper.make_tensor(axis, TensorProto.INT64, [1], [1]))
        proto.graph.node.append(helper.make_node("Unsqueeze", [flat, axis], [label.name], name=label.name))


def _kind(label: TensorSpec) -> int:
    """Return the ONNX element type of the labels."""
    if label.dtype == TEXT:
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(label.dtype)))
