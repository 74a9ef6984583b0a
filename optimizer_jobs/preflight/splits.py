"""Read every data set of a spec, so that a fault in any of them shows before a run is spent on it.

The test set must prove something: it may not be another set, nor hold many rows of one that a search learns from.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from optimizer_jobs.data import horizons
from optimizer_jobs.data.datasets import Rows, open_dataset, read_dataset
from optimizer_jobs.data.overlap import overlap
from optimizer_jobs.data.readers import Columns
from optimizer_jobs.data.times import backwards, overlaps
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.missing import unanswered
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.preflight.rows_first import with_fills
from optimizer_jobs.progress import say
from retune.api.model import Data, Dataset, Model, Task
from retune.contract.results import Reason

SPLITS = ("training", "validation", "test", "calibration")
_UNSEEN = "Give test data that nothing else uses."


def specs_of(data: Data) -> dict[str, Dataset]:
    """Return the data sets that a spec names, by split."""
    return {name: spec for name in SPLITS if (spec := getattr(data, name)) is not None}


def with_lacking(opened: Opened, model: Model, data: Mapping[str, Dataset], *, into: Path) -> Opened:
    """Return the model with the values of inputs that the data lacks.

    Args:
        opened: The model as delivered.
        model: What the spec says about it.
        data: The data sets by split.
        into: Folder for private copies.

    Raises:
        JobError: A data set cannot be opened, or nothing says what an input is.
    """
    signature = opened.signature
    has_rows = all(axis is not None for axis in signature.input_axes.values())
    if has_rows and not signature.states and not model.inputs:
        return opened
    tables = [open_dataset(spec, into=into / split) for split, spec in data.items()]
    return with_fills(opened, model.inputs, common_names(tables), uri=model.uri)


def common_names(tables: Sequence[Columns]) -> frozenset[str]:
    """Return the names of the columns or arrays that every table has."""
    return frozenset(set(tables[0].names).intersection(*(table.names for table in tables))) if tables else frozenset()


def read_splits(specs: Mapping[str, Dataset], opened: Opened, *, task: Task, into: Path) -> dict[str, Rows]:
    """Read every data set.

    Args:
        specs: The data sets by split.
        opened: The delivered model.
        task: What the model does.
        into: Folder for private copies.

    Returns:
        Rows by split.

    Raises:
        JobError: A data set cannot be used, or the test set is another one, holds many of its rows, or is from before
            all training rows.
    """
    missing = opened.accepts_missing
    splits = {
        name: read_dataset(spec, opened.signature, into=into / name, task=task, missing=missing)
        for name, spec in specs.items()
    }
    if missing:
        _check_missing(opened, splits, specs)
    _check_test_is_separate(splits, specs)
    _check_leaks(splits, specs)
    _check_times(splits, specs)
    return splits


def _check_times(splits: Mapping[str, Rows], specs: Mapping[str, Dataset]) -> None:
    """Refuse a test set from before all training; say where splits, or what their labels are about, overlap in time."""
    times = {name: rows.times for name, rows in splits.items() if rows.times is not None}
    reverse = backwards(times)
    if reverse is not None:
        raise JobError(
            Reason.DATA_INVALID,
            specs["test"].uri,
            f"{reverse}.",
            "Give the newest rows as test data, or leave timeColumn out where the order of time says nothing.",
        )
    labels = {name: splits[name].labels for name in times}
    for words in (*overlaps(times), *horizons.overlaps(times, labels)):
        say(f"  {words}")


def _check_test_is_separate(splits: Mapping[str, Rows], specs: Mapping[str, Dataset]) -> None:
    for other in ("training", "validation", "calibration"):
        if "test" in splits and other in splits and splits[other].digest == splits["test"].digest:
            raise JobError(
                Reason.DATA_INVALID,
                specs["test"].uri,
                f"the test set is the same file as the {other} set, so it would prove nothing.",
                _UNSEEN,
            )


def _check_leaks(splits: Mapping[str, Rows], specs: Mapping[str, Dataset]) -> None:
    """Refuse a test set that a search may have learned from; say where a few rows are the same."""
    for name, rows in splits.items():
        if name == "test" or "test" not in splits or rows.labels is None:
            continue
        shared = overlap(splits["test"], rows)
        words = f"{shared.copies} of {shared.rows} test rows are rows of the {name} set too"
        if shared.is_leak:
            raise JobError(Reason.DATA_INVALID, specs["test"].uri, f"{words}, so they would prove nothing.", _UNSEEN)
        if shared.copies:
            say(f"  {words}: quality on them says nothing of rows that were never seen")


def _check_missing(opened: Opened, splits: Mapping[str, Rows], specs: Mapping[str, Dataset]) -> None:
    """Refuse rows with missing values to which the model gives no finite answer."""
    session = open_model(opened.model, EngineOptions(spinning=False))
    for name, rows in splits.items():
        reason = unanswered(session, rows)
        if reason is not None:
            raise JobError(
                Reason.DATA_INVALID,
                specs[name].uri,
                f"{reason}.",
                "Fill these values, or deliver a pipeline with an imputer in front of the estimator.",
            )
