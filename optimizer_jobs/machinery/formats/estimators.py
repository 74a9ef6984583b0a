"""Formats Skops, Joblib and Pickle: a fitted scikit-learn estimator or pipeline.

The delivered file is opened once, here. Training starts from a skops file that is made of it and is data, so that a
trusted pickle does not run a second time.
"""

import dataclasses
from pathlib import Path

from optimizer_jobs.data.readers import UnreadableDataError
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.machinery.formats.columns import check_columns, check_order, check_task
from optimizer_jobs.models.native import Native
from optimizer_jobs.progress import say
from optimizer_jobs.signature import TensorSpec
from retune.api.model import ModelFormat
from retune.contract.results import Reason

_CHECKED_ROWS = 1000
"""Rows on which the answers of file and estimator are compared, at most."""
_CLASSES_ONLY = "Save the fitted estimator with skops.io.dump, with classes of scikit-learn only."


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Write the ONNX file, and the skops file that training starts from, into the folder `into`."""
    from sklearn.base import is_regressor

    from optimizer_jobs.machinery.boosters.estimators import needs_file
    from optimizer_jobs.machinery.estimators.convert import classes_of
    from optimizer_jobs.machinery.estimators.inputs import inputs_of
    from optimizer_jobs.machinery.formats.boosters import convert_object
    from optimizer_jobs.models.onnx_file import check_onnx

    estimator = _opened(delivered)
    if needs_file(estimator):
        return convert_object(estimator, delivered, into=into)
    check_task(delivered, regression=is_regressor(estimator), name=type(estimator).__name__)
    _check_order(estimator, delivered)
    inputs = inputs_of(estimator, delivered.columns)
    _check_columns(inputs, delivered)
    target = into / "model.onnx"
    _write(estimator, inputs, delivered, target)
    return Converted(
        model=target,
        signature=check_onnx(target, uri=delivered.uri),
        classes=classes_of(estimator),
        native=_kept(estimator, into, delivered),
    )


def _write(estimator: object, inputs: tuple[TensorSpec, ...], delivered: Delivered, target: Path) -> None:
    """Write the ONNX file, and compare its answers with those of the estimator on the validation data."""
    from optimizer_jobs.machinery.estimators.convert import NotConvertibleError, refused, to_onnx
    from optimizer_jobs.machinery.estimators.inputs import rows_of

    try:
        rows = rows_of(delivered.columns, inputs, label=delivered.label, limit=_CHECKED_ROWS)
        to_onnx(estimator, inputs, target=target, rows=rows)
    except NotConvertibleError as error:
        raise refused(error, name=delivered.uri) from error
    except (UnreadableDataError, ValueError, TypeError, IndexError) as error:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"the estimator cannot be asked with the validation data ({printable(str(error), limit=300)}).",
            "Give data with the columns that the estimator was fitted on.",
        ) from error


def _opened(delivered: Delivered) -> object:
    """Return the estimator."""
    from sklearn import __version__

    from optimizer_jobs.machinery.estimators.load import load

    try:
        loaded = load(delivered.native, trusted=delivered.native.format.runs_code)
    except JobError as error:
        raise dataclasses.replace(error, object=delivered.uri) from error
    if loaded.saved_with is not None:
        say(f"the estimator was saved with scikit-learn {loaded.saved_with} and is opened with {__version__}")
    return loaded.estimator


def _check_order(estimator: object, delivered: Delivered) -> None:
    """Refuse a table with the columns of the fitted matrix in another order."""
    from optimizer_jobs.machinery.estimators.inputs import column_names

    if column_names(estimator) is None:
        check_order([str(name) for name in getattr(estimator, "feature_names_in_", ())], delivered)


def _check_columns(inputs: tuple[TensorSpec, ...], delivered: Delivered) -> None:
    """Refuse a table that lacks columns of the estimator."""
    if len(inputs) > 1 and delivered.columns.tabular:
        check_columns(inputs, delivered)


def _kept(estimator: object, into: Path, delivered: Delivered) -> Native:
    """Write the skops file that training starts from, and see that it opens."""
    from optimizer_jobs.machinery.estimators.load import load
    from optimizer_jobs.machinery.estimators.save import save

    kept = Native(into / "model.skops", ModelFormat.SKOPS)
    try:
        save(estimator, kept.path)
        load(kept)
    except JobError as error:
        raise dataclasses.replace(error, object=delivered.uri) from error
    except (TypeError, ValueError) as error:
        message = f"skops cannot keep it ({printable(str(error), limit=300)})."
        raise JobError(Reason.MODEL_INVALID, delivered.uri, message, _CLASSES_ONLY) from error
    return kept
