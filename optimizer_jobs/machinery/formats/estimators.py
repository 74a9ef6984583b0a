"""Formats Skops, Joblib and Pickle: a fitted scikit-learn estimator or pipeline.

The delivered file is opened once, here. Training starts from a skops file that is made of it and is data, so that a
trusted pickle does not run a second time.
"""

import dataclasses
from pathlib import Path

from optimizer_jobs.data.readers import UnreadableDataError
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.machinery.formats.columns import check_label, check_task
from optimizer_jobs.models.native import Native
from optimizer_jobs.progress import say
from optimizer_jobs.signature import TensorSpec
from retune.api.model import ModelFormat, Task
from retune.contract.results import Reason

_CHECKED_ROWS = 100_000
"""Rows on which the answers of file and estimator are compared, at most, spread evenly over the data."""
_CLASSES_ONLY = "Save the fitted estimator with skops.io.dump, with classes of scikit-learn only."


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Write the ONNX file, and the skops file that training starts from, into the folder `into`."""
    from optimizer_jobs.machinery.boosters.estimators import needs_file
    from optimizer_jobs.machinery.estimators.convert import classes_of
    from optimizer_jobs.machinery.formats.boosters import convert_object
    from optimizer_jobs.models.onnx_file import check_onnx

    estimator = _opened(delivered)
    if needs_file(estimator):
        return convert_object(estimator, delivered, into=into)
    check_task(delivered, does=_task_of(estimator), name=type(estimator).__name__)
    _check_order(estimator, delivered)
    target = into / "model.onnx"
    _write(estimator, delivered, target)
    return Converted(
        model=target,
        signature=check_onnx(target, uri=delivered.uri),
        classes=classes_of(estimator),
        native=_kept(estimator, into, delivered),
    )


def _task_of(estimator: object) -> Task:
    """Return what the estimator does, by what it was fitted to."""
    from sklearn.base import is_regressor

    from optimizer_jobs.machinery.estimators.several import gives_label_sets

    if is_regressor(estimator):
        return Task.REGRESSION
    return Task.MULTI_LABEL if gives_label_sets(estimator) else Task.CLASSIFICATION


def _write(estimator: object, delivered: Delivered, target: Path) -> None:
    """Write the ONNX file, and compare its answers with those of the estimator on the validation data.

    Where single precision is too coarse for the data, such as times in seconds, inputs take double precision.
    """
    from optimizer_jobs.machinery.estimators.convert import DiffersError, NotConvertibleError, refused
    from optimizer_jobs.machinery.estimators.inputs import inputs_of

    try:
        inputs = inputs_of(estimator, delivered.columns, label=delivered.label)
        _check_columns(inputs, delivered)
        try:
            _compared(estimator, inputs, delivered, target)
        except DiffersError as error:
            if not _written_in_doubles(estimator, inputs, delivered, target):
                raise error from None
    except NotConvertibleError as error:
        raise refused(error, name=delivered.uri) from error
    except (UnreadableDataError, ValueError, TypeError, LookupError, AttributeError) as error:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"the estimator cannot be asked with the validation data ({printable(str(error), limit=300)}).",
            "Give data with the columns that the estimator was fitted on.",
        ) from error


def _compared(estimator: object, inputs: tuple[TensorSpec, ...], delivered: Delivered, target: Path) -> None:
    from optimizer_jobs.machinery.estimators.convert import to_onnx
    from optimizer_jobs.machinery.estimators.inputs import original_rows, rows_of

    rows = rows_of(delivered.columns, inputs, label=delivered.label, limit=_CHECKED_ROWS)
    X = original_rows(estimator, delivered.columns, inputs, label=delivered.label, limit=_CHECKED_ROWS)
    to_onnx(estimator, inputs, target=target, rows=rows, X=X)


def _written_in_doubles(estimator: object, inputs: tuple[TensorSpec, ...], delivered: Delivered, target: Path) -> bool:
    """Write the file with inputs in double precision; return whether it then answers as the estimator does."""
    from optimizer_jobs.machinery.estimators.convert import NotConvertibleError

    doubles = tuple(tensor.model_copy(update={"dtype": "float64"}) if tensor.is_float else tensor for tensor in inputs)
    try:
        _compared(estimator, doubles, delivered, target)
    except NotConvertibleError:
        return False
    say("  its inputs take double precision: in single precision it would answer some rows otherwise")
    return True


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
    """Refuse a table with other columns than the fitted matrix, or in another order: every answer would be wrong."""
    from optimizer_jobs.machinery.estimators.inputs import column_names, fitted_names, takes_texts

    fitted = fitted_names(estimator)
    check_label(fitted or (), delivered, targets=lambda: _targets(estimator, delivered))
    present = [name for name in delivered.columns.names if name != delivered.label]
    if not delivered.columns.tabular or fitted is None or takes_texts(estimator):
        return
    if column_names(estimator, delivered.columns) is not None or list(fitted) == present:
        return
    if set(fitted) - set(present):
        raise _lacks_columns([name for name in fitted if name not in present], delivered)
    others = [name for name in present if name not in fitted]
    if delivered.label in delivered.columns.names and others:
        message = f"the estimator was not fitted on {', '.join(others[:20])}, which the data has besides its inputs."
        raise JobError(Reason.DATA_INVALID, delivered.data, message, "Leave these columns out of the data.")
    if not others:
        message = (
            f"the estimator was fitted on columns {', '.join(fitted[:20])}, and the data has another order of them."
        )
        raise JobError(Reason.DATA_INVALID, delivered.data, message, "Write the data's columns in that order.")


def _targets(estimator: object, delivered: Delivered) -> int:
    """Return how many numbers or labels the estimator predicts for a row; 1 where it cannot be asked."""
    from optimizer_jobs.machinery.estimators.several import targets_by_names

    try:
        return targets_by_names(estimator, delivered.columns)
    except (UnreadableDataError, ValueError, TypeError, LookupError, AttributeError):
        return 1


def _check_columns(inputs: tuple[TensorSpec, ...], delivered: Delivered) -> None:
    """Refuse a table that lacks columns of the estimator."""
    absent = [tensor.name for tensor in inputs if tensor.name not in delivered.columns.names]
    if delivered.columns.tabular and absent and len(inputs) > 1:
        raise _lacks_columns(absent, delivered)


def _lacks_columns(absent: list[str], delivered: Delivered) -> JobError:
    present = ", ".join(delivered.columns.names[:20])
    return JobError(
        Reason.DATA_INVALID,
        delivered.data,
        f"the estimator takes columns that the data lacks: {', '.join(absent[:20])}; it has {present}.",
        "Give data with the columns that the estimator was fitted on.",
    )


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
