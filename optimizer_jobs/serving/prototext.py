"""Write protobuf's text format, as far as a server's configuration needs it. The same fields give the same bytes."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Word:
    """The name of an enum's value, which is written without quotation marks."""

    name: str


Value: TypeAlias = "str | int | Word | tuple[int, ...] | Fields"
"""A text, a number, an enum's value, a list of numbers, or a message."""
Fields: TypeAlias = list[tuple[str, "Value"]]
"""A message: its fields in order. A repeated field is there several times, or once as a list of numbers."""

_ESCAPED = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


def text(message: Fields) -> str:
    """Return a message as text, a field a line."""
    return "\n".join(_lines(message)) + "\n"


def _lines(message: Sequence[tuple[str, Value]]) -> list[str]:
    return [line for name, value in message for line in _field(name, value)]


def _field(name: str, value: Value) -> list[str]:
    if isinstance(value, list):
        return [f"{name} {{", *(f"  {line}" for line in _lines(value)), "}"]
    return [f"{name}: {_scalar(value)}"]


def _scalar(value: str | int | Word | tuple[int, ...]) -> str:
    match value:
        case Word(name):
            return name
        case str():
            return f'"{quoted(value)}"'
        case tuple():
            return f"[{', '.join(map(str, value))}]"
        case _:
            return str(value)


def quoted(value: str) -> str:
    """Return a text as it stands between quotation marks; what is not plain ASCII is written as octal bytes."""
    return "".join(_ESCAPED.get(letter) or _plain(letter) for letter in value)


def _plain(letter: str) -> str:
    return letter if " " <= letter <= "~" else "".join(f"\\{byte:03o}" for byte in letter.encode())
