"""Read the ensemble of a TreeEnsemble node of an ONNX graph, of any version, and write it back into the node.

What an ensemble cannot say stays as it is in the node: names of classes, and what becomes of the sums.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from optimizer_jobs.machinery.trees.ensemble import LEAF, MODES, Array, Ensemble

CLASSIFIER, REGRESSOR, NEWER = "TreeEnsembleClassifier", "TreeEnsembleRegressor", "TreeEnsemble"
OPERATORS = (CLASSIFIER, REGRESSOR, NEWER)
DOMAIN = "ai.onnx.ml"

_MEMBER = 6
"""Number of the comparison with a set, which is not read."""
_AVERAGE, _SUM = 0, 1
_NEWER_SUMS = (_AVERAGE, _SUM)
_REWRITTEN = ("nodes_values", "class_weights", "target_weights", "nodes_missing_value_tracks_true")
"""Attributes of which nothing stays when an ensemble is written."""
_SUFFIX = "_as_tensor"
"""Ending of attributes that are tensors of doubles in the place of lists of float32."""


def ensembles(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    """Return the nodes of the graph whose trees can be read: those that add trees up."""
    return [node for node in graph.graph.node if _readable(node)]


def _readable(node: onnx.NodeProto) -> bool:
    if node.op_type not in OPERATORS or node.domain != DOMAIN:
        return False
    values = _attributes(node)
    if node.op_type == NEWER:
        modes = numpy_helper.to_array(values["nodes_modes"])
        return values.get("aggregate_function", _SUM) in _NEWER_SUMS and not (modes >= _MEMBER).any()
    return values.get("aggregate_function", b"SUM") in {b"SUM", b"AVERAGE", b""}


def count(node: onnx.NodeProto) -> int:
    """Return the number of trees of a node."""
    values = _attributes(node)
    return len(values["tree_roots"] if node.op_type == NEWER else set(values["nodes_treeids"]))


def read(node: onnx.NodeProto) -> Ensemble:
    """Return the ensemble of a node; an average is read as a sum of smaller leaves."""
    return _read_newer(_attributes(node)) if node.op_type == NEWER else _read(_attributes(node), _kind(node))


def write(ensemble: Ensemble, node: onnx.NodeProto) -> None:
    """Put the ensemble into the node, in place of the one that it had, in the precision of the node.

    Where an ensemble starts from, it does not change.
    """
    values = _attributes(node)
    changed = newer(ensemble) if node.op_type == NEWER else _older(ensemble, _kind(node), _is_double(values))
    left_out = {"aggregate_function", "nodes_hitrates", *(f"{name}{_SUFFIX}" for name in _REWRITTEN), *_REWRITTEN}
    kept = {name: value for name, value in values.items() if name.removesuffix(_SUFFIX) not in left_out}
    set_attributes(node, kept | changed)


def _is_double(values: Mapping[str, Any]) -> bool:
    return any(name.endswith(_SUFFIX) for name in values)


def set_attributes(node: onnx.NodeProto, values: Mapping[str, Any]) -> None:
    """Replace the attributes of a node; an empty list has no type, so it is left out."""
    del node.attribute[:]
    filled = {name: value for name, value in values.items() if not isinstance(value, list) or value}
    node.attribute.extend(helper.make_attribute(name, value) for name, value in filled.items())


def _attributes(node: onnx.NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _kind(node: onnx.NodeProto) -> str:
    return "class" if node.op_type == CLASSIFIER else "target"


def _read(values: Mapping[str, Any], kind: str) -> Ensemble:
    """Return the ensemble of a node of version 1 or 3; answers are those of its `kind`, class or target."""
    owners, names = np.asarray(values["nodes_treeids"]), np.asarray(values["nodes_nodeids"])
    places = {key: place for place, key in enumerate(zip(owners.tolist(), names.tolist(), strict=True))}
    mode = np.asarray([word.decode() for word in values["nodes_modes"]])
    yes, no = (_children(values[f"nodes_{name}nodeids"], owners, places) for name in ("true", "false"))
    entering = np.bincount(np.concatenate([side[mode != LEAF] for side in (yes, no)]), minlength=len(mode))
    roots = _roots(owners, entering)
    width = _width(values, kind)
    table, used = np.zeros((len(mode), width)), np.zeros((len(mode), width), dtype=bool)
    at = np.asarray([places[key] for key in zip(values[f"{kind}_treeids"], values[f"{kind}_nodeids"], strict=True)])
    targets = np.asarray(values[f"{kind}_ids"])
    np.add.at(table, (at, targets), _numbers(values, f"{kind}_weights"))
    used[at, targets] = True
    if values.get("aggregate_function") == b"AVERAGE":
        table /= len(roots)
    return Ensemble(
        roots=roots,
        mode=mode,
        feature=np.asarray(values["nodes_featureids"]),
        threshold=_numbers(values, "nodes_values"),
        yes=yes,
        no=no,
        missing_yes=np.asarray(values.get("nodes_missing_value_tracks_true") or [0] * len(mode), dtype=bool),
        values=table,
        used=used,
        base=_base(_numbers(values, "base_values"), width),
    )


def _roots(owners: Array, entering: Array) -> Array:
    """Return the root of each tree, in the order of the file: the first of its nodes that no other leads to."""
    free = np.flatnonzero(entering == 0)
    return free[np.sort(np.unique(owners[free], return_index=True)[1])]


def _children(names: Sequence[int], owners: Array, places: Mapping[tuple[int, int], int]) -> Array:
    """Return the place of each child (M,); of a leaf, which has none, any."""
    keys = zip(owners.tolist(), names, strict=True)
    return np.asarray([places.get(key, 0) for key in keys], dtype=np.int64)


def _width(values: Mapping[str, Any], kind: str) -> int:
    largest = int(max(values[f"{kind}_ids"])) + 1
    return max(largest, int(values.get("n_targets", 0))) if kind == "target" else largest


def _base(base: Array, width: int) -> Array:
    """Return what each sum starts from (K,). A classifier of two classes may have one number more than sums."""
    return np.resize(base, width).astype(np.float64) if len(base) else np.zeros(width)


def _numbers(values: Mapping[str, Any], name: str) -> Array:
    """Return an attribute as float32, or as float64 where it is a tensor of doubles."""
    if f"{name}{_SUFFIX}" in values:
        return np.asarray(numpy_helper.to_array(values[f"{name}{_SUFFIX}"]))
    return np.asarray(values.get(name, []), dtype=np.float32)


def _read_newer(values: Mapping[str, Any]) -> Ensemble:
    """Return the ensemble of a node of version 5, which keeps leaves apart from other nodes; here they come after.

    A tree of one leaf has a node there whose sides both lead to it; here it starts at the leaf.
    """
    splits = np.asarray(numpy_helper.to_array(values["nodes_splits"]))
    weights = np.asarray(numpy_helper.to_array(values["leaf_weights"]), dtype=np.float64)
    inner, total = len(splits), len(splits) + len(weights)
    targets, width = np.asarray(values["leaf_targetids"]), int(values["n_targets"])
    table, used = np.zeros((total, width)), np.zeros((total, width), dtype=bool)
    places = np.arange(inner, total)
    table[places, targets], used[places, targets] = weights, True
    roots = np.asarray(values["tree_roots"])
    if values.get("aggregate_function", _SUM) == _AVERAGE:
        table /= len(roots)
    filling = np.zeros(len(weights), dtype=np.int64)
    modes = np.asarray(MODES)[numpy_helper.to_array(values["nodes_modes"])]
    missing = np.asarray(values.get("nodes_missing_value_tracks_true") or [0] * inner)
    yes, no = (
        np.asarray(values[f"nodes_{side}nodeids"]) + inner * np.asarray(values[f"nodes_{side}leafs"])
        for side in ("true", "false")
    )
    return Ensemble(
        roots=np.where(yes[roots] == no[roots], yes[roots], roots),
        mode=np.concatenate([modes, np.full(len(weights), LEAF)]),
        feature=np.concatenate([values["nodes_featureids"], filling]),
        threshold=np.concatenate([splits, filling.astype(splits.dtype)]),
        yes=np.concatenate([yes, filling]),
        no=np.concatenate([no, filling]),
        missing_yes=np.concatenate([missing, filling]).astype(bool),
        values=table,
        used=used,
        base=np.zeros(width),
    )


def _older(ensemble: Ensemble, kind: str, double: bool) -> dict[str, Any]:  # noqa: FBT001 - as the file has it
    """Return the attributes of version 1 and 3 that hold the trees."""
    trees = [_numbered(ensemble, int(root), shared=True) for root in ensemble.roots]
    places = np.concatenate([tree.nodes for tree in trees])
    leaf = ensemble.is_leaf[places]
    owners = np.repeat(np.arange(len(trees)), [len(tree.nodes) for tree in trees])
    names = np.concatenate([np.arange(len(tree.nodes)) for tree in trees])
    entry, target = np.nonzero(ensemble.used[places] & leaf[:, np.newaxis])
    missing = ensemble.missing_yes[places] & ~leaf
    return {
        "nodes_treeids": owners.tolist(),
        "nodes_nodeids": names.tolist(),
        "nodes_featureids": np.where(leaf, 0, ensemble.feature[places]).tolist(),
        "nodes_modes": ensemble.mode[places].tolist(),
        "nodes_truenodeids": np.concatenate([tree.yes for tree in trees]).tolist(),
        "nodes_falsenodeids": np.concatenate([tree.no for tree in trees]).tolist(),
        **({"nodes_missing_value_tracks_true": missing.astype(int).tolist()} if missing.any() else {}),
        **_floats("nodes_values", np.where(leaf, 0, ensemble.threshold[places]), double=double),
        f"{kind}_treeids": owners[entry].tolist(),
        f"{kind}_nodeids": names[entry].tolist(),
        f"{kind}_ids": target.tolist(),
        **_floats(f"{kind}_weights", ensemble.values[places[entry], target], double=double),
    }


def _floats(name: str, values: Array, *, double: bool) -> dict[str, Any]:
    """Return an attribute of numbers as a list of float32, or as a tensor of doubles under the name of that."""
    if double:
        return {f"{name}{_SUFFIX}": numpy_helper.from_array(values.astype(np.float64), name)}
    return {name: values.astype(np.float32).tolist()}


def newer(ensemble: Ensemble) -> dict[str, Any]:
    """Return the attributes of version 5 that hold the trees; each leaf must add to one sum.

    Leaves are no nodes there, so a tree of one leaf gets a node whose sides both lead to it.
    """
    trees = [_numbered(ensemble, int(root), shared=False) for root in ensemble.roots]
    trees = [tree if len(tree.nodes) > 1 else _Numbered(tree.nodes * 2, [1, 0], [1, 0]) for tree in trees]
    places = np.concatenate([tree.nodes for tree in trees])
    starts = np.cumsum([0, *(len(tree.nodes) for tree in trees)])[:-1]
    leaf = ensemble.is_leaf[places]
    leaf[starts] = False
    number = np.where(leaf, np.cumsum(leaf), np.cumsum(~leaf)) - 1
    sides = {
        name: np.concatenate(
            [start + np.asarray(getattr(tree, side)) for start, tree in zip(starts, trees, strict=True)]
        )
        for name, side in (("true", "yes"), ("false", "no"))
    }
    inner, ends, precision = places[~leaf], places[leaf], ensemble.threshold.dtype
    modes = np.where(ensemble.is_leaf[inner], MODES[0], ensemble.mode[inner])
    missing = ensemble.missing_yes[inner].astype(int)
    targets = ensemble.used[ends].argmax(axis=1)
    attributes: dict[str, Any] = {
        "tree_roots": number[starts].tolist(),
        "nodes_featureids": ensemble.feature[inner].tolist(),
        "nodes_splits": numpy_helper.from_array(ensemble.threshold[inner], "splits"),
        "nodes_modes": numpy_helper.from_array(_numbers_of(modes), "modes"),
        "leaf_targetids": targets.tolist(),
        "leaf_weights": numpy_helper.from_array(ensemble.values[ends, targets].astype(precision), "weights"),
        "n_targets": ensemble.values.shape[1],
        "aggregate_function": _SUM,
    }
    for name, children in sides.items():
        attributes[f"nodes_{name}nodeids"] = number[children[~leaf]].tolist()
        attributes[f"nodes_{name}leafs"] = leaf[children[~leaf]].astype(int).tolist()
    return attributes | ({"nodes_missing_value_tracks_true": missing.tolist()} if missing.any() else {})


def _numbers_of(modes: Array) -> Array:
    """Return the number of each comparison in version 5 (M,), given as words."""
    return np.asarray([MODES.index(mode) for mode in modes.tolist()], dtype=np.uint8)


@dataclass(frozen=True)
class _Numbered:
    """The nodes of a tree, and for each the numbers of its children in the tree; a leaf has child 0."""

    nodes: list[int]
    yes: list[int]
    no: list[int]


def _numbered(ensemble: Ensemble, root: int, *, shared: bool) -> _Numbered:
    """Return the nodes of a tree in the order in which ONNX Runtime visits them.

    It visits the side "false" of a node first, and takes a node that it has seen on the side "true" alone. So a node is
    written again where it is seen again on the other side, or, if it may not be `shared`, on any.
    """
    tree = _Numbered([], [], [])
    leaf = ensemble.is_leaf
    numbers: dict[int, int] = {}
    stack = [(root, -1, False)]
    while stack:
        node, parent, true = stack.pop()
        number = numbers.get(node) if true and shared else None
        if number is None:
            number = numbers[node] = len(tree.nodes)
            for values, value in ((tree.nodes, node), (tree.yes, 0), (tree.no, 0)):
                values.append(value)
            if not leaf[node]:
                stack += [(int(ensemble.yes[node]), number, True), (int(ensemble.no[node]), number, False)]
        if parent >= 0:
            (tree.yes if true else tree.no)[parent] = number
    return tree
