"""The reference of the command line: one page, generated from the parser that reads the arguments."""

import argparse
import textwrap
from collections.abc import Iterator

from tools.docs.markdown import anchor_of, code, table

_WIDTH = 10_000
"""Columns of a usage line: it is never broken."""


def command_page(parser: argparse.ArgumentParser, *, source: str) -> str:
    """Return the page; `source` is where the parser is, from the root."""
    commands = [(f"{parser.prog} {name}", words, command) for name, words, command in _commands(parser)]
    lines = [
        f"# The command line: `{parser.prog}`",
        "",
        f"<!-- Generated from {source} by `make docs`. Do not edit. -->",
        "",
        parser.description or "",
        f"Under the name `kubectl-{parser.prog}` on your PATH, kubectl finds it too: `kubectl {parser.prog}`.",
        "",
        *(f"- [{name}](#{anchor_of(name)}): {words}" for name, words, _ in commands),
        *(line for name, words, command in commands for line in _command(name, words, command)),
        "",
        "## Exit codes",
        "",
        "```text",
        *textwrap.dedent((parser.epilog or "").removeprefix("exit codes:\n")).splitlines(),
        "```",
    ]
    return "\n".join(lines) + "\n"


def _commands(parser: argparse.ArgumentParser) -> list[tuple[str, str, argparse.ArgumentParser]]:
    """Return name, help and parser of every command."""
    (commands,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    helps = {choice.dest: choice.help or "" for choice in commands._choices_actions}
    return [(name, helps[name], command) for name, command in commands.choices.items()]


def _command(name: str, words: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield from ("", f"## {name}", "", f"{words[:1].upper()}{words[1:]}.", "")
    if parser.description:
        yield from (parser.description, "")
    yield from ("```text", _usage(parser), "```", "")
    shown = sorted(_arguments(parser), key=lambda each: bool(each.option_strings))
    rows = ((_names(each), _default(each), _meaning(each, parser)) for each in shown)
    yield from table(("Argument", "Default", "Meaning"), rows)


def _arguments(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.dest != "help"]


def _usage(parser: argparse.ArgumentParser) -> str:
    formatter = argparse.HelpFormatter(parser.prog, width=_WIDTH)
    formatter.add_usage(None, _arguments(parser), parser._mutually_exclusive_groups)
    return formatter.format_help().removeprefix("usage: ").strip()


def _names(action: argparse.Action) -> str:
    if not action.option_strings:
        return code(str(action.metavar or action.dest))
    value = "" if action.nargs == 0 else f" {_value(action)}"
    return ", ".join(code(f"{option}{value}") for option in action.option_strings)


def _value(action: argparse.Action) -> str:
    if action.metavar is None and action.choices is not None:
        return f"{{{','.join(map(str, action.choices))}}}"
    return str(action.metavar or action.dest.upper())


def _default(action: argparse.Action) -> str:
    if action.required and action.option_strings:
        return "**required**"
    if action.default in (None, False, argparse.SUPPRESS) or action.default == []:
        return ""
    return code(str(action.default))


def _meaning(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    words = (action.help or "") % {**vars(action), "prog": parser.prog}
    return f"{words[:1].upper()}{words[1:]}."
