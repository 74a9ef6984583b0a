"""Which file of a model in MLflow is the model: what `MLmodel` says of the flavour that `model.format` reads.

`MLmodel` is hostile input: it is bounded, read as YAML without tags, merges or numbers, and the paths in it are
followed only where they are plain.
"""

import re
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from optimizer_jobs.data.fetch import bring, is_there
from optimizer_jobs.data.mlflow.registry import Registered
from optimizer_jobs.data.uris import Location
from optimizer_jobs.errors import JobError, printable
from retune.api.model import ModelFormat
from retune.contract.results import Reason

MLMODEL = "MLmodel"
LIMIT_BYTES = 1 << 20
"""Bytes that an MLmodel may have; a signature with thousands of columns takes a tenth of it."""

_PATH = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9_.=+-]{0,127}){0,3}")
_READ: Sequence[tuple[ModelFormat, str, str, str]] = (
    (ModelFormat.ONNX, "onnx", "data", ""),
    (ModelFormat.SKOPS, "sklearn", "pickled_model", ""),
    (ModelFormat.PICKLE, "sklearn", "pickled_model", ""),
    (ModelFormat.XGBOOST, "xgboost", "data", ""),
    (ModelFormat.LIGHTGBM, "lightgbm", "data", ""),
    (ModelFormat.SKOPS, "lightgbm", "data", ""),
    (ModelFormat.PICKLE, "lightgbm", "data", ""),
    (ModelFormat.CATBOOST, "catboost", "data", ""),
    (ModelFormat.TORCHSCRIPT, "pytorch", "model_data", "/model.pth"),
    (ModelFormat.TORCH_EXPORT, "pytorch", "model_data", "/model.pt2"),
    (ModelFormat.HUGGING_FACE, "transformers", "model_binary", ""),
)
"""Formats, the flavour that has each, the field of it that names the file or folder, and what belongs behind that."""
_ESTIMATORS = ("sklearn", "lightgbm")
_ESTIMATOR_FORMS = {".pkl": ModelFormat.PICKLE, ".skops": ModelFormat.SKOPS}
"""What lightgbm keeps, by extension, where the model is of its interface for scikit-learn."""
_NETWORKS = (ModelFormat.TORCHSCRIPT, ModelFormat.TORCH_EXPORT)
"""Formats that a flavour does not tell from others: the files in its folder do."""
_LOG_ONNX = "write it as ONNX and log that with mlflow.onnx.log_model"
_REMEDIES = {
    "pytorch": f"Log it with serialization_format='pt2' and set model.format: TorchExport, or {_LOG_ONNX}.",
    "tensorflow": f"With tf2onnx, {_LOG_ONNX}.",
    "keras": f"With model.export(..., format='onnx') of Keras, {_LOG_ONNX}.",
    "spark": f"Spark is not run here: with onnxmltools, {_LOG_ONNX}.",
    "python_function": "It is code of its own, which is not run here: log the model that it calls, with the flavour of "
    "its library, or as ONNX with mlflow.onnx.log_model.",
}
"""What to do about flavours that no format reads; the first that a model has is told."""
_WRITTEN_BY_MLFLOW = f"Register a model that MLflow has written; its {MLMODEL} names the files beside it."


def file_of(model: Registered, format_: ModelFormat) -> str:
    """Return the path of the file, or of the folder, that a format reads, in the folder of the model.

    Raises:
        JobError: ModelInvalid where the format reads no flavour of the model, or MLmodel is not what MLflow writes;
            else as `fetch`.
    """
    flavours = _flavours(model)
    fitting = next((read for read in _READ if read[0] is format_ and _has(flavours, read)), None)
    if fitting is None:
        raise _other_format(model, format_, flavours)
    _, flavour, field, behind = fitting
    named = flavours[flavour].get(field)
    if not isinstance(named, str) or not _PATH.fullmatch(named + behind):
        shown = printable(str(named), limit=100)
        message = f"flavour {flavour} names {shown!r}, which is no file in the folder of the model."
        raise JobError(Reason.MODEL_INVALID, _uri(model), message, _WRITTEN_BY_MLFLOW)
    if not format_.is_folder:
        _check_there(model, named + behind, format_)
    return named + behind


