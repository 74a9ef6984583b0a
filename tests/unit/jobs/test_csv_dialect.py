"""Tables as office software writes them: the same rows, whatever their encoding, delimiter and decimal mark."""

from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from optimizer_jobs.data.csv_dialect import Dialect, dialect_of
from optimizer_jobs.data.readers import Columns, UnreadableDataError, open_columns
from retune.api.model import CsvFormat, DatasetFormat

TABLE = pd.DataFrame(
    {
        "größe": [170.5, 181.0, 165.2],
        "prénom": ["André", "Zoë", "Jürgen"],
        "Preis": [19.99, 5.0, 1234.5],
        "label": [0, 1, 0],
    }
)
WRITTEN: dict[str, dict[str, Any]] = {
    "utf-8": {"encoding": "utf-8"},
    "utf-8 with a mark": {"encoding": "utf-8-sig"},
    "latin-1": {"encoding": "latin-1"},
    "windows": {"encoding": "cp1252", "sep": ";", "decimal": ","},
    "utf-16": {"encoding": "utf-16"},
    "utf-16, office": {"encoding": "utf-16", "sep": "\t", "decimal": ","},
    "office": {"encoding": "utf-8", "sep": ";", "decimal": ","},
    "semicolons and points": {"encoding": "utf-8", "sep": ";"},
    "bars": {"encoding": "utf-8", "sep": "|"},
}


def read(path: Path, csv_format: CsvFormat | None = None) -> Columns:
    """Open a table."""
    return open_columns(path, DatasetFormat.CSV, limit_bytes=1 << 20, csv_format=csv_format)


@pytest.mark.parametrize("name", WRITTEN)
def test_the_same_rows_come_out_of_every_dialect(name: str, tmp_path: Path) -> None:
    """Names, texts and numbers are those that were written."""
    path = tmp_path / "table.csv"
    TABLE.to_csv(path, index=False, **WRITTEN[name])
    columns = read(path)
    assert columns.names == tuple(TABLE.columns)
    for column in TABLE:
        assert columns.read(str(column)).tolist() == TABLE[column].tolist()


def test_what_is_not_the_usual_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A reader of the log sees how a table was understood, and nothing where it is plain."""
    path = tmp_path / "table.csv"
    TABLE.to_csv(path, index=False)
    read(path)
    assert capsys.readouterr().out == ""
    TABLE.to_csv(path, index=False, **WRITTEN["windows"])
    read(path)
    assert "read as cp1252, cells separated by ';', decimal mark ','" in capsys.readouterr().out


def test_a_spec_that_says_it_is_believed(tmp_path: Path) -> None:
    """What cannot be found, such as another code page, is read as the spec says."""
    path = tmp_path / "table.csv"
    path.write_bytes("miasto;cena\nŁódź;1,5\nGdańsk;2,5\n".encode("cp1250"))
    columns = read(path, CsvFormat(encoding="cp1250", delimiter=";", decimal=","))
    assert columns.read("miasto").tolist() == ["Łódź", "Gdańsk"]
    assert columns.read("cena").tolist() == [1.5, 2.5]


@pytest.mark.parametrize(
    ("content", "encoding", "says"),
    [
        (b"a,b\n1,2\n", "utf-99", "csv.encoding 'utf-99' is no encoding"),
        (b"a,b\n\xff\xfe\x81,2\n", None, "neither UTF-8 nor UTF-16 with a byte order mark: set csv.encoding"),
        ("a,b\n1,2\n".encode("utf-16-le"), None, "set csv.encoding"),
        (b"gr\xf6\xdfe,b\n1,2\n", "utf-8", "its text is not utf-8: set csv.encoding"),
        (b"a,b\n1,2\n3\n", None, "not a readable CSV file"),
    ],
)
def test_what_cannot_be_read_is_a_sentence(content: bytes, encoding: str | None, says: str, tmp_path: Path) -> None:
    """Never a traceback: the sentence says what is wrong and which setting helps."""
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    with pytest.raises(UnreadableDataError) as caught:
        read(path, CsvFormat(encoding=encoding))
    assert says in str(caught.value)


def test_a_comma_in_text_is_no_decimal_mark(tmp_path: Path) -> None:
    """A column of words with commas leaves the numbers beside it as they are."""
    path = tmp_path / "table.csv"
    path.write_text("name;price\nSmith, J.;1.5\nDoe, A.;2.5\n")
    assert dialect_of(path) == Dialect("utf-8", ";", ".")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=st.binary(max_size=300))
def test_any_bytes_are_a_table_or_a_sentence(content: bytes, tmp_path: Path) -> None:
    """Nothing but the reader's own error leaves it, whatever the file holds."""
    path = tmp_path / "table.csv"
    path.write_bytes(content)
    try:
        columns = read(path)
        values = [columns.read(name) for name in columns.names]
    except UnreadableDataError:
        return
    assert len({len(column) for column in values}) <= 1
