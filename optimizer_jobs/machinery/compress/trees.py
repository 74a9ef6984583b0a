"""Fewer trees in the TreeEnsemble nodes of an ONNX file: those kept whose sum is most like that of all.

Works on the file alone, whatever library made it. The measure is taken on training or calibration rows and needs no
labels; what is kept is scaled so that the sum stays as large. Inputs, outputs and the trees themselves stay.
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
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject

Array = NDArray[Any]

OPERATORS = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
FEWEST = 8
"""Trees below which nothing is dropped."""

_ROWS = 1000
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
    """Return why no trees can be dropped with this data."""
    if not (subject.training or subject.calibration):
        return "there are no rows to see on which trees matter: set data.training or data.calibration"
    return None


def prune(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Drop the share `params["ratio"]` of the trees of every ensemble."""
    rows = context.calibration or context.training
    if rows is None:
        return Skipped(reason="there are no rows to see on which trees matter")
    if params["granularity"] != "Structured":
        return Skipped(reason="trees have no weights to set to zero; they can be dropped (granularity Structured)")
    proto = onnx.load(model)
    nodes = [node for node in proto.graph.node if _droppable(node)]
    asked = _inputs(proto, nodes, _sample(rows, seed=context.seed))
    kept, total = 0, 0
    for node, X in zip(nodes, asked, strict=True):
        ensemble = _Ensemble(node)
        left = max(1, round(len(ensemble.trees) * (1 - float(params["ratio"]))))
        chosen, scale = fewer(ensemble.answers(X), keep=left)
        ensemble.keep(chosen, scale=scale)
        kept, total = kept + len(chosen), total + len(ensemble.trees)
    target = context.workdir / "model.onnx"
    target.write_bytes(proto.SerializeToString(deterministic=True))
    size = target.stat().st_size / model.stat().st_size
    return Applied(model=target, summary=f"{kept} of {total} trees kept, {size:.2f} of the size")


def fewer(answers: Array, *, keep: int) -> tuple[list[int], float]:
    """Return which trees are kept, in order, and what their answers are multiplied by.

    Trees are added one by one, each time the one that brings the sum nearest in direction to the sum of all.

    Args:
        answers: (trees, rows, outputs) of every tree.
        keep: Number of trees to keep.
    """
    flat = answers.reshape(len(answers), -1).astype(np.float64)
    gram, toward = flat @ flat.T, flat @ flat.sum(axis=0)
    chosen: list[int] = []
    inner, along, length = np.zeros(len(flat)), 0.0, 0.0
    free = np.ones(len(flat), dtype=bool)
    for _ in range(min(keep, len(flat))):
        lengths = length + 2 * inner + np.diag(gram)
        likeness = np.where(free, (along + toward) / np.sqrt(np.maximum(lengths, 1e-30)), -np.inf)
        best = int(np.argmax(likeness))
        along, length = along + toward[best], lengths[best]
        inner, free[best] = inner + gram[best], False
        chosen.append(best)
    return sorted(chosen), _scale(answers, sorted(chosen), fitted=along / length if length > 0 else 1.0)


def _scale(answers: Array, chosen: Sequence[int], *, fitted: float) -> float:
    """Return the scale that keeps votes summing to what they did, or else the best fit of the sums."""
    votes = answers.sum(axis=(1, 2)) / answers.shape[1]
    is_vote = bool((answers >= 0).all()) and np.allclose(votes, votes[0], rtol=1e-3) and votes[0] > 0
    return float(votes.sum() / votes[list(chosen)].sum()) if is_vote else fitted


@dataclass(frozen=True)
class _Tree:
    """One tree as arrays over its nodes; children are positions in them."""

    number: int
    features: Array
    values: Array
    modes: Sequence[str]
    yes: Array
    no: Array
    missing_yes: Array
    leaves: Array
    """(nodes, outputs) what a row that ends at the node gets."""

    def answers(self, X: Array) -> Array:
        """Return (rows, outputs) for the rows (N, F)."""
        at, lines = np.zeros(len(X), dtype=np.int64), np.arange(len(X))
        kinds = np.asarray(self.modes)
        walking = kinds[at] != _LEAF
        while walking.any():
            node = at[walking]
            value, bound = X[lines[walking], self.features[node]], self.values[node]
            taken = np.zeros(len(node), dtype=bool)
            for kind in set(kinds[node].tolist()):
                mask = kinds[node] == kind
                taken[mask] = _COMPARE[kind](value[mask], bound[mask])
            taken |= np.isnan(value) & self.missing_yes[node]
            at[walking] = np.where(taken, self.yes[node], self.no[node])
            walking = kinds[at] != _LEAF
        return self.leaves[at]


