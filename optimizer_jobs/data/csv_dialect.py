"""How a text table is written: its encoding, what separates cells, and the decimal mark.

Found from the first lines, as office software writes them, unless the spec says it. What cannot be told is an error
with the setting that helps; whoever reads the table says when it is not the usual UTF-8 with commas.
"""

import codecs
import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from retune.api.model import CsvFormat

_DELIMITERS = (",", ";", "\t", "|")
_MARKS = {codecs.BOM_UTF8: "utf-8", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""Byte order marks, and the encoding that each one stands for."""
_FALLBACK = "cp1252"
"""What office software in western languages writes when it does not write UTF-8."""
_LINES, _LINE_LIMIT = 50, 1 << 20
_BLOCK, _START = 1 << 20, 1 << 12
_CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1f]")
"""What no text has in an encoding of one byte a character."""
_GROUPED_COMMA_NUMBER = re.compile(r"[+-]?\d{1,3}(\.\d{3})+,\d+")
"""A number with points between thousands and a decimal comma, which nothing else looks like."""
_COMMA_NUMBER, _POINT_NUMBER = re.compile(r"[+-]?\d+,\d+"), re.compile(r"[+-]?\d+\.\d+")


class UnknownDialectError(ValueError):
    """The encoding cannot be told or does not exist; the message is a sentence."""


@dataclass(frozen=True)
class Dialect:
    """How a text table is written."""

    encoding: str = "utf-8"
    delimiter: str = ","
    decimal: str = "."

    @property
    def words(self) -> str:
        """The dialect in words, such as `cp1252, cells separated by ';', decimal mark ','`."""
        return f"{self.encoding}, cells separated by {self.delimiter!r}, decimal mark {self.decimal!r}"


def dialect_of(path: Path, asked: CsvFormat | None = None) -> Dialect:
    """Return how the table at `path` is written; what `asked` says is not looked for.

    Raises:
        UnknownDialectError: The encoding is none that is known, or the bytes are not text in it.
    """
    asked = asked or CsvFormat()
    encoding = _known(asked.encoding) if asked.encoding else _encoding(path)
    lines = _first_lines(path, encoding)
    delimiter = asked.delimiter or _delimiter(lines)
    decimal = asked.decimal or _decimal(lines, delimiter)
    return Dialect(encoding, delimiter, decimal)


def _known(encoding: str) -> str:
    try:
        return codecs.lookup(encoding).name
    except LookupError as error:
        raise UnknownDialectError(f"csv.encoding {encoding!r} is no encoding that Python knows.") from error


def _encoding(path: Path) -> str:
    """Return what a byte order mark says, else UTF-8 where the whole file is UTF-8, else the western fallback."""
    with path.open("rb") as file:
        start = file.read(_START)
    marked = next((encoding for mark, encoding in _MARKS.items() if start.startswith(mark)), None)
    if marked is not None:
        return marked
    if _CONTROL.search(start):
        raise UnknownDialectError("it holds control characters, as packed files and UTF-16 do: set csv.encoding.")
    for encoding in ("utf-8", _FALLBACK):
        if _decodes(path, encoding):
            return encoding
    raise UnknownDialectError("its text is neither UTF-8 nor UTF-16 with a byte order mark: set csv.encoding.")


def _decodes(path: Path, encoding: str) -> bool:
    decoder = codecs.getincrementaldecoder(encoding)()
    try:
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def _first_lines(path: Path, encoding: str) -> list[str]:
    try:
        with path.open(encoding=encoding, newline="") as file:
            lines = [file.readline(_LINE_LIMIT) for _ in range(_LINES)]
    except (UnicodeError, ValueError) as error:
        raise UnknownDialectError(f"its text is not {encoding}: set csv.encoding.") from error
    return [line for line in lines if line.strip()]


def _delimiter(lines: Sequence[str]) -> str:
    """Return what splits the lines into the most columns, as many in each line; a comma where nothing does."""
    widths = {delimiter: {len(cells) for cells in _cells(lines, delimiter)} for delimiter in _DELIMITERS}
    even = {delimiter: width for delimiter, width in widths.items() if len(width) == 1 and max(width) > 1}
    return max(even, key=lambda delimiter: max(even[delimiter]), default=",")


def _decimal(lines: Sequence[str], delimiter: str) -> str:
    """Return `,` where cells below the header are numbers with a comma and none has a point."""
    if delimiter == ",":
        return "."
    cells = [cell.strip() for row in _cells(lines[1:], delimiter) for cell in row]
    if any(_GROUPED_COMMA_NUMBER.fullmatch(cell) for cell in cells):
        return ","
    commas = any(_COMMA_NUMBER.fullmatch(cell) for cell in cells)
    return "," if commas and not any(_POINT_NUMBER.fullmatch(cell) for cell in cells) else "."


def line_of(path: Path, dialect: Dialect, row: int) -> int:
    """Return the line, from 1, on which the row at index `row` begins; the header and empty lines are no rows."""
    with path.open(encoding=dialect.encoding, newline="") as file:
        reader = csv.reader(file, delimiter=dialect.delimiter)
        begins, rows = 1, -1
        for cells in reader:
            rows += bool(cells)
            if rows > row:
                return begins
            begins = reader.line_num + 1
    return begins


def _cells(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return list(csv.reader(lines, delimiter=delimiter))
    except csv.Error:
        return []
