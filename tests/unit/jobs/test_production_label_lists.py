"""Several labels a row that arrive late, as a list or as one column a label: all of them, or none of them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.production.label_columns import LIST_LIMIT
from optimizer_jobs.production.labels import OTHERS, Truth, join
from optimizer_jobs.production.windows import Captured
from retune.api.production import Labels
from tests.unit.jobs.captured_for_tests import NOW, REQUEST_ROWS, Shop

ROWS = 10 * REQUEST_ROWS
URI = "pvc://shop/labels"
LISTS, COLUMNS = Labels(uri=URI), Labels(uri=URI, columns=("even", "small", "round"))
EMPTY = "labels that are empty or of no row"


@pytest.fixture
def captured(shop: Shop, tmp_path: Path) -> Captured:
    """Ten requests of an hour."""
    shop.serve(range(10), since=NOW)
    return shop.read(tmp_path)


def sets_of(digits: NDArray[Any]) -> NDArray[np.int64]:
    """Return three labels (N, 3) of each digit: whether it is even, below five, and written with a loop."""
    return np.stack([digits % 2 == 0, digits < 5, np.isin(digits, [0, 6, 8, 9])], axis=1).astype(np.int64)


def write(shop: Shop, **columns: Any) -> None:
    """Write one file of labels for all captured rows."""
    rows = [(f"r{place // REQUEST_ROWS}", place % REQUEST_ROWS) for place in range(ROWS)]
    keys = {"request_id": [request for request, _ in rows], "row": [row for _, row in rows]}
    path = shop.root / "labels" / "sets.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pa.table(keys | columns), path)


def read(captured: Captured, tmp_path: Path, labels: Labels, limit: int = 10_000) -> tuple[Truth, dict[str, int]]:
    """Return what is known of the rows that have labels, and what was set aside."""
    _, truth, set_aside = join(captured, labels, into=tmp_path, limit=limit)
    return truth, dict(set_aside)


@pytest.mark.parametrize("kind", [pa.list_(pa.int8()), pa.list_(pa.bool_(), 3), pa.large_list(pa.float64())])
def test_a_list_has_a_zero_or_one_for_each_label(shop: Shop, captured: Captured, tmp_path: Path, kind: Any) -> None:
    """Of any length and type of list that writers use."""
    true = sets_of(shop.digits[:ROWS])
    inner = true.astype(bool) if pa.types.is_boolean(kind.value_type) else true
    write(shop, label=pa.array(inner.tolist(), kind))
    truth, set_aside = read(captured, tmp_path, LISTS)

    np.testing.assert_array_equal(truth.labels, true)
    assert truth.labels.dtype == np.int64
    assert set_aside == {}


def test_one_column_a_label_says_the_same(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """In the order in which the spec names them; a row that lacks one of them has no label."""
    true = sets_of(shop.digits[:ROWS])
    small: list[int | None] = true[:, 1].tolist()
    small[3] = None
    write(shop, round=true[:, 2].astype(float), even=true[:, 0].astype(bool), small=small)
    truth, set_aside = read(captured, tmp_path, COLUMNS)

    np.testing.assert_array_equal(truth.labels, np.delete(true, 3, axis=0))
    assert set_aside == {EMPTY: 1}


def test_a_file_that_lacks_one_of_the_columns_is_set_aside(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """So is one whose label is text: nothing is read from half of what was named."""
    true = sets_of(shop.digits[:ROWS])
    write(shop, even=true[:, 0], small=true[:, 1])
    assert read(captured, tmp_path, COLUMNS)[1] == {"files without labels": 1}
    write(shop, even=true[:, 0], small=true[:, 1], round=["yes"] * ROWS)
    assert read(captured, tmp_path, COLUMNS)[1] == {"files without labels": 1}


def test_lists_of_another_length_or_with_holes_are_counted(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """A list is whole or nothing."""
    lists: list[Any] = sets_of(shop.digits[:ROWS]).tolist()
    lists[0], lists[1], lists[2], lists[3] = [1], [1, None, 0], [], None
    write(shop, label=lists)
    truth, set_aside = read(captured, tmp_path, LISTS)

    assert truth.labels.shape == (ROWS - 4, 3)
    assert set_aside == {OTHERS: 1, EMPTY: 3}


def test_boxes_are_lists_of_lists(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """For code of the owner's own; lists whose parts differ in length are no array and count as empty."""
    boxes: list[Any] = np.arange(ROWS * 8).reshape(ROWS, 2, 4).tolist()
    boxes[0] = [[1, 2, 3, 4], [5]]
    write(shop, label=boxes)
    truth, set_aside = read(captured, tmp_path, LISTS)

    np.testing.assert_array_equal(truth.labels, np.arange(ROWS * 8).reshape(ROWS, 2, 4)[1:])
    assert set_aside == {EMPTY: 1}


def test_lists_take_their_share_of_the_limit(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """Memory is bounded by numbers, not by rows; a file of endless lists is not unpacked at all."""
    write(shop, label=np.zeros((ROWS, 160), np.int8).tolist())
    truth, _ = read(captured, tmp_path, LISTS, limit=110)
    assert len(truth.labels) == 10
    write(shop, label=np.zeros((ROWS, LIST_LIMIT + 1), np.int8).tolist())
    assert read(captured, tmp_path, LISTS)[1] == {"files of labels that are too long": 1}


def test_a_number_beyond_whole_ones_stays_a_number(shop: Shop, captured: Captured, tmp_path: Path) -> None:
    """It is no integer that any type of array holds."""
    write(shop, label=np.full(ROWS, 1e300))
    truth, _ = read(captured, tmp_path, LISTS)
    np.testing.assert_array_equal(truth.labels, np.full(ROWS, 1e300))
