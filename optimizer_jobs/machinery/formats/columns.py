"""Hold a delivered model against the task and the columns of its validation data, in one sentence where they differ."""

from collections.abc import Callable, Sequence

from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import Delivered, other_task
from optimizer_jobs.signature import TensorSpec
from retune.api.model import Task
from retune.contract.results import Reason

_SHOWN = 20
_FITTED = "Give data with the columns that the model was fitted on."
_SET_LABEL = "Set spec.data.*.labelColumn, or --label: {}."
_SET_LABELS = "Set spec.data.*.labelColumns, or give --label for each: {}."
_BETWEEN = ", "
_NAME_LABEL = "Name the one with the labels in spec.data.*.labelColumn, or with --label, and leave the others out."


def check_task(delivered: Delivered, *, does: Task, name: str) -> None:
    """Refuse a model that does not do what the spec says; raises JobError, ModelInvalid.

    Whatever it does, it may be held against itself as a generic model.
    """
    if delivered.task not in {does, Task.GENERIC}:
        raise other_task(delivered, what=name, does=does)


def check_label(fitted: Sequence[str], delivered: Delivered, *, targets: Callable[[], int]) -> None:
    """Refuse a table whose label column is absent or one that the model was fitted on, and that has other columns.

    Args:
        fitted: Columns that the model was fitted on.
        delivered: The model and its validation data.
        targets: Returns how many numbers or labels the model predicts for a row.

    Raises:
        JobError: DataInvalid; `labels_left` returns the columns that can only be the labels.
    """
    present = delivered.columns.names
    others = [name for name in present if name not in fitted]
    if not fitted or not delivered.columns.tabular or (delivered.label in present and delivered.label not in fitted):
        return
    if others and set(fitted) <= set(present):
        label = delivered.label
        fault = f"the model was fitted on {label!r}" if label in present else f"there is no column {label!r}"
        raise JobError(
            Reason.DATA_INVALID,
            delivered.data,
            f"{fault}, and the model was not fitted on {', '.join(others[:_SHOWN])}.",
            _how_to_name(others, targets),
        )


def _how_to_name(others: Sequence[str], targets: Callable[[], int]) -> str:
    if len(others) == 1:
        return _SET_LABEL.format(others[0])
    return _SET_LABELS.format(_BETWEEN.join(others)) if len(others) == targets() else _NAME_LABEL


def labels_left(error: JobError, names: Sequence[str]) -> tuple[str, ...]:
    """Return which of these columns a refusal says can only be the labels; none when it refuses for another reason."""
    for form in (_SET_LABEL, _SET_LABELS):
        before, after = form.split("{}")
        told = error.next_step.removeprefix(before).removesuffix(after)
        left = (told,) if form is _SET_LABEL else tuple(told.split(_BETWEEN))
        if form.format(told) == error.next_step and set(left) <= set(names):
            return left
    return ()


def check_order(fitted: Sequence[str], delivered: Delivered, *, targets: int) -> None:
    """Refuse a table with other columns than the fitted matrix, or in another order: every answer would be wrong.

    One that has none of their names is taken in its own order, and one of another width is for others to refuse.

    Raises:
        JobError: DataInvalid.
    """
    check_label(fitted, delivered, targets=lambda: targets)
    present = [_unspaced(name) for name in delivered.columns.names if name != delivered.label]
    wanted = [_unspaced(name) for name in fitted]
    is_like = len(wanted) == len(present) and bool(set(wanted) & set(present))
    if not delivered.columns.tabular or not is_like or wanted == present:
        return
    absent = [name for name in fitted if _unspaced(name) not in present]
    if absent:
        raise _lacks_columns(absent, delivered)
    raise JobError(
        Reason.DATA_INVALID,
        delivered.uri,
        f"the model was fitted on columns {', '.join(fitted[:_SHOWN])}, and the data has them in another order.",
        "Write the data's columns in that order.",
    )


def _unspaced(name: str) -> str:
    """Return a column's name as LightGBM writes it."""
    return "_".join(name.split(" "))


def check_columns(inputs: Sequence[TensorSpec], delivered: Delivered) -> None:
    """Refuse data that lacks columns of the model; raises JobError, DataInvalid."""
    absent = [tensor.name for tensor in inputs if tensor.name not in delivered.columns.names]
    if absent:
        raise _lacks_columns(absent, delivered)


def _lacks_columns(absent: Sequence[str], delivered: Delivered) -> JobError:
    return JobError(
        Reason.DATA_INVALID,
        delivered.uri,
        f"the model takes columns that the data lacks: {', '.join(absent[:_SHOWN])}.",
        _FITTED,
    )
