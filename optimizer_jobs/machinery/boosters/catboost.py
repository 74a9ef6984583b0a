"""Read a model that CatBoost saved (.cbm), through CatBoost's own export to ONNX.

Only CatBoost reads such files. Its export is taken for the trees alone: what it makes of their sums is wrong for some
objectives (one against all classes, counts), and its classifiers for two classes depend on the sign of all leaves.
"""

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper

from optimizer_jobs.errors import printable
from optimizer_jobs.machinery.boosters.forest import Answer, Array, Booster, BoosterError, Forest, Tree, labels_of

_ANSWERS: Mapping[str, Answer] = {
    "Logloss": Answer.BINARY,
    "CrossEntropy": Answer.BINARY,
    "MultiClass": Answer.SOFTMAX,
    "MultiClassOneVsAll": Answer.ONE_AGAINST_ALL,
    "Poisson": Answer.EXP,
    "Tweedie": Answer.EXP,
}
"""What becomes of the sums, where it is not the sums themselves."""
_SEVERAL = frozenset(
    {"MultiRMSE", "MultiRMSEWithMissingValues", "RMSEWithUncertainty", "MultiLogloss", "MultiCrossEntropy"}
)
_MAGIC = b"CBM1"


def read(path: Path) -> Booster:
    """Return the trees in the file; raises BoosterError with what is wrong or CatBoost does not export."""
    import catboost

    if not path.read_bytes().startswith(_MAGIC):
        raise BoosterError("this is no model that CatBoost saved", "Save it with model.save_model('model.cbm').")
    model = catboost.CatBoost()
    try:
        model.load_model(str(path))
        objective = str(model.get_all_params().get("loss_function", "RMSE")).split(":")[0]
        _check(model, objective)
        ensemble = _exported(model)
    except catboost.CatBoostError as error:
        raise BoosterError(f"CatBoost does not export it ({printable(str(error), limit=200).rstrip('.')})") from error
    answer = _ANSWERS.get(objective, Answer.VALUE)
    return Booster(
        forest=_forest(ensemble, answer, features=len(model.feature_names_)),
        parsed=None,
        library="CatBoost",
        objective=objective,
        names=_names(model),
        labels=labels_of(model) if answer.classifies else (),
    )


def _check(model: Any, objective: str) -> None:
    """Refuse what the export leaves out or writes wrongly."""
    kinds = {
        "categorical": model._get_cat_feature_indices(),  # noqa: SLF001 - they are nowhere else
        "text": model._get_text_feature_indices(),  # noqa: SLF001
        "embedding": model._get_embedding_feature_indices(),  # noqa: SLF001
    }
    for kind, columns in kinds.items():
        if columns:
            names = ", ".join(str(model.feature_names_[column]) for column in columns[:10])
            raise BoosterError(
                f"CatBoost does not export {kind} features, here {names}", "Encode them as numbers before."
            )
    if objective in _SEVERAL:
        raise BoosterError(f"CatBoost does not export several outputs, as objective {objective} has")


def _exported(model: Any) -> Mapping[str, Any]:
    """Return the attributes of the TreeEnsemble node that CatBoost writes."""
    with tempfile.TemporaryDirectory(prefix="catboost-") as folder:
        path = Path(folder) / "model.onnx"
        model.save_model(str(path), format="onnx")
        (node,) = [node for node in onnx.load(path).graph.node if node.op_type.startswith("TreeEnsemble")]
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}


def _forest(ensemble: Mapping[str, Any], answer: Answer, *, features: int) -> Forest:
    kind = "class" if "class_ids" in ensemble else "target"
    width = len(set(ensemble[f"{kind}_ids"])) if answer.classifies and answer is not Answer.BINARY else 1
    base = [float(value) for value in ensemble.get("base_values", ())]
    return Forest(
        trees=list(_trees(ensemble, kind, width=width)),
        strict=False,
        features=features,
        base=tuple(base[:width] if base else [0.0] * width),
        answer=answer,
    )


def _trees(ensemble: Mapping[str, Any], kind: str, *, width: int) -> Iterator[Tree]:
    """Yield the trees. A node that asks for `x > t` becomes one for `x <= t` with its children exchanged."""
    owners, leaf_owners = np.asarray(ensemble["nodes_treeids"]), np.asarray(ensemble[f"{kind}_treeids"])
    if set(ensemble["nodes_modes"]) - {b"LEAF", b"BRANCH_GT"}:
        raise BoosterError("its export compares numbers in an unknown way")
    leaf = np.asarray(ensemble["nodes_modes"]) == b"LEAF"
    missing = np.asarray(ensemble.get("nodes_missing_value_tracks_true") or np.zeros(len(owners)), dtype=bool)
    columns = {name: np.asarray(ensemble[f"nodes_{name}"]) for name in _COLUMNS}
    leaves = {name: np.asarray(ensemble[f"{kind}_{name}"]) for name in ("nodeids", "ids", "weights")}
    for owner in dict.fromkeys(owners.tolist()):
        mine = owners == owner
        part = {name: values[mine] for name, values in columns.items()}
        places = np.zeros(int(part["nodeids"].max()) + 1, dtype=np.int64)
        places[part["nodeids"]] = np.arange(len(part["nodeids"]))
        yield Tree(
            leaf=leaf[mine],
            feature=part["featureids"],
            threshold=part["values"].astype(np.float32),
            left=places[part["falsenodeids"]],
            right=places[part["truenodeids"]],
            missing_left=~missing[mine] & ~leaf[mine],
            values=_values(leaves, leaf_owners == owner, places, shape=(int(mine.sum()), width)),
            outputs=tuple(range(width)),
        )


_COLUMNS = ("nodeids", "featureids", "values", "truenodeids", "falsenodeids")


def _values(leaves: Mapping[str, Array], mine: Array, places: Array, *, shape: tuple[int, int]) -> Array:
    values = np.zeros(shape)
    outputs = leaves["ids"][mine] if shape[1] > 1 else 0
    values[places[leaves["nodeids"][mine]], outputs] = leaves["weights"][mine]
    return values


def _names(model: Any) -> tuple[str, ...]:
    """Return the names of the columns; none where they are only numbered."""
    names = tuple(str(name) for name in model.feature_names_)
    return () if names == tuple(str(number) for number in range(len(names))) else names
