"""The console that all commands print to."""

import json
import sys

import yaml
from rich.console import Console, RenderableType

from retune.api.base import Json

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


def dump(document: Json | list[Json], output: str) -> None:
    """Print a document for programs, as JSON or YAML."""
    if output == "json":
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    else:
        sys.stdout.write(yaml.safe_dump(document, sort_keys=False))
