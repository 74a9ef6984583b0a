"""The console that all commands print to."""

import sys

from rich.console import Console, RenderableType

_WIDE = 160
"""Columns where there is no terminal to ask."""


def terminal() -> Console:
    """Return the console for standard output. Text of an object is never read as markup."""
    return Console(width=None if sys.stdout.isatty() else _WIDE, highlight=False, markup=False)


def show(console: Console, shown: RenderableType) -> None:
    """Print a table or a text; without blanks at the ends of lines where it goes to a file."""
    if console.is_terminal:
        console.print(shown)
        return
    with console.capture() as captured:
        console.print(shown)
    for line in captured.get().splitlines():
        console.out(line.rstrip())
