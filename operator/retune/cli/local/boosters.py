"""Tell which library saved a file of boosted trees, from its first bytes: their extensions have other files too.

Only the beginning of the file is looked at; whether the rest is sound is for a Job to find out.
"""

from pathlib import Path

from retune.api.model import ModelFormat
from retune.cli.access import AccessError

_BEGINNING = 4096
_OLD_XGBOOST = (b"gbtree", b"gblinear", b"dart")
_SAVE = "save with model.save_model('model.ubj') of XGBoost, booster.save_model('model.txt') of LightGBM, or as .cbm"


def boosted_trees(model: Path) -> ModelFormat:
    """Return the format of a file of boosted trees.

    Raises:
        AccessError: The file cannot be read, is none, or is one that its library cannot load again; with what to do.
    """
    try:
        with model.open("rb") as file:
            start = file.read(_BEGINNING)
    except OSError as error:
        raise AccessError(f"{model} cannot be read: {error.strerror}") from error
    if start.startswith((b"tree\n", b"tree\r\n")):
        return ModelFormat.LIGHTGBM
    if start.startswith(b"CBM1"):
        return ModelFormat.CATBOOST
    if start.lstrip().startswith(b"{") and b"learner" in start:
        return ModelFormat.XGBOOST
    raise AccessError(f"{model} {_reason(start)}: {_SAVE}")


def _reason(start: bytes) -> str:
    if b'"tree_info"' in start or b'"oblivious_trees"' in start or b'"feature_names"' in start:
        return "is a description of trees that its library cannot load again"
    if any(name in start for name in _OLD_XGBOOST):
        return "is in the old binary format of XGBoost, which XGBoost 3 does not read"
    return "shows no format: it is no model that XGBoost, LightGBM or CatBoost saved"
