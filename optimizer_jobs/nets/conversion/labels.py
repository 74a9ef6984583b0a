"""Give an ONNX file that answers scores the label output of the classifier it replaces.

The label is the class of the largest score, as whole numbers or text; torch has no text, so this is done to the graph.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from optimizer_jobs.signature import TEXT, Signature, TensorSpec


def add_label(model: Path, *, signature: Signature, classes: Sequence[int | str]) -> None:
    """Write the label into the file at `model`, and put the outputs into the signature's order.

    `classes` has the label of each score column; empty means that the column's number is the label.
    """
    label, score = signature.label_output, signature.score_output
    if label is None or score is None:
        return
    proto = onnx.load(model)
    best = f"{label.name}_column"
    proto.graph.node.append(helper.make_node("ArgMax", [score.name], [best], name=best, axis=-1, keepdims=0))
    _look_up(proto, best, label=label, classes=classes or range(score.row_size))
    outputs = {output.name: output for output in proto.graph.output}
    batch = outputs[score.name].type.tensor_type.shape.dim[0]
    shape = [batch.dim_param or batch.dim_value, *([1] if len(label.shape) == 2 else [])]
    outputs[label.name] = helper.make_tensor_value_info(label.name, _kind(label), shape)
    del proto.graph.output[:]
    proto.graph.output.extend(outputs[tensor.name] for tensor in signature.outputs)
    onnx.checker.check_model(proto)
    onnx.save(proto, model)


def _look_up(proto: onnx.ModelProto, best: str, *, label: TensorSpec, classes: Sequence[int | str]) -> None:
    """Add the nodes from column numbers to labels, (N,) or (N, 1) as the label output is."""
    values: list[Any] = [str(one).encode() if label.dtype == TEXT else int(one) for one in classes]
    names, found = f"{label.name}_classes", f"{label.name}_found"
    proto.graph.initializer.append(helper.make_tensor(names, _kind(label), [len(values)], values))
    last = found if len(label.shape) == 2 else label.name
    proto.graph.node.append(helper.make_node("Gather", [names, best], [last], name=last, axis=0))
    if last == found:
        axis = f"{label.name}_axis"
        proto.graph.initializer.append(helper.make_tensor(axis, TensorProto.INT64, [1], [1]))
        proto.graph.node.append(helper.make_node("Unsqueeze", [found, axis], [label.name], name=label.name))


def _kind(label: TensorSpec) -> int:
    if label.dtype == TEXT:
        return int(TensorProto.STRING)
    return int(helper.np_dtype_to_tensor_dtype(np.dtype(label.dtype)))
