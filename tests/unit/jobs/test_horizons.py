"""Labels that are steps to come reach into a later split: seen in the data, counted, and left out where we divide."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from skl2onnx import to_onnx
from sklearn.linear_model import Ridge

from optimizer_jobs.commands.inspection.dividing import divided
from optimizer_jobs.data.datasets import Array, open_dataset
from optimizer_jobs.data.horizons import overlaps, reach_of
from optimizer_jobs.data.times import NAMES, Times, backwards, by_time
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened
from optimizer_jobs.models.onnx_file import check_onnx
from optimizer_jobs.preflight.splits import read_splits
from retune.api.model import Dataset, Task
from tests.unit.jobs.conftest import Claims

START, HOUR = np.datetime64("2026-01-01T00", "us"), np.timedelta64(1, "h")
SERIES = np.cumsum(np.random.default_rng(0).normal(size=400))


def forecast(steps: int, *, every: int = 1, series: Array = SERIES) -> tuple[Array, Times]:
    """Return, for a row every few hours, the next numbers of a series, and the times of the rows."""
    begins = np.arange(0, len(series) - steps, every)
    labels = np.stack([series[begin + 1 : begin + 1 + steps] for begin in begins])
    return labels, START + begins * HOUR


@pytest.mark.parametrize(("steps", "every", "hours"), [(24, 1, 24), (6, 2, 6), (2, 1, 2)])
def test_steps_to_come_are_seen_in_rows_that_follow_one_another(steps: int, every: int, hours: int) -> None:
    """The last label lies as many steps after its row, whatever the distance of the rows is, and in any order."""
    labels, times = forecast(steps, every=every)
    order = np.random.default_rng(1).permutation(len(times))
    assert reach_of(labels[order], times[order]) == hours * HOUR


def test_several_series_at_one_time_are_steps_too() -> None:
    """Rows of one time belong to different series, and nothing says which."""
    panel = [forecast(5, series=SERIES * factor) for factor in (1, 2, 3)]
    labels, times = (np.concatenate(parts) for parts in zip(*panel, strict=True))
    assert reach_of(labels, times) == 5 * HOUR


@pytest.mark.parametrize(
    "labels",
    [
        SERIES[:300].reshape(100, 3),
        np.random.default_rng(2).integers(0, 3, (100, 3)).astype(float),
        np.ones((100, 3)),
        forecast(3)[0][:100, ::-1],
        SERIES[:100],
        forecast(3)[0][:100].astype(int),
    ],
    ids=["different numbers", "few numbers", "one number", "steps back", "one label", "whole numbers are classes"],
)
def test_other_labels_reach_nowhere(labels: Array) -> None:
    """What only looks alike by chance claims nothing, nor do numbers that lie before their row."""
    assert reach_of(labels, START + np.arange(100) * HOUR) is None


def test_rows_whose_labels_reach_into_a_later_split_are_counted() -> None:
    """Of 24 steps, 24 rows before the border; none where as many rows were left out."""
    labels, times = forecast(24)
    cut = {"training": slice(0, 200), "test": slice(200, None)}
    words = list(overlaps({name: times[rows] for name, rows in cut.items()}, {n: labels[r] for n, r in cut.items()}))
    assert len(words) == 1
    assert words[0].startswith("the labels of 24 of 200 training rows reach into the times of the test rows")
    cut["training"] = slice(0, 176)
    apart = {name: times[rows] for name, rows in cut.items()}
    assert list(overlaps(apart, {name: labels[rows] for name, rows in cut.items()})) == []


def test_the_baseline_says_which_labels_reach_over_a_border(
    claims: Claims, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it reads the splits, with their numbers; later test rows are no overlap by themselves."""
    labels, times = forecast(3)
    file = tmp_path / "model.onnx"
    file.write_bytes(to_onnx(Ridge().fit(labels, labels), labels[:1].astype(np.float32)).SerializeToString())
    names = ("h1", "h2", "h3")
    specs = {}
    for name, rows in {"training": slice(0, 300), "test": slice(300, None)}.items():
        table = pd.DataFrame(labels[rows], columns=list(names)).assign(when=times[rows])
        table.assign(a=0.0, b=1.0, c=table.h1).to_parquet(claims.root / "digits" / f"{name}.parquet")
        specs[name] = Dataset(uri=f"pvc://digits/{name}.parquet", label_columns=names, time_column="when")
    read_splits(specs, Opened(file, check_onnx(file)), task=Task.REGRESSION, into=tmp_path / "in")
    told = capsys.readouterr().out
    assert (
        "the labels of 3 of 300 training rows reach into the times of the test rows, which begin at 2026-01-13T12"
        in told
    )
    assert "are not later than" not in told


@given(days=st.lists(st.integers(0, 30), min_size=3, max_size=60))
def test_splits_by_time_keep_every_row_once_and_no_time_in_two(days: list[int]) -> None:
    """Training ends before validation begins, and validation before test, whatever the times are."""
    times = START + np.asarray(days) * np.timedelta64(1, "D")
    splits = by_time(times)
    if len(set(days)) < len(NAMES):
        assert splits is None
        return
    assert splits is not None
    assert sorted(np.concatenate(list(splits.values())).tolist()) == list(range(len(days)))
    assert times[splits["training"]].max() < times[splits["validation"]].min()
    assert times[splits["validation"]].max() < times[splits["test"]].min()


