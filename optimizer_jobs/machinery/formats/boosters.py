"""Formats XGBoost, LightGBM and CatBoost: boosted trees in the files that their own libraries write.

No such file runs code. treelite reads the first two, so that neither library is needed; only CatBoost reads its own.
Where the library is installed, it is asked whether the ONNX file answers the same.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path

from optimizer_jobs.data.readers import UnreadableDataError
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.machinery.boosters.agreement import check, native_of
from optimizer_jobs.machinery.boosters.estimators import saved
from optimizer_jobs.machinery.boosters.forest import Array, Booster, BoosterError, labels_of
from optimizer_jobs.machinery.boosters.write import MATRIX, write
from optimizer_jobs.machinery.formats.base import Converted, Delivered
from optimizer_jobs.machinery.formats.columns import check_columns, check_order, check_task
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.progress import say
from optimizer_jobs.signature import TEXT, TensorSpec
from retune.api.model import ModelFormat, Task
from retune.contract.results import Reason

_READERS: Mapping[ModelFormat, str] = {
    ModelFormat.XGBOOST: "optimizer_jobs.machinery.boosters.xgboost",
    ModelFormat.LIGHTGBM: "optimizer_jobs.machinery.boosters.lightgbm",
    ModelFormat.CATBOOST: "optimizer_jobs.machinery.boosters.catboost",
}
_CHECKED_ROWS = 1000
"""Rows on which the answers of file and library are compared, at most."""


def convert(delivered: Delivered, *, into: Path) -> Converted:
    """Write the trees as ONNX into the folder `into`, and see that they answer as their library does."""
    with _faults(delivered):
        return _converted(delivered, into, labels=())


def convert_object(model: object, delivered: Delivered, *, into: Path) -> Converted:
    """Write an object of these libraries as ONNX by way of its library's file, which is kept to train on.

    Args:
        model: What the delivered file held.
        delivered: The delivered file.
        into: Folder for both files.

    Raises:
        JobError: ModelInvalid, with what is wrong.
    """
    with _faults(delivered):
        native = saved(model, into)
        made = _converted(replace(delivered, native=native), into, labels=labels_of(model))
        return replace(made, native=native)


def _converted(delivered: Delivered, into: Path, *, labels: tuple[int, ...] | tuple[str, ...]) -> Converted:
    """Return the ONNX file; `labels` are those of the classes where the file does not have them."""
    target = into / "model.onnx"
    booster: Booster = import_module(_READERS[delivered.native.format]).read(delivered.native.path)
    booster = replace(booster, labels=booster.labels or labels)
    does = Task.CLASSIFICATION if booster.forest.classes else Task.REGRESSION
    check_task(delivered, does=does, name=f"a model of objective {booster.objective}")
    rows = _rows(booster, delivered)
    write(booster, target)
    _compare(booster, target, rows, delivered)
    signature = check_onnx(target, uri=delivered.uri)
    return Converted(model=target, signature=signature, classes=booster.labels)


@contextmanager
def _faults(delivered: Delivered) -> Iterator[None]:
    """Turn what a damaged file causes, or one without a counterpart, into a `JobError`."""
    try:
        yield
    except (BoosterError, KeyError, TypeError, IndexError, AttributeError) as error:
        raise _refused(error, delivered) from error
    except ModuleNotFoundError as error:
        raise JobError(
            Reason.MODEL_INVALID,
            delivered.uri,
            f"reading format {delivered.native.format} needs Python module {error.name}, which is not in this image.",
            "Add it to the optimizer image (extra boosters), or deliver the model as ONNX.",
        ) from error


def _refused(error: Exception, delivered: Delivered) -> JobError:
    if isinstance(error, BoosterError):
        message, next_step = str(error), error.next_step
    else:
        message = f"the file lacks parts, or they do not fit together ({error!r})"
        next_step = f"Save it again with {delivered.native.format}, or deliver ONNX."
    return JobError(Reason.MODEL_INVALID, delivered.uri, f"{printable(message, limit=300)}.", next_step)


def _compare(booster: Booster, target: Path, rows: Mapping[str, Array], delivered: Delivered) -> None:
    if booster.rounds is not None:
        say(f"  trees up to round {booster.rounds} are used, the best one, as scikit-learn's predict does")
    native = native_of(booster, delivered.native.path)
    if native is None:
        say(f"  answers are not compared with those of {booster.library}, which is not installed here")
        return
    check(booster, target, rows, native=native)


def _rows(booster: Booster, delivered: Delivered) -> Mapping[str, Array]:
    """Return validation rows by input name.

    Raises:
        JobError: DataInvalid when they are not the columns that the trees were trained on.
    """
    from optimizer_jobs.machinery.estimators.inputs import rows_of

    inputs = _inputs(booster)
    if booster.textual:
        check_columns(inputs, delivered)
    else:
        check_order(booster.names, delivered, targets=1 if booster.forest.classes else len(booster.forest.base))
    try:
        rows = rows_of(delivered.columns, inputs, label=delivered.label, limit=_CHECKED_ROWS)
        _check_width(rows, booster)
    except (UnreadableDataError, ValueError, TypeError, IndexError) as error:
        raise JobError(
            Reason.DATA_INVALID,
            delivered.uri,
            f"the trees cannot be asked with the validation data ({printable(str(error), limit=300)}).",
            "Give data with the columns that the model was trained on, as numbers.",
        ) from error
    return rows


def _check_width(rows: Mapping[str, Array], booster: Booster) -> None:
    """Refuse rows of another number of columns than the trees take; raises ValueError."""
    wanted = (booster.forest.features,)
    if not booster.textual and rows[MATRIX].shape[1:] != wanted:
        shape = ", ".join(str(size) for size in rows[MATRIX].shape[1:])
        raise ValueError(f"the rows have shape ({shape}), and the trees take {wanted[0]} columns")


def _inputs(booster: Booster) -> tuple[TensorSpec, ...]:
    if not booster.textual:
        return (TensorSpec(name=MATRIX, dtype="float32", shape=(-1, booster.forest.features)),)
    return tuple(
        TensorSpec(name=name, dtype=TEXT if place in booster.textual else "float32", shape=(-1, 1))
        for place, name in enumerate(booster.names)
    )
