"""Read a model that XGBoost saved as UBJSON or JSON, without XGBoost.

The trees come from treelite; what it does not keep is read here: names and categories of columns, and where early
stopping found the best model. Nothing in the file is code.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from optimizer_jobs.machinery.boosters import ubjson
from optimizer_jobs.machinery.boosters.forest import Booster, BoosterError
from optimizer_jobs.machinery.boosters.from_treelite import forest_of, parsed
from optimizer_jobs.machinery.boosters.lightgbm import Categories, categories_of

_AGAIN = "Save it with XGBoost 1.7 or newer: model.save_model('model.ubj')."
_CLASSIFIERS = frozenset({"binary:logistic", "multi:softmax", "multi:softprob"})
_UNSCALED = frozenset({"binary:logitraw", "binary:hinge"})
_OLD_BOOSTERS = (b"gbtree", b"gblinear", b"dart")
"""Names that the old binary format has near its beginning."""
_BEGINNING = 1024

Json = Mapping[str, Any]


def read(path: Path) -> Booster:
    """Return the trees in the file; raises BoosterError with what is wrong or has no counterpart in ONNX."""
    import treelite

    content = path.read_bytes()
    saved, binary = _document(content)
    learner = saved["learner"]
    objective = str(learner["objective"]["name"])
    _check(learner, objective)
    model = learner["gradient_booster"]
    trees = model if "model" in model else model["gbtree"]
    categories = _categories(trees["model"].pop("cats", None))
    if categories:
        document = json.dumps(saved, default=np.ndarray.tolist)
        loaded = parsed(lambda: treelite.frontend.from_xgboost_json(document))
    else:
        form = "ubjson" if binary else "json"
        loaded = parsed(lambda: treelite.frontend.load_xgboost_model(path, format_choice=form))
    ends = _ends(learner, trees["model"])
    rounds = _rounds(learner.get("attributes", {}), ends)
    first = ends[rounds - 1] if rounds else None
    return Booster(
        forest=forest_of(loaded, classifies=objective in _CLASSIFIERS, first=first),
        parsed=loaded,
        library="XGBoost",
        objective=objective,
        names=tuple(str(name) for name in learner.get("feature_names", ())),
        categories=categories,
        rounds=rounds,
    )


def _document(content: bytes) -> tuple[Any, bool]:
    """Return what the file holds, and whether it is UBJSON."""
    start = content[:_BEGINNING]
    if not start.lstrip().startswith(b"{"):
        old = any(name in start for name in _OLD_BOOSTERS)
        raise BoosterError(f"this is {'the old binary format' if old else 'no model'} of XGBoost", _AGAIN)
    try:
        binary = start.lstrip()[1:].lstrip()[:1] != b'"'
        saved = ubjson.loads(content) if binary else json.loads(content)
    except ValueError as error:
        raise BoosterError(f"it cannot be parsed ({error})", _AGAIN) from error
    if not isinstance(saved, dict) or "gradient_booster" not in saved.get("learner", ()):
        raise BoosterError("this is no model that XGBoost saved", _AGAIN)
    return saved, binary


def _check(learner: Json, objective: str) -> None:
    """Refuse what has no trees, and classifiers without probabilities."""
    if learner["gradient_booster"].get("name") == "gblinear":
        raise BoosterError("its booster is gblinear, which has no trees")
    if objective in _UNSCALED:
        raise BoosterError(f"objective {objective} answers no probabilities", "Train with objective binary:logistic.")


def _categories(kept: Json | None) -> dict[int, Categories]:
    """Return the categories by column, where the codes in the trees are not the categories themselves."""
    columns: dict[int, Categories] = {}
    for place, encoded in enumerate((kept or {}).get("enc", [])):
        values = _texts(encoded) if "offsets" in encoded else [float(value) for value in encoded["values"]]
        if values and values != list(range(len(values))):
            columns[place] = categories_of(values)
    return columns


def _texts(encoded: Json) -> list[Any]:
    """Return categories that are kept as one array of bytes and the places where each begins."""
    content = np.asarray(encoded["values"], dtype=np.int8).tobytes()
    offsets = [int(offset) for offset in encoded["offsets"]]
    return [content[begin:end].decode() for begin, end in pairwise(offsets)]


def _ends(learner: Json, trees: Json) -> list[int]:
    """Return how many trees there are after each round of the training; XGBoost before 2.0 does not keep it."""
    if "iteration_indptr" in trees:
        return [int(end) for end in trees["iteration_indptr"][1:]]
    settings, kept = learner["learner_model_param"], trees["gbtree_model_param"]
    outputs = max(int(settings.get("num_class", 0)), int(settings.get("num_target", 1)), 1)
    a_round = outputs * int(kept.get("num_parallel_tree", 1))
    return list(range(a_round, int(kept["num_trees"]) + 1, a_round))


def _rounds(attributes: Json, ends: Sequence[int]) -> int | None:
    """Return the rounds up to the best one, where scikit-learn's interface has saved the file; None for all.

    Its `predict` uses no tree after that round, while a Booster by itself uses all of them.
    """
    best = attributes.get("best_iteration")
    if best is None or "scikit_learn" not in attributes or not 0 <= int(best) < len(ends) - 1:
        return None
    return int(best) + 1
