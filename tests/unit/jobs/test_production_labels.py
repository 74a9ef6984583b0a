"""Late labels find the rows they belong to; what contradicts itself or belongs to nobody is counted and left out."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.production.labels import CONTRADICTING, UNKNOWN, UNWEIGHTED, join, read_labels
from optimizer_jobs.production.windows import Captured
from retune.api.production import Labels
from tests.unit.jobs.captured_for_tests import NOW, REQUEST_ROWS, Shop

Array = NDArray[Any]

LABELS = Labels(uri="pvc://shop/labels")
LIMIT = 10_000


@pytest.fixture
def captured(shop: Shop, tmp_path: Path) -> Captured:
    """Ten requests of an hour."""
    shop.serve(range(10), since=NOW)
    return shop.read(tmp_path)


def found(captured: Captured, tmp_path: Path, labels: Labels = LABELS) -> tuple[Captured, Array, dict[str, int]]:
    """Join, with the reasons as a plain dictionary."""
    rows, truth, set_aside = join(captured, labels, into=tmp_path, limit=LIMIT)
    return rows, truth.labels, dict(set_aside)


def test_each_row_gets_its_own_label(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Of ten requests six have labels, and these are the digits that were sent."""
    shop.label(range(2, 8))
    rows, labels, set_aside = found(captured, tmp_path)
    assert set(rows.request_ids) == {f"r{number}" for number in range(2, 8)}
    np.testing.assert_array_equal(labels, shop.digits[2 * REQUEST_ROWS : 8 * REQUEST_ROWS])
    np.testing.assert_array_equal(rows.inputs["x"], shop.pixels[2 * REQUEST_ROWS : 8 * REQUEST_ROWS])
    assert labels.dtype == np.int64
    assert set_aside == {}


def test_no_labels_are_no_failure(captured: Captured, tmp_path: Path) -> None:
    """Before the first label there is not even a folder."""
    rows, labels, set_aside = found(captured, tmp_path)
    assert (len(rows), len(labels), set_aside) == (0, 0, {})


