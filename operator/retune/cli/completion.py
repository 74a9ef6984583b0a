"""Completion for bash, zsh and fish: a script that is made from the parser, so that it knows what the parser knows.

Names of resources are asked of the cluster by `retune status -o name` while somebody types.
"""

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from rich.console import Console

from retune.cli.follow import Exit

_BASH = """\
_retune() {{
  local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}" command="" word words=""
  local -a reading=()
  local -i index
  for ((index = 1; index < COMP_CWORD; index++)); do
    word="${{COMP_WORDS[index]}}"
    case "$word" in
      -n|--namespace|--context) reading+=("$word" "${{COMP_WORDS[++index]}}") ;;
      -*) ;;
      *) [ -n "$command" ] || command="$word" ;;
    esac
  done
  case "$command $previous" in
{values}
    *" -n"|*" --namespace"|*" --context") return ;;
    *) case "$command" in
      "") words="{commands} -n --namespace --context --help" ;;
{options}
      esac
      case "$command" in {named})
        [[ "$current" == -* ]] || words="$words $(retune "${{reading[@]}}" status -o name 2>/dev/null)" ;;
      esac ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _retune retune kubectl-retune
"""
_ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


def add(commands: Any, top: argparse.ArgumentParser) -> None:
    """Add the command to the subparsers that argparse's `add_subparsers` returned; `top` is what they belong to."""
    sub = commands.add_parser("completion", help="print a script that completes words in a shell")
    sub.add_argument("shell", choices=("bash", "zsh", "fish"), help="the shell: source <(retune completion bash)")
    sub.set_defaults(local=lambda arguments, _console: _print(arguments, _console, top))


def _print(arguments: argparse.Namespace, _console: Console, top: argparse.ArgumentParser) -> int:
    sys.stdout.write(script(top, language=arguments.shell))
    return Exit.DONE


def script(top: argparse.ArgumentParser, *, language: str) -> str:
    """Return the script for a shell: bash, zsh or fish."""
    if language == "fish":
        return "\n".join(_fish(top)) + "\n"
    return _bash(top) if language == "bash" else _ZSH + _bash(top)


def _bash(top: argparse.ArgumentParser) -> str:
    commands = _commands(top)
    options = [f'      {name}) words="{" ".join(_words(parser))}" ;;' for name, parser in commands.items()]
    values = [
        f'    "{name} {option}") words="{" ".join(map(str, action.choices))}" ;;'
        for name, parser in commands.items()
        for action in _options(parser)
        if action.choices is not None
        for option in action.option_strings
    ]
    return _BASH.format(
        commands=" ".join(commands),
        options="\n".join(options),
        values="\n".join(values),
        named="|".join(name for name, parser in commands.items() if _takes_name(parser)),
    )


def _fish(top: argparse.ArgumentParser) -> Iterator[str]:
    commands = _commands(top)
    helps = {choice.dest: choice.help or "" for choice in _subparsers(top)._choices_actions}  # noqa: SLF001
    yield "complete -c retune -f"
    yield from (f"complete -c retune -n __fish_use_subcommand -a {name} -d {_quoted(helps[name])}" for name in commands)
    for name, parser in commands.items():
        seen = f"-n '__fish_seen_subcommand_from {name}'"
        if _takes_name(parser):
            yield f"complete -c retune {seen} -a '(retune status -o name 2>/dev/null)'"
        for action in _positionals(parser):
            yield from (f"complete -c retune {seen} -a {choice}" for choice in action.choices or ())
        yield from (f"complete -c retune {seen} {_fish_option(action)}" for action in _options(parser))


def _fish_option(action: argparse.Action) -> str:
    names = [f"-l {name[2:]}" if name.startswith("--") else f"-s {name[1:]}" for name in action.option_strings]
    value = "" if action.nargs == 0 else " -r"
    choices = f" -a '{' '.join(map(str, action.choices))}'" if action.choices is not None else ""
    words = (action.help or "") % {"default": action.default, "prog": "retune"}
    return f"{' '.join(names)}{value}{choices} -d {_quoted(words)}"


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _subparsers(top: argparse.ArgumentParser) -> "argparse._SubParsersAction[argparse.ArgumentParser]":
    actions = top._actions  # noqa: SLF001 - argparse tells its commands nowhere else
    return next(action for action in actions if isinstance(action, argparse._SubParsersAction))  # noqa: SLF001


def _commands(top: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    return dict(_subparsers(top).choices)


def _options(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if action.option_strings]  # noqa: SLF001


def _positionals(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [action for action in parser._actions if not action.option_strings]  # noqa: SLF001


def _takes_name(parser: argparse.ArgumentParser) -> bool:
    return any(action.dest == "name" for action in _positionals(parser))


def _words(parser: argparse.ArgumentParser) -> list[str]:
    """Return options and fixed words that may follow a command."""
    fixed = [str(choice) for action in _positionals(parser) for choice in action.choices or ()]
    return [*(name for action in _options(parser) for name in action.option_strings), *fixed]