class _Ensemble:
    """The trees of one node."""

    def __init__(self, node: onnx.NodeProto) -> None:
        self._node = node
        self._values = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        self._kind = "class" if node.op_type == OPERATORS[0] else "target"
        self.trees = tuple(_trees(self._values, self._kind))

    def answers(self, X: Array) -> Array:
        """Return (trees, rows, outputs) for the rows (N, F)."""
        return np.stack([tree.answers(X) for tree in self.trees])

    def keep(self, chosen: Sequence[int], *, scale: float) -> None:
        """Leave only these trees in the node, their answers multiplied."""
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
    owners, leaf_owners = np.asarray(values["nodes_treeids"]), np.asarray(values[f"{kind}_treeids"])
    features, bounds = np.asarray(values["nodes_featureids"]), np.asarray(values["nodes_values"], dtype=np.float32)
    names = np.asarray(values["nodes_nodeids"])
    missing = np.asarray(values.get("nodes_missing_value_tracks_true") or [0] * len(owners), dtype=bool)
    outputs = int(max(values[f"{kind}_ids"])) + 1
    for number in dict.fromkeys(owners.tolist()):
        mine, leaves = np.flatnonzero(owners == number), np.flatnonzero(leaf_owners == number)
        place = {name: position for position, name in enumerate(names[mine].tolist())}
        table = np.zeros((len(mine), outputs), dtype=np.float32)
        for leaf in leaves:
            at = place[values[f"{kind}_nodeids"][leaf]]
            table[at, values[f"{kind}_ids"][leaf]] += values[f"{kind}_weights"][leaf]
        yield _Tree(
            number=number,
            features=features[mine],
            values=bounds[mine],
            missing_yes=missing[mine],
            leaves=table,
            modes=[values["nodes_modes"][one].decode() for one in mine],
            yes=_places(place, values["nodes_truenodeids"], mine),
            no=_places(place, values["nodes_falsenodeids"], mine),
        )


def _places(place: Mapping[int, int], names: Sequence[int], mine: Array) -> Array:
    return np.asarray([place.get(names[one], 0) for one in mine])


def _droppable(node: onnx.NodeProto) -> bool:
    """Return whether the node has trees to drop, in single precision, that are added up."""
    if node.op_type not in OPERATORS or node.domain != "ai.onnx.ml":
        return False
    values = {one.name: one for one in node.attribute}
    doubles = any(name.endswith("_as_tensor") for name in values)
    added = values["aggregate_function"].s in {b"SUM", b""} if "aggregate_function" in values else True
    return not doubles and added and len(set(values["nodes_treeids"].ints)) >= FEWEST


def _inputs(proto: onnx.ModelProto, nodes: Sequence[onnx.NodeProto], rows: Rows) -> list[Array]:
    """Return what arrives at each node when the model is asked with the rows."""
    import onnxruntime

    wanted = [node.input[0] for node in nodes]
    given = {one.name for one in proto.graph.input}
    opened = onnx.ModelProto()
    opened.CopyFrom(proto)
    inner = [name for name in dict.fromkeys(wanted) if name not in given]
    del opened.graph.output[:]
    opened.graph.output.extend([onnx.ValueInfoProto(name=name) for name in inner] or [proto.graph.output[0]])
    found = dict(rows.inputs)
    if inner:
        session = onnxruntime.InferenceSession(opened.SerializeToString(), providers=["CPUExecutionProvider"])
        found |= dict(zip(inner, session.run(inner, dict(rows.inputs)), strict=True))
    return [np.asarray(found[name], dtype=np.float32) for name in wanted]


def _sample(rows: Rows, *, seed: int) -> Rows:
    drawn = np.random.default_rng(seed).permutation(len(rows))[:_ROWS]
    return rows.take(np.sort(drawn))
