"""Gradient boosting on histograms where skl2onnx cannot write it: with categories, and in double precision.

A branch on a set of categories becomes a chain of comparisons with one category each, which engines join again.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optimizer_jobs.machinery.estimators.converters import categories
from optimizer_jobs.machinery.estimators.converters.calibrated import labels_of
from optimizer_jobs.machinery.estimators.converters.kinds import DOUBLE, FLOAT, precision_of

_WORD = 32
"""Bits of one word of a set of categories."""
_NO_CATEGORY = -1
"""Stands in an empty set, which only missing values may belong to."""


def is_needed(part: Any, *, doubles: bool) -> bool:
    """Return whether this part is such an ensemble, with categories or in double precision."""
    from sklearn.ensemble._hist_gradient_boosting.gradient_boosting import BaseHistGradientBoosting

    if not isinstance(part, BaseHistGradientBoosting):
        return False
    return doubles or getattr(part, "is_categorical_", None) is not None


def grow(scope: Any, operator: Any, container: Any) -> None:
    """Write the ensemble: its raw sum, and what its loss makes of it."""
    from skl2onnx.algebra.onnx_ops import OnnxArgMax, OnnxGather, OnnxIdentity

    ensemble, opset = operator.raw_operator, container.target_opset
    raw = _raw(operator, opset)
    if not hasattr(ensemble, "classes_"):
        value = _LINKS[type(ensemble._loss.link).__name__](raw, opset)  # noqa: SLF001 - what predict uses
        OnnxIdentity(value, op_version=opset, output_names=operator.outputs[:1]).add_to(scope, container)
        return
    scores = _scores(
        raw, ensemble, opset, raw_scores=container.get_options(ensemble, {"raw_scores": False})["raw_scores"]
    )
    best = OnnxArgMax(scores, axis=1, keepdims=0, op_version=opset)
    label = OnnxGather(labels_of(ensemble), best, axis=0, op_version=opset, output_names=operator.outputs[:1])
    label.add_to(scope, container)
    OnnxIdentity(scores, op_version=opset, output_names=operator.outputs[1:]).add_to(scope, container)


def shape(operator: Any) -> None:
    """Say that the outputs are a value, or a label and a score for each class, in single precision."""
    from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType

    ensemble = operator.raw_operator
    if not hasattr(ensemble, "classes_"):
        operator.outputs[0].type = FloatTensorType([None, 1])
        return
    labels = labels_of(ensemble)
    operator.outputs[0].type = (Int64TensorType if labels.dtype == np.int64 else StringTensorType)([None])
    operator.outputs[1].type = FloatTensorType([None, len(labels)])


def _identity(raw: Any, opset: int) -> Any:  # noqa: ARG001 - as the others
    return raw


def _exponential(raw: Any, opset: int) -> Any:
    from skl2onnx.algebra.onnx_ops import OnnxExp

    return OnnxExp(raw, op_version=opset)


_LINKS = {"IdentityLink": _identity, "LogLink": _exponential}


def _scores(raw: Any, ensemble: Any, opset: int, *, raw_scores: bool) -> Any:
    """Return the scores (N, classes): probabilities, or raw sums, of which two classes have one with two signs."""
    from skl2onnx.algebra.onnx_ops import OnnxConcat, OnnxNeg, OnnxSigmoid, OnnxSoftmax

    if len(ensemble.classes_) > 2:
        return raw if raw_scores else OnnxSoftmax(raw, axis=1, op_version=opset)
    both = OnnxConcat(OnnxNeg(raw, op_version=opset), raw, axis=1, op_version=opset)
    return both if raw_scores else OnnxSigmoid(both, op_version=opset)


def _raw(operator: Any, opset: int) -> Any:
    """Return the raw sums (N, sums): one for two classes and regressions, else one a class."""
    from skl2onnx.algebra.onnx_ops import OnnxTreeEnsembleRegressor_3

    ensemble, precision = operator.raw_operator, precision_of(operator)
    trees = _Trees()
    for tree in ensemble._predictors:  # noqa: SLF001 - its trees are nowhere else
        for place, predictor in enumerate(tree):
            trees.add(predictor, place)
    sums = int(ensemble.n_trees_per_iteration_)
    base = np.ravel(ensemble._baseline_prediction)  # noqa: SLF001
    return OnnxTreeEnsembleRegressor_3(
        _features(operator, opset),
        n_targets=sums,
        op_version=3,
        **trees.attributes(np.broadcast_to(base, sums), precision),
    )


def _features(operator: Any, opset: int) -> Any:
    """Return the features (N, F) as trees see them: encoded categories first, then the numbers."""
    from skl2onnx.algebra.onnx_ops import OnnxCast, OnnxConcat

    ensemble = operator.raw_operator
    kind = DOUBLE if precision_of(operator) is np.float64 else FLOAT
    columns = categories.columns_of(operator, opset)
    prepared = getattr(ensemble, "_preprocessor", None)
    ordered: list[Any] = []
    if prepared is not None:
        encoder, coded = prepared.named_transformers_["encoder"], np.flatnonzero(ensemble.is_categorical_)
        chosen = [columns[place] for place in coded]
        ordered = categories.encoded(chosen, encoder, precision=precision_of(operator), opset=opset)
        columns = [column for place, column in enumerate(columns) if place not in set(coded.tolist())]
    ordered += [OnnxCast(value, to=kind, op_version=opset) for value, _ in columns]
    return OnnxConcat(*ordered, axis=1, op_version=opset)


@dataclass
class _Trees:
    """Attributes of the operator, tree by tree."""

    nodes: list[dict[str, Any]] = field(default_factory=list)
    leaves: list[tuple[int, int, int, float]] = field(default_factory=list)
    count: int = 0

    def add(self, predictor: Any, place: int) -> None:
        """Add a tree whose leaves add to the sum at `place`."""
        following = len(predictor.nodes)
        for number, node in enumerate(predictor.nodes):
            if node["is_leaf"]:
                self._node(number, mode="LEAF")
                self.leaves.append((self.count, number, place, float(node["value"])))
            elif node["is_categorical"]:
                following = self._chain(number, node, predictor, following)
            else:
                self._node(number, node=node, value=float(node["num_threshold"]), yes=node["left"], no=node["right"])
        self.count += 1

    def _chain(self, number: int, node: Any, predictor: Any, following: int) -> int:
        """Add one comparison for each category that goes left; return the next free number."""
        left = list(_members(predictor.raw_left_cat_bitsets[node["bitset_idx"]])) or [_NO_CATEGORY]
        for category in left[:-1]:
            self._node(number, node=node, mode="BRANCH_EQ", value=category, yes=node["left"], no=following)
            number, following = following, following + 1
        self._node(number, node=node, mode="BRANCH_EQ", value=left[-1], yes=node["left"], no=node["right"])
        return following

    def _node(
        self, number: int, *, node: Any = None, mode: str = "BRANCH_LEQ", value: float = 0.0, yes: int = 0, no: int = 0
    ) -> None:
        self.nodes.append(
            {
                "treeids": self.count,
                "nodeids": number,
                "modes": mode,
                "featureids": 0 if node is None else int(node["feature_idx"]),
                "missing_value_tracks_true": 0 if node is None else int(node["missing_go_to_left"]),
                "truenodeids": int(yes),
                "falsenodeids": int(no),
                "values": float(value),
            }
        )

    def attributes(self, base: Any, precision: type) -> dict[str, Any]:
        """Return the operator's attributes; numbers are tensors where they need double precision."""
        from onnx import numpy_helper

        made: dict[str, Any] = {f"nodes_{name}": [node[name] for node in self.nodes] for name in self.nodes[0]}
        leaves = [list(column) for column in zip(*self.leaves, strict=True)]
        made |= dict(zip(("target_treeids", "target_nodeids", "target_ids", "target_weights"), leaves, strict=True))
        made["base_values"] = base.tolist()
        for name in ("nodes_values", "target_weights", "base_values") if precision is np.float64 else ():
            made[f"{name}_as_tensor"] = numpy_helper.from_array(np.asarray(made.pop(name), dtype=np.float64), name)
        return made


def _members(words: Any) -> Iterator[int]:
    """Yield the categories in a set, which has a bit for each."""
    for place, word in enumerate(words.tolist()):
        yield from (place * _WORD + bit for bit in range(_WORD) if word >> bit & 1)
