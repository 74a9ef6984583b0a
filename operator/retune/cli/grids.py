"""The two shapes that all pictures are made of: a table in kubectl's manner, and names beside sentences."""

from collections.abc import Iterable

from rich.table import Table
from rich.text import Text

_WRAPPED = {"MESSAGE", "REASON", "CHANGE", "CHAMPION", "CANDIDATE", "ORIGINAL"}
"""Columns that may take several lines."""


def blank(*columns: str, namespace: bool = False) -> Table:
    """Return an empty table in kubectl's manner: no lines, and the last column takes what is left."""
    found = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    names = ["NAMESPACE", *columns] if namespace else list(columns)
    for name in names:
        found.add_column(name, no_wrap=name not in _WRAPPED, overflow="fold" if name in _WRAPPED else "ellipsis")
    return found


def grid(rows: Iterable[tuple[str, str]]) -> Table:
    """Return names beside sentences; a name that repeats is said once."""
    found, last = Table.grid(padding=(0, 2)), ""
    for name, words in rows:
        found.add_row("" if name == last else name, Text(words))
        last = name
    return found