def test_labels_of_requests_that_were_not_captured_are_counted(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """They belong to another window, or to nothing."""
    shop.label(range(8, 15))
    rows, _, set_aside = found(captured, tmp_path)
    assert len(rows) == 2 * REQUEST_ROWS
    assert set_aside == {UNKNOWN: 5 * REQUEST_ROWS}


def test_a_newer_file_corrects_an_older_one(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Whatever the files are called."""
    wrong = shop.label(range(10), "z", change=lambda labels: (labels + 1) % 10)
    right = shop.label(range(5), "a")
    os.utime(wrong, (NOW + 10, NOW + 10))
    os.utime(right, (NOW + 20, NOW + 20))
    _, labels, _ = found(captured, tmp_path)
    corrected = 5 * REQUEST_ROWS
    np.testing.assert_array_equal(labels[:corrected], shop.digits[:corrected])
    np.testing.assert_array_equal(labels[corrected:], (shop.digits[corrected : 2 * corrected] + 1) % 10)


def test_labels_that_contradict_each_other_are_set_aside(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Two answers to one row in one file say nothing; the same answer twice does."""
    path = shop.label(range(10))
    table = parquet.read_table(path)
    other = table.slice(0, 3).set_column(2, "label", pa.array((shop.digits[:3] + 1) % 10))
    parquet.write_table(pa.concat_tables([table, other, table.slice(3, 4)]), path)
    rows, labels, set_aside = found(captured, tmp_path)
    assert len(rows) == 10 * REQUEST_ROWS - 3
    np.testing.assert_array_equal(labels, shop.digits[3 : 10 * REQUEST_ROWS])
    assert set_aside == {CONTRADICTING: 3}


def test_a_contradiction_does_not_bring_an_older_label_back(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """The newest word on a row counts, even when it is none."""
    old, path = shop.label([0], "old"), shop.label([0], "new")
    table = parquet.read_table(path)
    parquet.write_table(
        pa.concat_tables([table, table.set_column(2, "label", pa.array((shop.digits[:REQUEST_ROWS] + 1) % 10))]), path
    )
    os.utime(old, (NOW, NOW))
    rows, _, set_aside = found(captured, tmp_path)
    assert len(rows) == 0
    assert set_aside == {CONTRADICTING: REQUEST_ROWS}


def test_without_a_row_the_first_is_meant(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Requests of one row need no column for it; text and whole floats are read as what they are."""
    path = shop.label(range(1))
    firsts = shop.digits[: 10 * REQUEST_ROWS : REQUEST_ROWS]
    ids = [f"r{number}" for number in range(10)]
    parquet.write_table(pa.table({"request_id": ids, "truth": firsts.astype(float)}), path)
    rows, labels, _ = found(captured, tmp_path, Labels(uri=LABELS.uri, column="truth"))
    assert rows.rows.tolist() == [0] * 10
    np.testing.assert_array_equal(labels, firsts)
    assert labels.dtype == np.int64
    parquet.write_table(pa.table({"request_id": ids, "label": [f"digit {digit}" for digit in firsts]}), path)
    assert found(captured, tmp_path)[1].tolist() == [f"digit {digit}" for digit in firsts]


def test_broken_files_and_empty_labels_are_counted(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Half-written, empty, foreign files and labels without a value stop nothing."""
    path = shop.label(range(10))
    table = parquet.read_table(path)
    holes = pa.array([None, *shop.digits[1 : 10 * REQUEST_ROWS].tolist()])
    parquet.write_table(table.set_column(2, "label", holes), path)
    (path.parent / "cut.parquet").write_bytes(path.read_bytes()[:-100])
    (path.parent / "empty.parquet").touch()
    parquet.write_table(table.drop_columns(["label"]), path.parent / "other.parquet")
    rows, labels, set_aside = found(captured, tmp_path)
    assert len(rows) == len(labels) == 10 * REQUEST_ROWS - 1
    assert set_aside == {
        "labels that are empty or of no row": 1,
        "files of labels that cannot be read": 1,
        "files of labels that are empty or too large": 1,
        "files without labels": 1,
    }


def test_more_labels_than_the_limit_are_not_kept(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Memory is bounded, and it is said."""
    shop.label(range(10))
    rows, truth, set_aside = join(captured, LABELS, into=tmp_path, limit=15)
    assert len(rows) == len(truth.labels) == 15
    assert set_aside == {"labels beyond the limit": 10 * REQUEST_ROWS - 15}


def test_files_from_long_before_are_not_opened(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """No label is older than its request, so months of labels cost nothing."""
    path = shop.label(range(10))
    os.utime(path, (NOW - 86400, NOW - 86400))
    known = read_labels(LABELS, since=float(NOW), into=tmp_path, limit=LIMIT)
    assert not known.answers
    assert len(captured) == 10 * REQUEST_ROWS


def test_groups_and_weights_come_with_the_labels(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Of each row as its line says; a line without either, or with a weight below 0, is set aside."""
    path = shop.label(range(10))
    count = 10 * REQUEST_ROWS
    weights: list[float | None] = [float(place) for place in range(count)]
    weights[1], weights[2] = -1.0, None
    groups = [None if place == 3 else f"user {place % 5}" for place in range(count)]
    table = parquet.read_table(path).append_column("user", pa.array(groups)).append_column("w", pa.array(weights))
    parquet.write_table(table, path)
    named = Labels(uri=LABELS.uri, group_column="user", weight_column="w")
    rows, truth, set_aside = join(captured, named, into=tmp_path, limit=LIMIT)

    assert truth.groups is not None
    assert truth.weights is not None
    assert len(rows) == len(truth.groups) == count - 3
    assert truth.groups[:3].tolist() == ["user 0", "user 4", "user 0"]
    assert truth.weights[:3].tolist() == [0.0, 4.0, 5.0]
    assert set_aside == {UNWEIGHTED: 2, "labels that are empty or of no row": 1}


@pytest.mark.parametrize("column", ["group_column", "weight_column"])
def test_a_file_without_the_column_that_is_named_is_set_aside(
    shop: Shop, captured: Captured, tmp_path: Path, column: str
) -> None:
    """Rows that count alike in one file and by weight in another would be no sample of anything."""
    shop.label(range(10))
    what = "groups" if column == "group_column" else "weights"
    rows, _, set_aside = join(captured, Labels(uri=LABELS.uri, **{column: "absent"}), into=tmp_path, limit=LIMIT)

    assert len(rows) == 0
    assert set_aside == {f"files of labels without {what}": 1}
