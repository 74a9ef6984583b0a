"""Tell the format of a model's file from its name, or from its first bytes where other files have its extension too.

`retune init` and the Jobs ask here. Only the beginning of a file is looked at; whether the rest is sound is for a Job
to find out.
"""

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from retune.api.model import ModelFormat

_SCRIPTS = (ModelFormat.TORCHSCRIPT, ModelFormat.STATE_DICT, ModelFormat.TORCH_EXPORT)
_WEIGHTS = (ModelFormat.STATE_DICT, ModelFormat.TORCHSCRIPT, ModelFormat.TORCH_EXPORT)
EXTENSIONS: Mapping[str, tuple[ModelFormat, ...]] = {
    ".onnx": (ModelFormat.ONNX,),
    ".safetensors": (ModelFormat.SAFETENSORS,),
    ".skops": (ModelFormat.SKOPS,),
    ".joblib": (ModelFormat.JOBLIB, ModelFormat.PICKLE),
    ".pkl": (ModelFormat.PICKLE, ModelFormat.JOBLIB),
    ".pickle": (ModelFormat.PICKLE, ModelFormat.JOBLIB),
    ".pt": _SCRIPTS,
    ".pt2": (ModelFormat.TORCH_EXPORT, ModelFormat.TORCHSCRIPT),
    ".ubj": (ModelFormat.XGBOOST,),
    ".cbm": (ModelFormat.CATBOOST,),
    ".pth": _WEIGHTS,
    ".ckpt": _WEIGHTS,
}
"""Formats that a file of this extension may have, the likeliest first."""
UNCERTAIN = (".json", ".txt", ".model", ".bin")
"""Extensions of boosted trees that other files have too: the beginning of the file shows what it is."""

_BEGINNING = 4096
_OLD_XGBOOST = (b"gbtree", b"gblinear", b"dart")
_SAVE = "save with model.save_model('model.ubj') of XGBoost, booster.save_model('model.txt') of LightGBM, or as .cbm"


class UnknownFormatError(ValueError):
    """No format is shown; the message says why and what to do, as words without a full stop."""


def format_of(model: Path) -> ModelFormat:
    """Return the likeliest format of a file.

    Raises:
        UnknownFormatError: The extension shows none, the file cannot be read, or its library cannot load it again.
    """
    suffix = model.suffix.lower()
    if suffix in UNCERTAIN:
        return _boosted_trees(model)
    if suffix not in EXTENSIONS:
        known = ", ".join((*EXTENSIONS, *UNCERTAIN))
        raise UnknownFormatError(f"{model}: extension {model.suffix!r} shows no format; known are {known}")
    return EXTENSIONS[suffix][0]


def other_format(format_: ModelFormat, *, name: str, file: Path) -> ModelFormat | None:
    """Return the format that a file shows instead of one that it should have; None where it shows none or this one.

    Args:
        format_: The format that the file should have.
        name: Path or URI that people know the file by.
        file: A copy of the file.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if suffix in UNCERTAIN:
        try:
            shown: tuple[ModelFormat, ...] = (_boosted_trees(file),)
        except UnknownFormatError:
            return None
    else:
        shown = EXTENSIONS.get(suffix, (format_,))
    return None if format_ in shown else shown[0]


def _boosted_trees(model: Path) -> ModelFormat:
    """Return the format of a file of boosted trees."""
    try:
        with model.open("rb") as file:
            start = file.read(_BEGINNING)
    except OSError as error:
        raise UnknownFormatError(f"{model} cannot be read: {error.strerror}") from error
    if start.startswith((b"tree\n", b"tree\r\n")):
        return ModelFormat.LIGHTGBM
    if start.startswith(b"CBM1"):
        return ModelFormat.CATBOOST
    if start.lstrip().startswith(b"{") and b"learner" in start:
        return ModelFormat.XGBOOST
    raise UnknownFormatError(f"{model} {_reason(start)}: {_SAVE}")


def _reason(start: bytes) -> str:
    if b'"tree_info"' in start or b'"oblivious_trees"' in start or b'"feature_names"' in start:
        return "is a description of trees that its library cannot load again"
    if any(name in start for name in _OLD_XGBOOST):
        return "is in the old binary format of XGBoost, which XGBoost 3 does not read"
    return "shows no format: it is no model that XGBoost, LightGBM or CatBoost saved"
