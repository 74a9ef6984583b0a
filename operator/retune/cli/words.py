"""The parser of the command line: an error says what was probably meant, and shared options may come first."""

import argparse
import re
from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import NoReturn

from pydantic import TypeAdapter, ValidationError

from retune.api.base import Duration, seconds

_CHOICES = re.compile(r"invalid choice: '(?P<word>[^']*)' \(choose from (?P<known>.*)\)", re.DOTALL)
_UNKNOWN = re.compile(r"unrecognized arguments: (?P<word>--[^ =]+)")


def meant(word: str, known: Iterable[str]) -> str:
    """Return a question that offers the known word which is most like this one, or nothing where none is."""
    close = get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else ""


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors offer the word that is most like the one that was typed."""

    def error(self, message: str) -> NoReturn:
        """Say what is wrong and what was probably meant, and end with exit code 2."""
        choice, option = _CHOICES.search(message), _UNKNOWN.search(message)
        question = ""
        if choice:
            question = meant(choice["word"], re.findall(r"'([^']*)'", choice["known"]))
        elif option:
            question = meant(option["word"], _options(self))
        super().error(f"{message}; {question}" if question else message)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Yield every option of a parser and of its commands."""
    for action in parser._actions:  # noqa: SLF001 - argparse tells its options nowhere else
        yield from action.option_strings
        if isinstance(action, argparse._SubParsersAction):  # noqa: SLF001
            for command in action.choices.values():
                yield from _options(command)


def shared(*, first: bool) -> argparse.ArgumentParser:
    """Return the options of every command that reads a cluster.

    Args:
        first: Whether they stand before the command. What is left out after it takes nothing from what stood there.
    """
    default = None if first else argparse.SUPPRESS
    options = argparse.ArgumentParser(add_help=False)
    options.add_argument("-n", "--namespace", default=default, help="namespace (default: the kubeconfig's)")
    options.add_argument("--context", default=default, help="context of the kubeconfig (default: the current one)")
    return options


def duration(text: str) -> float:
    """Return a duration in seconds; argparse shows the error's sentence when it is none, or zero."""
    try:
        length = seconds(TypeAdapter(Duration).validate_python(text))
    except ValidationError:
        length = 0.0
    if length <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no duration: write it like 90s, 10m or 1h30m")
    return length