def _check_there(model: Registered, path: str, format_: ModelFormat) -> None:
    if is_there(model.place(path), what="Model"):
        return
    if format_ in _NETWORKS:
        message, step = f"it has no {path}, which format {format_} reads.", _REMEDIES["pytorch"]
        raise JobError(Reason.MODEL_INVALID, _uri(model), message, step)
    message = f"it names {path}, and there is no such file in the folder of the model."
    raise JobError(Reason.MODEL_NOT_FOUND, _uri(model), message, "Restore the file, or register the model again.")


def _uri(model: Registered) -> str:
    return f"{model.own_uri}/{MLMODEL}"


def _flavours(model: Registered) -> dict[str, dict[str, Any]]:
    """Return the flavours that MLmodel describes, with their fields."""
    document = _parsed(_text(model), model)
    flavours = document.get("flavors") if isinstance(document, dict) else None
    if not isinstance(flavours, dict) or not all(isinstance(fields, dict) for fields in flavours.values()):
        raise JobError(Reason.MODEL_INVALID, _uri(model), "it describes no flavours.", _WRITTEN_BY_MLFLOW)
    return {str(name): fields for name, fields in flavours.items()}


def _text(model: Registered) -> bytes:
    location: Location = model.place(MLMODEL)
    if not is_there(location, what="Model"):
        message = f"the files of {model.own_uri} are gone: there is no {MLMODEL} in its folder."
        raise JobError(Reason.MODEL_NOT_FOUND, location.uri, message, "Restore them, or register the model again.")
    with tempfile.TemporaryDirectory(prefix="mlmodel-") as scratch:
        return bring(location, limit_bytes=LIMIT_BYTES, into=Path(scratch), what="Model").path.read_bytes()


def _parsed(text: bytes, model: Registered) -> Any:
    """Return the document with every scalar as text: no tag makes an object, and no merge copies a mapping."""
    from yaml import BaseLoader, YAMLError, load

    try:
        return load(text, Loader=BaseLoader)  # noqa: S506 - this loader makes texts, lists and mappings only
    except (YAMLError, ValueError, RecursionError) as error:
        message = f"it is no YAML ({printable(str(error), limit=100)})."
        raise JobError(Reason.MODEL_INVALID, _uri(model), message, _WRITTEN_BY_MLFLOW) from error


def _has(flavours: Mapping[str, dict[str, Any]], read: tuple[ModelFormat, str, str, str]) -> bool:
    """Return whether a model has a flavour, in the form that a format reads."""
    format_, flavour, field, _ = read
    fields = flavours.get(flavour)
    if fields is None or flavour not in _ESTIMATORS:
        return fields is not None
    if flavour == "sklearn":
        is_skops = fields.get("serialization_format") == "skops"
        return is_skops == (format_ is ModelFormat.SKOPS)
    form = PurePosixPath(str(fields.get(field))).suffix
    return _ESTIMATOR_FORMS.get(form, ModelFormat.LIGHTGBM) is format_


def _other_format(model: Registered, format_: ModelFormat, flavours: Mapping[str, dict[str, Any]]) -> JobError:
    """Return the refusal of a model without the format's flavour, with the format to set or what to log instead."""
    names = printable(", ".join(sorted(flavours)), limit=200) or "none"
    message = f"model.format is {format_}, and the flavours of the model are {names}."
    shown = next((read[0] for read in _READ if read[0] not in _NETWORKS and _has(flavours, read)), None)
    if shown is not None:
        trust = ", and model.trust: RunsCodeFromFile if you trust its author" if shown.runs_code else ""
        return JobError(Reason.MODEL_INVALID, _uri(model), message, f"Set model.format: {shown}{trust}.")
    known = next((remedy for name, remedy in _REMEDIES.items() if name in flavours), None)
    return JobError(Reason.MODEL_INVALID, _uri(model), message, known or f"{_LOG_ONNX[0].upper()}{_LOG_ONNX[1:]}.")
