"""Times of rows: read in every usual form, no input of the model, and named where splits overlap."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.data.datasets import read_dataset
from optimizer_jobs.data.readers import Columns, UnreadableDataError
from optimizer_jobs.data.times import overlaps, times_of
from optimizer_jobs.signature import Signature, TensorSpec
from retune.api.model import Dataset, Task

HOURS = np.datetime64("2026-01-31T00:00", "us") + np.arange(4) * np.timedelta64(1, "h")


def columns(values: np.ndarray) -> Columns:
    """Return a table with one column, `when`."""
    return Columns(names=("when",), read=lambda _: values, tabular=True)


@pytest.mark.parametrize(
    "written",
    [
        HOURS,
        np.asarray([str(hour) for hour in HOURS], dtype=object),
        np.asarray([f"{str(hour)[:19]}Z" for hour in HOURS], dtype=object),
        np.asarray(["2026-01-31T02:00+02:00", "2026-01-31 01:00", "2026-01-31T03:00+01:00", "2026-01-31T03:00"]),
        HOURS.astype(np.int64) / 1e6,
    ],
    ids=["dates", "text", "zulu", "zones", "seconds"],
)
def test_times_are_read_as_they_are_written(written: np.ndarray) -> None:
    """Dates, ISO 8601 with and without a zone, and seconds since 1970 are the same times."""
    assert np.array_equal(times_of(columns(written), "when"), HOURS)


def test_a_cell_without_a_time_is_named() -> None:
    """The sentence says where it is, and how a time is written."""
    with pytest.raises(UnreadableDataError, match=r"holds no time in 1 of 2 rows, the first in row 2.*ISO 8601"):
        times_of(columns(np.asarray(["2026-01-31", "yesterday"])), "when")


@given(train=st.lists(st.integers(0, 50), min_size=1), test=st.lists(st.integers(0, 50), min_size=1))
def test_an_overlap_is_told_if_and_only_if_there_is_one(train: list[int], test: list[int]) -> None:
    """Test rows that are not later than the last training row are counted."""
    start = np.datetime64("2026-01-01", "us")
    times = {
        name: start + np.asarray(days) * np.timedelta64(1, "D") for name, days in (("training", train), ("test", test))
    }
    words = list(overlaps(times))
    early = sum(day <= max(train) for day in test)
    assert len(words) == (early > 0)
    assert not words or words[0].startswith(
        f"{early} of {len(test)} test rows are not later than the last training row"
    )


def test_a_time_column_is_no_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table with a column of dates is read as if it were not there, and its rows have times."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path))
    (tmp_path / "c").mkdir()
    table = pd.DataFrame({"when": HOURS, "a": np.arange(4.0), "b": np.ones(4), "label": [1.5, 2.5, 0.5, 1.0]})
    table.to_csv(tmp_path / "c" / "rows.csv", index=False)
    matrix = TensorSpec(name="x", dtype="float32", shape=(-1, 2))
    spec = Dataset(uri="pvc://c/rows.csv", time_column="when")
    rows = read_dataset(spec, Signature(inputs=(matrix,), outputs=()), into=tmp_path / "in", task=Task.REGRESSION)
    assert rows.inputs["x"].shape == (4, 2)
    assert rows.times is not None
    assert np.array_equal(rows.times, HOURS)
    assert rows.take(np.arange(2)).times is None
