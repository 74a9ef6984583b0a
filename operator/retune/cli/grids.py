"""The two forms that everything is shown in: a table like kubectl's, and names beside sentences."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

_WRAPPED = {"MESSAGE", "REASON", "CHANGE", "CHAMPION", "CANDIDATE", "ORIGINAL", "WHAT"}
"""Columns that may take several lines."""


def blank(*columns: str, namespace: bool = False) -> Table:
    """Return an empty table like kubectl's: without lines, and the last column takes the rest of the width.

    Args:
        columns: Headings.
        namespace: Whether a column NAMESPACE comes first.
    """
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    names = ["NAMESPACE", *columns] if namespace else list(columns)
    for name in names:
        table.add_column(name, no_wrap=name not in _WRAPPED, overflow="fold" if name in _WRAPPED else "ellipsis")
    return table


def grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Return names beside sentences; a name that comes several times in a row is shown once."""
    table, last = Table.grid(padding=(0, 2)), ""
    for name, sentence in rows:
        table.add_row("" if name == last else name, Text(sentence))
        last = name
    return table
