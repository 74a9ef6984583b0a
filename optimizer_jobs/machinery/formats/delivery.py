"""The model as it was delivered: fetched with all that belongs to it, and opened as a checked ONNX file.

Nothing from the file runs in this process: other formats than ONNX are converted in a sandbox.
"""

from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.data.datasets import DATA_LIMIT_BYTES, format_of
from optimizer_jobs.data.fetch import Fetched, fetch
from optimizer_jobs.data.readers import UnreadableDataError
from optimizer_jobs.data.uris import sibling
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats import onnx_files
from optimizer_jobs.machinery.formats.base import Converted
from optimizer_jobs.machinery.formats.sandbox import Sample, convert_in_sandbox
from optimizer_jobs.models.external import external_files
from optimizer_jobs.models.missing import accepts_missing
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.onnx_file import MODEL_LIMIT_BYTES
from optimizer_jobs.models.sandbox import check_in_sandbox
from optimizer_jobs.signature import Signature
from retune.api.model import Dataset, Model, ModelFormat
from retune.contract.foreign import foreign
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
    """The delivered file, when it is not ONNX, or the file that was made of it to train on."""

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
    if delivered.format is ModelFormat.ONNX:
        checked = onnx_files.check_in_sandbox(file.path, uri=delivered.uri)
        return Opened(checked.path, checked.signature, checked.classes)
    native = Native(file.path, delivered.format, delivered.factory)
    converted = _converted(delivered, native, rows, scratch=scratch)
    signature = check_in_sandbox(converted.model, uri=delivered.uri)
    return Opened(converted.model, signature, converted.classes, converted.native or native)


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
            sample=sample,
            into=scratch / "converted",
        )
    except UnreadableDataError as error:
        raise JobError(Reason.DATA_INVALID, rows.uri, str(error), "Correct the file.") from error


def fetch_model(delivered: Model, into: Path) -> Fetched:
    """Fetch the delivered model into the folder `into`, with the files of external data that it names.

    Raises:
        JobError: ModelInvalid for a file that only another library reads; else as `fetch`.
    """
    uri = delivered.uri
    if (known := foreign(uri)) is not None:
        raise JobError(Reason.MODEL_INVALID, uri, f"it {known[0]}.", f"{known[1][0].upper()}{known[1][1:]}.")
    model = fetch(uri, digest=delivered.digest, limit_bytes=MODEL_LIMIT_BYTES, into=into, what="Model")
    for name in external_files(model.path, uri=uri) if delivered.format is ModelFormat.ONNX else ():
        fetch(sibling(uri, name), limit_bytes=EXTERNAL_LIMIT_BYTES, into=into, what="Model")
    return model
