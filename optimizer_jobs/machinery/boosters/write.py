"""Write boosted trees as ONNX: one TreeEnsemble node, and what makes answers of its sums.

All comparisons of a file have one mode, because ONNX Runtime is fastest then; tests of categories are chains of them.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper, numpy_helper

from optimizer_jobs.machinery.boosters.chains import chained
from optimizer_jobs.machinery.boosters.forest import Answer, Array, Booster, Forest, Tree

MATRIX, LABEL, PROBABILITIES, VALUE = "x", "label", "probabilities", "value"
"""Names of inputs and outputs, as estimators have them."""

_OPSETS = {"": 18, "ai.onnx.ml": 3}
"""Version 5 of the second has an operator for sets of categories, which ONNX Runtime takes for small sets only."""
_IR_VERSION = 10
_FEATURES, _SUMS, _ONE = "features", "sums", "one"

Labels = Sequence[int] | Sequence[str]


def write(booster: Booster, target: Path) -> None:
    """Write the trees to `target`, with the same bytes for the same trees.

    The file takes one matrix `x` (N, F), or, where categories are text, one input (N, 1) for each column. A classifier
    answers `label` (N,) and `probabilities` (N, classes), all others `value` (N, outputs).

    Args:
        booster: The trees.
        target: The new file.
    """
    inputs, first, features = _inputs(booster)
    nodes, outputs, constants = graph_of(booster, features)
    graph = helper.make_graph([*first, *nodes], "trees", inputs, outputs, constants)
    opsets = [helper.make_opsetid(*opset) for opset in _OPSETS.items()]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION, producer_name="retune")
    target.write_bytes(model.SerializeToString(deterministic=True))


def graph_of(
    booster: Booster, features: str, *, raw: bool = False
) -> tuple[list[NodeProto], list[onnx.ValueInfoProto], list[TensorProto]]:
    """Return the nodes that answer to the matrix named `features`, their outputs, and their constants.

    Args:
        booster: The trees.
        features: Name of a matrix (N, F).
        raw: Whether a classifier answers sums in the place of probabilities.
    """
    forest = booster.forest
    sums = helper.make_node(
        "TreeEnsembleRegressor",
        [features],
        [_SUMS],
        domain="ai.onnx.ml",
        n_targets=len(forest.base),
        base_values=[float(np.float32(value)) for value in forest.base],
        **_attributes(forest, booster.numbers),
    )
    if not forest.classes:
        value = helper.make_tensor_value_info(VALUE, TensorProto.FLOAT, [None, len(forest.base)])
        return [sums, *_valued(forest.answer)], [value], []
    nodes, constants = _labelled(
        _raw_nodes(forest.answer) if raw else _probability_nodes(forest.answer), booster.labels
    )
    kind = TensorProto.STRING if booster.labels and isinstance(booster.labels[0], str) else TensorProto.INT64
    label = helper.make_tensor_value_info(LABEL, kind, [None])
    probabilities = helper.make_tensor_value_info(PROBABILITIES, TensorProto.FLOAT, [None, forest.classes])
    return [sums, *nodes], [label, probabilities], constants


def _valued(answer: Answer) -> list[NodeProto]:
    """Return the nodes that make the value of the sums."""
    if answer is Answer.SIGNED_SQUARE:
        return [helper.make_node("Abs", [_SUMS], ["size"]), helper.make_node("Mul", [_SUMS, "size"], [VALUE])]
    return [helper.make_node(_OPERATORS[answer], [_SUMS], [VALUE])]


_OPERATORS: Mapping[Answer, str] = {
    Answer.VALUE: "Identity",
    Answer.EXP: "Exp",
    Answer.SIGMOID: "Sigmoid",
    Answer.SOFTPLUS: "Softplus",
}


def _probability_nodes(answer: Answer) -> list[NodeProto]:
    """Return the nodes that make probabilities of the sums.

    A TreeEnsembleClassifier would do the same in one node, but what it answers for two classes depends on whether any
    leaf of any tree is negative.
    """
    if answer is Answer.SOFTMAX:
        return [helper.make_node("Softmax", [_SUMS], [PROBABILITIES], axis=1)]
    if answer is Answer.ONE_AGAINST_ALL:
        return [helper.make_node("Sigmoid", [_SUMS], [PROBABILITIES])]
    return [
        helper.make_node("Sigmoid", [_SUMS], ["second"]),
        helper.make_node("Sub", [_ONE, "second"], ["first"]),
        helper.make_node("Concat", ["first", "second"], [PROBABILITIES], axis=1),
    ]


def _raw_nodes(answer: Answer) -> list[NodeProto]:
    """Return the nodes that make one score for each class of the sums."""
    if answer is not Answer.BINARY:
        return [helper.make_node("Identity", [_SUMS], [PROBABILITIES])]
    return [
        helper.make_node("Neg", [_SUMS], ["first"]),
        helper.make_node("Concat", ["first", _SUMS], [PROBABILITIES], axis=1),
    ]


def _labelled(nodes: list[NodeProto], labels: Labels) -> tuple[list[NodeProto], list[TensorProto]]:
    """Return the nodes with those that make the label of scores, and the constants of all."""
    needs_one = any(_ONE in node.input for node in nodes)
    constants = [numpy_helper.from_array(np.ones(1, np.float32), _ONE)] if needs_one else []
    if not labels:
        return [*nodes, helper.make_node("ArgMax", [PROBABILITIES], [LABEL], axis=1, keepdims=0)], constants
    known = np.asarray(labels, dtype=object if isinstance(labels[0], str) else np.int64)
    best = helper.make_node("ArgMax", [PROBABILITIES], ["best"], axis=1, keepdims=0)
    label = helper.make_node("Gather", ["classes", "best"], [LABEL])
    return [*nodes, best, label], [*constants, numpy_helper.from_array(known, "classes")]


def _inputs(booster: Booster) -> tuple[list[onnx.ValueInfoProto], list[NodeProto], str]:
    """Return the inputs, the nodes that make one matrix of them, and the name of the matrix."""
    if not booster.textual:
        width = booster.forest.features
        return [helper.make_tensor_value_info(MATRIX, TensorProto.FLOAT, [None, width])], [], MATRIX
    inputs, nodes, columns = [], [], []
    for place, name in enumerate(booster.names):
        textual = place in booster.textual
        kind = TensorProto.STRING if textual else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info(name, kind, [None, 1]))
        columns.append(f"code_{place}" if textual else name)
        if textual:
            nodes.append(_coder(name, columns[-1], booster.categories[place]))
    return inputs, [*nodes, helper.make_node("Concat", columns, [_FEATURES], axis=1)], _FEATURES


def _coder(name: str, code: str, categories: Sequence[Any]) -> NodeProto:
    """Return the node that replaces each category by its code, and every other text by a missing value."""
    return helper.make_node(
        "LabelEncoder",
        [name],
        [code],
        domain="ai.onnx.ml",
        keys_strings=list(categories),
        values_floats=[float(number) for number in range(len(categories))],
        default_float=float("nan"),
    )


def _attributes(forest: Forest, numbers: Mapping[int, Sequence[float]]) -> dict[str, Any]:
    """Return the attributes of a TreeEnsemble node.

    Args:
        forest: The trees.
        numbers: By column with categories that are numbers in the data, the number of each code.
    """
    parts = [chained(tree, strict=forest.strict, numbers=numbers) for tree in forest.trees]
    mode = "BRANCH_LT" if forest.strict else "BRANCH_LEQ"
    attributes: dict[str, Any] = {
        "nodes_treeids": [number for number, part in enumerate(parts) for _ in part.leaf],
        "nodes_nodeids": [node for part in parts for node in range(len(part.leaf))],
        "nodes_featureids": _flat(part.feature for part in parts),
        "nodes_modes": ["LEAF" if leaf else mode for part in parts for leaf in part.leaf.tolist()],
        "nodes_values": _flat(part.threshold for part in parts),
        "nodes_truenodeids": _flat(np.where(part.leaf, 0, part.left) for part in parts),
        "nodes_falsenodeids": _flat(np.where(part.leaf, 0, part.right) for part in parts),
        **_weights(parts),
    }
    missing = _flat(part.missing_left.astype(np.int64) for part in parts)
    return attributes | ({"nodes_missing_value_tracks_true": missing} if any(missing) else {})


def _weights(trees: Sequence[Tree]) -> dict[str, list[Any]]:
    """Return the attributes that say what each leaf adds to which output."""
    owners, nodes, outputs, values = [], [], [], []
    for number, tree in enumerate(trees):
        leaves, width = np.flatnonzero(tree.leaf), len(tree.outputs)
        owners.append(np.full(len(leaves) * width, number))
        nodes.append(np.repeat(leaves, width))
        outputs.append(np.tile(tree.outputs, len(leaves)))
        values.append(tree.values[leaves].ravel().astype(np.float32))
    return {
        "target_treeids": _flat(owners),
        "target_nodeids": _flat(nodes),
        "target_ids": _flat(outputs),
        "target_weights": _flat(values),
    }


def _flat(arrays: Iterable[Array]) -> list[Any]:
    return [value for array in arrays for value in array.tolist()]