def test_splits_by_time_are_six_two_and_two_tenths() -> None:
    """Where every row has a time of its own."""
    splits = by_time(START + np.arange(1000)[::-1] * HOUR)
    assert splits is not None
    assert [len(rows) for rows in splits.values()] == [600, 200, 200]


def test_a_test_set_from_before_all_training_is_backwards() -> None:
    """One row that is as late as training makes it an overlap, which is told in another way."""
    later = {"training": START + np.arange(5, 9) * HOUR, "test": START + np.arange(5) * HOUR}
    assert "all 5 test rows are earlier than every training row (they end at 2026-01-01T04:00:00" in str(
        backwards(later)
    )
    assert backwards(later | {"test": START + np.arange(6) * HOUR}) is None
    assert backwards({"test": later["test"]}) is None


Divide = Callable[[str], dict[str, pd.DataFrame]]
TABLE = pd.DataFrame(forecast(4)[0], columns=["h1", "h2", "h3", "h4"]).assign(
    when=forecast(4)[1].astype(str), shop=[f'no. {row:03d}, "x"' for row in range(396)]
)


def read(path: Path) -> pd.DataFrame:
    """Read a split, of a text table with decimal commas."""
    if path.suffix == ".npz":
        with np.load(path) as arrays:
            return pd.DataFrame({name: arrays[name] for name in arrays.files if arrays[name].size > 1})
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path, sep=";", decimal=",")


def write(table: pd.DataFrame, path: Path) -> None:
    """Write a table in the format of a path; a text table as office software of many countries does."""
    if path.suffix == ".npz":
        columns = {str(name): np.asarray(table[name].tolist()) for name in table}
        np.savez(path, allow_pickle=False, rate=np.float32(1.5), **columns)
    elif path.suffix == ".parquet":
        table.to_parquet(path, index=False)
    else:
        table.to_csv(path, sep=";", decimal=",", index=False)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".npz"])
def test_a_dated_table_is_divided_by_time_in_its_own_format(suffix: str, claims: Claims, tmp_path: Path) -> None:
    """Cells stay what they were, rows whose labels reach over a border are left out, and so it is a second time."""
    folder = claims.root / "digits"
    shuffled = TABLE.sample(frac=1, random_state=0)
    write(shuffled, folder / f"sales{suffix}")
    whole = Dataset(uri=f"pvc://digits/sales{suffix}", time_column="when")
    columns = open_dataset(whole, into=tmp_path)
    labels = shuffled[["h1", "h2", "h3", "h4"]].to_numpy()
    made = divided(whole, columns, labels)
    assert {name: spec.uri for name, spec in made.data.items()} == {
        "training": f"pvc://digits/sales-by-time/train{suffix}",
        "validation": f"pvc://digits/sales-by-time/validation{suffix}",
        "test": f"pvc://digits/sales-by-time/test{suffix}",
    }
    rows = {"train": slice(0, 234), "validation": slice(238, 313), "test": slice(317, None)}
    for name, kept in rows.items():
        part = read(folder / "sales-by-time" / f"{name}{suffix}")
        pd.testing.assert_frame_equal(part, TABLE[kept].reset_index(drop=True), check_dtype=False)
    assert "4 training rows and 4 validation rows are left out" in made.words
    files = {path: path.read_bytes() for path in (folder / "sales-by-time").iterdir()}
    assert divided(whole, columns, labels).words == made.words
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda table: table.assign(when="2026-01-01"), "has fewer than 3 different times"),
        (lambda table: table.assign(when="soon"), "holds no time in 396 of 396 rows"),
        (lambda table: table[:7], "the labels of all"),
    ],
    ids=["one time", "no times", "few rows"],
)
def test_a_table_that_cannot_be_divided_is_one_sentence(
    change: Callable[[pd.DataFrame], pd.DataFrame], says: str, claims: Claims, tmp_path: Path
) -> None:
    """It says what is wrong, and no file is written."""
    table = change(TABLE)
    write(table, claims.root / "digits" / "sales.csv")
    whole = Dataset(uri="pvc://digits/sales.csv", time_column="when")
    columns = open_dataset(whole, into=tmp_path)
    with pytest.raises(JobError, match=says):
        divided(whole, columns, table[["h1", "h2", "h3", "h4"]].to_numpy())
    assert not (claims.root / "digits" / "sales-by-time").exists()


def test_other_files_of_these_names_are_not_overwritten(claims: Claims, tmp_path: Path) -> None:
    """Somebody's own split stays, and is named."""
    folder = claims.root / "digits"
    write(TABLE, folder / "sales.csv")
    (folder / "sales-by-time").mkdir()
    (folder / "sales-by-time" / "test.csv").write_text("mine")
    whole = Dataset(uri="pvc://digits/sales.csv", time_column="when")
    with pytest.raises(JobError, match=r"sales-by-time/test\.csv is there already"):
        divided(whole, open_dataset(whole, into=tmp_path), None)
    assert [path.name for path in (folder / "sales-by-time").iterdir()] == ["test.csv"]
