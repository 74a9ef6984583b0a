"""Numbers as people write them: read where a whole column is written so, and left as text everywhere else."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.data.readers import Columns, open_columns
from optimizer_jobs.data.spellings import grouped_numbers, words_as_numbers
from retune.api.model import DatasetFormat


def read(path: Path, content: str) -> Columns:
    """Write a table and open it."""
    path.write_text(content)
    return open_columns(path, DatasetFormat.CSV, limit_bytes=1 << 20)


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1), st.sampled_from([".", ","]))
def test_separators_of_thousands_do_not_change_numbers(numbers: list[int], decimal: str) -> None:
    """Property: a number is the same with and without them, in both traditions."""
    mark = "," if decimal == "." else "."
    written = np.asarray([f"{number:,}".replace(",", mark) for number in numbers], dtype=object)
    given_numbers = grouped_numbers(written, decimal=decimal)
    if any(abs(number) >= 1000 for number in numbers):
        assert given_numbers is not None
        assert given_numbers.tolist() == numbers
    else:
        assert given_numbers is None


@pytest.mark.parametrize("cells", [["1,23"], ["1,234", "red"], ["12,34,567"], ["1,234", "1 234"]])
def test_other_cells_keep_a_column_text(cells: list[str]) -> None:
    """One cell that is no such number, and nothing is read otherwise."""
    assert grouped_numbers(np.asarray(cells, dtype=object), decimal=".") is None


def test_tables_of_thousands_are_read_in_both_traditions(tmp_path: Path) -> None:
    """Quoted commas beside points, and points beside decimal commas; an empty cell is missing."""
    english = read(tmp_path / "e.csv", 'price,name\n"1,234.5",a\n"12,000",b\n,c\n7,d\n')
    np.testing.assert_array_equal(english.read("price"), [1234.5, 12000, np.nan, 7])
    german = read(tmp_path / "g.csv", "price;name\n1.234,5;a\n12.000,0;b\n7,0;c\n")
    np.testing.assert_array_equal(german.read("price"), [1234.5, 12000, 7])


@pytest.mark.parametrize(
    ("cells", "numbers"),
    [
        (["yes", "no", "Yes"], [1, 0, 1]),
        (["TRUE", "False", ""], [1, 0, np.nan]),
        (["y", None, "N"], [1, np.nan, 0]),
        (["yes", "false"], None),
        (["", ""], None),
        (["red", "no"], None),
    ],
)
def test_words_for_one_and_zero_come_from_one_pair(cells: list[str | None], numbers: list[float] | None) -> None:
    """Mixed pairs are no truth values, and an empty column says nothing."""
    read_as = words_as_numbers(np.asarray(cells, dtype=object))
    if numbers is None:
        assert read_as is None
    else:
        assert read_as is not None
        np.testing.assert_array_equal(read_as[0], numbers)


def test_dates_and_codes_stay_as_they_are_written(tmp_path: Path) -> None:
    """A date is text, and a code keeps its zeros for whoever takes text."""
    columns = read(tmp_path / "t.csv", "when,code\n2026-01-02,007\n2026-01-03 04:05:06,010\n")
    assert columns.read("when").tolist() == ["2026-01-02", "2026-01-03 04:05:06"]
    assert columns.read_text("code").tolist() == ["007", "010"]


def test_a_row_is_found_by_its_line(tmp_path: Path) -> None:
    """Empty lines and cells of several lines are counted as editors count them."""
    columns = read(tmp_path / "t.csv", 'a,b\n1,x\n\n2,"y\nz"\n3,w\n')
    assert [columns.place(row) for row in range(3)] == ["line 2", "line 4", "line 6"]
