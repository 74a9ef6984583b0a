"""The model as it was delivered: fetched with all that belongs to it, and opened as a checked ONNX file.

Nothing from the file runs in this process: other formats than ONNX are converted in a sandbox.
"""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, format_of
from optimizer_jobs.data.delivered import source_of
from optimizer_jobs.data.fetch import Fetched, bring, fetch
from optimizer_jobs.data.hugging_face import fetch_folder
from optimizer_jobs.data.readers import UnreadableDataError
from optimizer_jobs.data.uris import Location
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats import onnx_files
from optimizer_jobs.machinery.formats.base import Converted, task_named
from optimizer_jobs.machinery.formats.sandbox import Sample, convert_in_sandbox
from optimizer_jobs.models.external import external_files
from optimizer_jobs.models.missing import accepts_missing
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import MODEL_LIMIT_BYTES
from optimizer_jobs.models.sandbox import check_in_sandbox
from optimizer_jobs.signature import Signature
from retune.api.model import Dataset, Model, ModelFormat
from retune.contract.file_formats import other_format
from retune.contract.foreign import foreign, is_hugging_face
from retune.contract.results import Reason

EXTERNAL_LIMIT_BYTES = 8 << 30
"""Bytes that a file of external data may have."""

_MISSING_TRIED = frozenset(
    {
        ModelFormat.SKOPS,
        ModelFormat.JOBLIB,
        ModelFormat.PICKLE,
        ModelFormat.XGBOOST,
        ModelFormat.LIGHTGBM,
        ModelFormat.CATBOOST,
    }
)
"""Formats of scikit-learn, whose pipelines may fill missing values, and of boosted trees, which send them somewhere.
The conversion has compared such answers."""


@dataclass(frozen=True)
class Opened:
    """The delivered model as an ONNX file that has been checked."""

    model: Path
    signature: Signature
    classes: tuple[int | str, ...] = ()
    native: Native | None = None
    """The delivered file, when it is not ONNX, or the file that was made of it to train on. None for a folder, whose
    network is trained from its ONNX file."""

    @property
    def accepts_missing(self) -> bool:
        """Whether inputs may have missing values, because the model can deal with them."""
        return (self.native is not None and self.native.format in _MISSING_TRIED) or accepts_missing(self.model)


def open_delivered(delivered: Model, file: Fetched, rows: Dataset, *, scratch: Path) -> Opened:
    """Return the model as a checked ONNX file: as it is, or converted in a process of its own.

    Args:
        delivered: What the spec says about the model.
        file: The fetched file.
        rows: Data that shows which inputs the model has.
        scratch: Folder for the data and the ONNX file.

    Raises:
        JobError: ModelInvalid or DataInvalid, or the rows cannot be fetched.
    """
    try:
        return _opened(delivered, file, rows, scratch=scratch)
    except JobError as error:
        raise _by_name(error, delivered, file) from error


def _opened(delivered: Model, file: Fetched, rows: Dataset, *, scratch: Path) -> Opened:
    if delivered.format is ModelFormat.ONNX:
        checked = onnx_files.check_in_sandbox(file.path, uri=delivered.uri)
        return Opened(checked.path, checked.signature, checked.classes)
    native = Native(file.path, delivered.format, delivered.factory)
    converted = _converted(delivered, native, rows, scratch=scratch)
    signature = check_in_sandbox(converted.model, uri=delivered.uri)
    kept = converted.native or (None if delivered.format.is_folder else native)
    return Opened(converted.model, signature, converted.classes, kept)


def _by_name(error: JobError, delivered: Model, file: Fetched) -> JobError:
    """Return the error of a file that cannot be opened, with the format that its name shows where that is another."""
    shown = other_format(delivered.format, name=delivered.uri, file=file.path)
    if error.reason is not Reason.MODEL_INVALID or shown is None or task_named(error) is not None:
        return error
    default = " where a spec names none" if delivered.format is ModelFormat.ONNX else ""
    named = f"model.format is {delivered.format}{default}, and the name of the file shows {shown}"
    message = f"{named} ({error.message.removesuffix('.')})."
    return JobError(Reason.MODEL_INVALID, delivered.uri, message, _set_format(shown))


def _set_format(format_: ModelFormat) -> str:
    more = " and model.factory" if format_.weights_only else ""
    trust = ", and model.trust: RunsCodeFromFile if you trust its author" if format_.runs_code else ""
    return f"Set model.format: {format_}{more}{trust}."


def _converted(delivered: Model, native: Native, rows: Dataset, *, scratch: Path) -> Converted:
    if delivered.format.runs_code and delivered.trust is None:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"loading format {delivered.format} runs code from the file.",
            "Deliver ONNX, SafeTensors, Skops, XGBoost, LightGBM or CatBoost, or set model.trust: RunsCodeFromFile.",
        )
    shown = fetch(rows.uri, digest=rows.digest, limit_bytes=DATA_LIMIT_BYTES, into=scratch / "shown", what="Data")
    try:
        sample = Sample(
            path=shown.path,
            format=format_of(rows),
            csv=rows.csv,
            label=rows.label,
            label_columns=rows.label_columns or (),
            asides=rows.asides,
            limit_bytes=DATA_LIMIT_BYTES,
            uri=rows.uri,
        )
        return convert_in_sandbox(
            native,
            uri=delivered.uri,
            task=delivered.task,
            classes=delivered.classes or (),
            sample=sample,
            into=scratch / "converted",
        )
    except UnreadableDataError as error:
        raise JobError(Reason.DATA_INVALID, rows.uri, str(error), "Correct the file.") from error


def fetch_model(delivered: Model, into: Path) -> Fetched:
    """Fetch the delivered model into the folder `into`: the files of external data that it names, or all of a folder.

    Raises:
        JobError: ModelInvalid for a file that only another library reads; else as `source_of`, `fetch` and
            `fetch_folder`.
    """
    if delivered.format.is_folder:
        return fetch_folder(delivered.uri, digest=delivered.digest, into=into)
    source = source_of(delivered.uri, delivered.format)
    uri = source.uri
    _refuse(uri, foreign(uri))
    place = source.file
    try:
        model = bring(place, digest=delivered.digest, limit_bytes=MODEL_LIMIT_BYTES, into=into, what="Model")
    except JobError:
        _check_folder(place)
        raise
    try:
        external = external_files(model.path, uri=uri) if delivered.format is ModelFormat.ONNX else ()
    except JobError as error:
        raise _by_name(error, delivered, model) from error
    for name in external:
        bring(source.beside(name), limit_bytes=EXTERNAL_LIMIT_BYTES, into=into, what="Model")
    return model


def _refuse(uri: str, known: tuple[str, str] | None) -> None:
    if known is not None:
        raise JobError(Reason.MODEL_INVALID, uri, f"it {known[0]}.", f"{known[1][0].upper()}{known[1][1:]}.")


def _check_folder(location: Location) -> None:
    """Say what a folder of a volume is that was delivered as a file."""
    if location.remote or not location.local.is_dir():
        return
    with suppress(PermissionError):
        members = frozenset(path.name for path in location.local.iterdir())
        if is_hugging_face(members):
            message = f"it is a folder of Hugging Face, which format {ModelFormat.HUGGING_FACE} reads."
            raise JobError(Reason.MODEL_INVALID, location.uri, message, _set_format(ModelFormat.HUGGING_FACE))
        _refuse(location.uri, foreign(location.uri, members))
