"""Drop trees from the TreeEnsemble nodes of an ONNX file, and keep those whose sum is most like the sum of all.

This needs only the file, whatever library made it, and training or calibration rows without labels. The trees that are
kept are scaled so that their sum stays as large. Inputs, outputs and the trees themselves stay.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.calibration import sample
from optimizer_jobs.machinery.compress.pruning import STRUCTURED
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject

Array = NDArray[Any]

OPERATORS = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
FEWEST = 8
"""Trees of an ensemble below which nothing is dropped."""

_ROWS = 1000
"""Rows on which trees are compared, at most."""
_LEAF = "LEAF"
_COMPARE = {
    "BRANCH_LEQ": np.less_equal,
    "BRANCH_LT": np.less,
    "BRANCH_GTE": np.greater_equal,
    "BRANCH_GT": np.greater,
    "BRANCH_EQ": np.equal,
    "BRANCH_NEQ": np.not_equal,
}


def present(graph: onnx.ModelProto) -> bool:
    """Return whether the model has an ensemble of trees with some to drop."""
    return any(_droppable(node) for node in graph.graph.node)


def unavailable(subject: Subject) -> str | None:
    """Return why no trees can be dropped with this data, or None."""
    if not (subject.training or subject.calibration):
        return "there are no rows to see on which trees matter: set data.training or data.calibration"
    return None


def prune(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Drop the share `params["ratio"]`, 0 to 1, of the trees of every ensemble."""
    rows = context.calibration or context.training
    if rows is None:
        return Skipped(reason="there are no rows to see on which trees matter")
    if params["granularity"] != STRUCTURED:
        return Skipped(reason="trees have no weights to set to zero; they can be dropped (granularity Structured)")
    proto = onnx.load(model)
    nodes = [node for node in proto.graph.node if _droppable(node)]
    inputs = _inputs(proto, nodes, sample(rows, _ROWS, seed=context.seed))
    kept, total = 0, 0
    for node, X in zip(nodes, inputs, strict=True):
        ensemble = _Ensemble(node)
        count = max(1, round(len(ensemble.trees) * (1 - float(params["ratio"]))))
        chosen, scale = _choose(ensemble.answers(X), count)
        ensemble.keep(chosen, scale=scale)
        kept, total = kept + len(chosen), total + len(ensemble.trees)
    target = context.workdir / "model.onnx"
    target.write_bytes(proto.SerializeToString(deterministic=True))
    size = target.stat().st_size / model.stat().st_size
    return Applied(model=target, summary=f"{kept} of {total} trees kept, {size:.2f} of the size")


def _choose(answers: Array, count: int) -> tuple[list[int], float]:
    """Return which trees are kept, in order, and what their answers are multiplied by.

    Trees are added one by one. Each time it is the tree that brings the sum closest in direction to the sum of all.

    Args:
        answers: Answers (trees, rows, outputs) of every tree.
        count: Number of trees to keep.
    """
    flat = answers.reshape(len(answers), -1).astype(np.float64)
    products, with_total = flat @ flat.T, flat @ flat.sum(axis=0)
    chosen: list[int] = []
    with_sum = np.zeros(len(flat))  # products of each tree with the sum of the chosen ones
    sum_with_total, sum_squared = 0.0, 0.0
    free = np.ones(len(flat), dtype=bool)
    for _ in range(min(count, len(flat))):
        squared = sum_squared + 2 * with_sum + np.diag(products)
        cosine = np.where(free, (sum_with_total + with_total) / np.sqrt(np.maximum(squared, 1e-30)), -np.inf)
        best = int(np.argmax(cosine))
        sum_with_total, sum_squared = sum_with_total + with_total[best], squared[best]
        with_sum, free[best] = with_sum + products[best], False
        chosen.append(best)
    fitted = sum_with_total / sum_squared if sum_squared > 0 else 1.0
    return sorted(chosen), _scale(answers, sorted(chosen), fitted=fitted)


def _scale(answers: Array, chosen: Sequence[int], *, fitted: float) -> float:
    """Return what answers are multiplied by: votes still sum to what they did, other answers take the best fit."""
    votes = answers.sum(axis=(1, 2)) / answers.shape[1]
    is_vote = bool((answers >= 0).all()) and np.allclose(votes, votes[0], rtol=1e-3) and votes[0] > 0
    return float(votes.sum() / votes[list(chosen)].sum()) if is_vote else fitted


