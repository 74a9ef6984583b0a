"""Send missing values in the trees of an ONNX file the way that scikit-learn's trees send them.

skl2onnx writes the trees of forests without it, so that NaN would always take the branch for large numbers. Each tree
of the file is recognized by its content, because neither file nor library says which tree became which.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optimizer_jobs.machinery.estimators.soundness import parts

_ENSEMBLES = ("TreeEnsembleClassifier", "TreeEnsembleRegressor")
_TRACKS = "nodes_missing_value_tracks_true"

_Key = tuple[bytes, bytes, bytes]


def route_missing(model: onnx.ModelProto, estimator: Any) -> None:
    """Set, in place, for each branch of the file whether a missing value takes it.

    Args:
        model: The converted file.
        estimator: The estimator with the very thresholds that were converted.
    """
    routes = dict(_routes(estimator))
    if not any(route.any() for route in routes.values()):
        return
    for node in model.graph.node:
        if node.op_type in _ENSEMBLES:
            _route(node, routes)


def _routes(estimator: Any) -> Iterator[tuple[_Key, NDArray[np.uint8]]]:
    """Yield for each tree of the estimator its content, and for each node whether missing values go left."""
    from sklearn.tree import BaseDecisionTree

    for part in parts(estimator):
        if isinstance(part, BaseDecisionTree) and hasattr(part, "tree_"):
            tree = part.tree_
            inner = tree.children_left != -1
            branches = (tree.feature, tree.threshold, tree.children_left)
            key = _key(*(np.where(inner, values, 0) for values in branches))
            yield key, np.asarray(inner & tree.missing_go_to_left.astype(bool), dtype=np.uint8)


def _key(features: Any, thresholds: Any, left: Any) -> _Key:
    return (
        np.asarray(features, dtype=np.int64).tobytes(),
        np.asarray(thresholds, dtype=np.float32).tobytes(),
        np.asarray(left, dtype=np.int64).tobytes(),
    )


def _route(node: onnx.NodeProto, routes: dict[_Key, NDArray[np.uint8]]) -> None:
    values = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
    owners = np.asarray(values["nodes_treeids"])
    features, left = np.asarray(values["nodes_featureids"]), np.asarray(values["nodes_truenodeids"])
    thresholds = _thresholds(values)
    tracks = np.asarray(values.get(_TRACKS) or np.zeros(len(owners)), dtype=np.int64)
    for number in np.unique(owners):
        nodes = np.flatnonzero(owners == number)
        route = routes.get(_key(features[nodes], thresholds[nodes], left[nodes]))
        if route is not None:
            tracks[nodes] = route
    kept = [attribute for attribute in node.attribute if attribute.name != _TRACKS]
    del node.attribute[:]
    node.attribute.extend([*kept, onnx.helper.make_attribute(_TRACKS, tracks.tolist())])


def _thresholds(values: dict[str, Any]) -> NDArray[Any]:
    if "nodes_values_as_tensor" in values:
        return onnx.numpy_helper.to_array(values["nodes_values_as_tensor"])
    return np.asarray(values["nodes_values"], dtype=np.float32)
