"""Ensembles of trees for tests: random ones, trained ones, and an evaluation of nodes that shares no code with ours."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper

from optimizer_jobs.machinery.trees import nodes
from optimizer_jobs.machinery.trees.ensemble import LEAF, MODES, Ensemble

Array = NDArray[Any]

FEATURES = 4


def random_ensemble(seed: int, *, trees: int = 4, sums: int = 2, vectors: bool = False) -> Ensemble:
    """Return random trees with whole thresholds; leaves add to one sum, or with `vectors` to all."""
    random = np.random.default_rng(seed)
    table: list[tuple[str, int, float, int, int, bool]] = []
    roots = [_grow(table, random, depth=int(random.integers(0, 4))) for _ in range(trees)]
    mode, feature, threshold, yes, no, missing = (np.asarray(column) for column in zip(*table, strict=True))
    leaf = mode == LEAF
    used = np.zeros((len(mode), sums), dtype=bool)
    owner = np.searchsorted(roots, np.arange(len(mode)), side="right") - 1
    used[np.arange(len(mode)), owner % sums] = True
    used = (used | vectors) & leaf[:, np.newaxis]
    values = np.where(used, random.integers(-8, 8, used.shape), 0) / 8.0
    return Ensemble(
        roots=np.asarray(roots),
        mode=mode,
        feature=feature.astype(np.int64),
        threshold=threshold.astype(np.float32),
        yes=yes.astype(np.int64),
        no=no.astype(np.int64),
        missing_yes=missing.astype(bool),
        values=values,
        used=used,
        base=np.zeros(sums),
    )


def _grow(table: list[tuple[str, int, float, int, int, bool]], random: np.random.Generator, *, depth: int) -> int:
    """Add a tree to the table of nodes, and return its root."""
    place = len(table)
    if depth == 0 or random.random() < 0.1:
        table.append((LEAF, 0, 0.0, 0, 0, False))
        return place
    mode = MODES[int(random.integers(0, 4))]
    split = (int(random.integers(FEATURES)), float(random.integers(-3, 4)), bool(random.random() < 0.5))
    table.append((mode, 0, 0.0, 0, 0, False))
    sides = [_grow(table, random, depth=depth - 1) for _ in range(2)]
    table[place] = (mode, split[0], split[1], sides[0], sides[1], split[2])
    return place


def rows(seed: int, count: int = 60) -> Array:
    """Return rows (N, F) that lie on thresholds, beside them, and miss numbers."""
    random = np.random.default_rng(seed)
    X = random.integers(-4, 5, (count, FEATURES)).astype(np.float32)
    X[random.random(X.shape) < 0.1] = np.nan
    return X


def by_hand(ensemble: Ensemble, X: Array) -> Array:
    """Return the sums (N, K) by following every row through every tree, one comparison after the other."""
    compare = {
        "BRANCH_LEQ": lambda a, b: a <= b,
        "BRANCH_LT": lambda a, b: a < b,
        "BRANCH_GTE": lambda a, b: a >= b,
        "BRANCH_GT": lambda a, b: a > b,
        "BRANCH_EQ": lambda a, b: a == b,
        "BRANCH_NEQ": lambda a, b: a != b,
    }
    sums = np.tile(ensemble.base, (len(X), 1))
    for row in range(len(X)):
        for root in ensemble.roots:
            node = root
            while ensemble.mode[node] != LEAF:
                value = X[row, ensemble.feature[node]]
                true = compare[ensemble.mode[node]](value, ensemble.threshold[node])
                missing = np.isnan(value) and ensemble.missing_yes[node]
                node = ensemble.yes[node] if true or missing else ensemble.no[node]
            sums[row] += ensemble.values[node]
    return sums


def graph_of(ensemble: Ensemble, *, version: int) -> onnx.ModelProto:
    """Return a model of one node, in version 3 or 5 of its operator."""
    older = version < 5
    more: dict[str, Any] = {} if older else {"post_transform": 0}
    node = helper.make_node(
        nodes.REGRESSOR if older else nodes.NEWER,
        ["x"],
        ["value"],
        domain=nodes.DOMAIN,
        n_targets=len(ensemble.base),
        **more,
    )
    if older and ensemble.base.any():
        node.attribute.append(helper.make_attribute("base_values", ensemble.base.astype(np.float32).tolist()))
    nodes.write(ensemble, node)
    graph = helper.make_graph(
        [node],
        "trees",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, FEATURES])],
        [helper.make_tensor_value_info("value", TensorProto.FLOAT, [None, len(ensemble.base)])],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid(nodes.DOMAIN, version)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def answered(model: onnx.ModelProto, inputs: Mapping[str, Array]) -> Array:
    """Return what ONNX Runtime answers with the first output."""
    import onnxruntime

    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, dict(inputs))[0])