@dataclass(frozen=True)
class _Tree:
    """One tree as arrays over its nodes. Children are positions in these arrays."""

    number: int
    features: Array
    values: Array
    modes: Sequence[str]
    yes: Array
    no: Array
    missing_yes: Array
    leaves: Array
    """Answers (nodes, outputs) for a row that ends at the node."""

    def answers(self, X: Array) -> Array:
        """Return the answers (N, outputs) to the rows (N, F)."""
        nodes, rows = np.zeros(len(X), dtype=np.int64), np.arange(len(X))
        modes = np.asarray(self.modes)
        walking = modes[nodes] != _LEAF
        while walking.any():
            node = nodes[walking]
            value, threshold = X[rows[walking], self.features[node]], self.values[node]
            yes = np.zeros(len(node), dtype=bool)
            for mode in set(modes[node].tolist()):
                mask = modes[node] == mode
                yes[mask] = _COMPARE[mode](value[mask], threshold[mask])
            yes |= np.isnan(value) & self.missing_yes[node]
            nodes[walking] = np.where(yes, self.yes[node], self.no[node])
            walking = modes[nodes] != _LEAF
        return self.leaves[nodes]


class _Ensemble:
    """The trees of one node."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node
        self._values = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
        self._kind = "class" if node.op_type == OPERATORS[0] else "target"
        self.trees = tuple(_trees(self._values, self._kind))

    def answers(self, X: Array) -> Array:
        """Return the answers (trees, N, outputs) to the rows (N, F)."""
        return np.stack([tree.answers(X) for tree in self.trees])

    def keep(self, chosen: Sequence[int], *, scale: float) -> None:
        """Leave only these trees in the node, with their answers multiplied by `scale`."""
        numbers = [self.trees[place].number for place in chosen]
        for group in ("nodes", self._kind):
            mask = np.isin(self._values[f"{group}_treeids"], numbers)
            for name in [name for name in self._values if name.startswith(f"{group}_")]:
                self._values[name] = [value for value, stays in zip(self._values[name], mask, strict=True) if stays]
        weights = f"{self._kind}_weights"
        self._values[weights] = [float(np.float32(value * scale)) for value in self._values[weights]]
        del self._node.attribute[:]
        filled = {name: value for name, value in self._values.items() if value != []}
        self._node.attribute.extend(helper.make_attribute(name, value) for name, value in filled.items())


def _trees(values: Mapping[str, Any], kind: str) -> Iterator[_Tree]:
    """Yield the trees of a node; `values` are its attributes, and answers are those of its `kind`, class or target."""
    owners, leaf_owners = np.asarray(values["nodes_treeids"]), np.asarray(values[f"{kind}_treeids"])
    features, bounds = np.asarray(values["nodes_featureids"]), np.asarray(values["nodes_values"], dtype=np.float32)
    names = np.asarray(values["nodes_nodeids"])
    missing = np.asarray(values.get("nodes_missing_value_tracks_true") or [0] * len(owners), dtype=bool)
    outputs = int(max(values[f"{kind}_ids"])) + 1
    for number in dict.fromkeys(owners.tolist()):
        nodes, leaves = np.flatnonzero(owners == number), np.flatnonzero(leaf_owners == number)
        positions = {name: position for position, name in enumerate(names[nodes].tolist())}
        table = np.zeros((len(nodes), outputs), dtype=np.float32)
        for leaf in leaves:
            position = positions[values[f"{kind}_nodeids"][leaf]]
            table[position, values[f"{kind}_ids"][leaf]] += values[f"{kind}_weights"][leaf]
        yield _Tree(
            number=number,
            features=features[nodes],
            values=bounds[nodes],
            missing_yes=missing[nodes],
            leaves=table,
            modes=[values["nodes_modes"][node].decode() for node in nodes],
            yes=_children(positions, values["nodes_truenodeids"], nodes),
            no=_children(positions, values["nodes_falsenodeids"], nodes),
        )


def _children(positions: Mapping[int, int], names: Sequence[int], nodes: Array) -> Array:
    return np.asarray([positions.get(names[node], 0) for node in nodes])


def _droppable(node: onnx.NodeProto) -> bool:
    """Return whether the node has trees to drop: enough of them, in single precision, and added up."""
    if node.op_type not in OPERATORS or node.domain != "ai.onnx.ml":
        return False
    attributes = {attribute.name: attribute for attribute in node.attribute}
    doubles = any(name.endswith("_as_tensor") for name in attributes)
    added = attributes["aggregate_function"].s in {b"SUM", b""} if "aggregate_function" in attributes else True
    return not doubles and added and len(set(attributes["nodes_treeids"].ints)) >= FEWEST


def _inputs(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], rows: Rows) -> list[Array]:
    """Return the input of each node, (N, F), when the model runs on the rows."""
    import onnxruntime

    names = [node.input[0] for node in nodes]
    model_inputs = {value.name for value in proto.graph.input}
    inner = [name for name in dict.fromkeys(names) if name not in model_inputs]
    tensors = dict(rows.inputs)
    if inner:
        opened = onnx.ModelProto()
        opened.CopyFrom(proto)
        del opened.graph.output[:]
        opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        session = onnxruntime.InferenceSession(opened.SerializeToString(), providers=["CPUExecutionProvider"])
        tensors |= dict(zip(inner, session.run(inner, dict(rows.inputs)), strict=True))
    return [np.asarray(tensors[name], dtype=np.float32) for name in names]
