"""Read the commands of a shell script without running or expanding anything."""

import re
from collections.abc import Iterator

_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+|\\\n|\#[^\n]*)
      | (?P<operator>&&|\|\||>>|[|;&<>()\n])
      | (?P<word>(?:'[^']*'|"(?:\\.|[^"\\])*"|\\.|[^\s'"\\|;&<>()])+)""",
    re.VERBOSE | re.DOTALL,
)
_HERE_DOCUMENT = re.compile(r"<<-?\s*(['\"]?)(\w+)\1([^\n]*)\n.*?^\s*\2$", re.DOTALL | re.MULTILINE)
_QUOTED = re.compile(r"""'([^']*)'|"((?:\\.|[^"\\])*)"|\\(.)""", re.DOTALL)
_ESCAPED = re.compile(r'\\(["\\$`\n])')
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=.*", re.DOTALL)
_SUBSTITUTED = re.compile(r"\$\((.*)\)", re.DOTALL)
_REDIRECTIONS = {">", ">>", "<"}


class NotShellError(ValueError):
    """A script cannot be read; the message says where."""


def commands(script: str) -> Iterator[list[str]]:
    """Yield the words of each command of a script, also of those whose output becomes words of others.

    Assignments before a command, redirections, comments and here-documents are left out.

    Raises:
        NotShellError: A quotation is not closed.
    """
    words: list[str] = []
    tokens = _tokens(_HERE_DOCUMENT.sub(r"\3", script))
    for kind, text in tokens:
        if text in _REDIRECTIONS and kind == "operator":
            next(tokens, None)
            words = words[:-1] if words[-1:] in (["1"], ["2"]) else words
        elif kind == "word":
            yield from (word for inner in _SUBSTITUTED.findall(text) for word in commands(inner))
            words = [] if not words and _ASSIGNMENT.fullmatch(text) else [*words, _unquoted(text)]
        else:
            yield from [words] if words else []
            words = []
    yield from [words] if words else []


def _tokens(script: str) -> Iterator[tuple[str, str]]:
    place = 0
    while place < len(script):
        token = _TOKEN.match(script, place)
        if token is None:
            raise NotShellError(f"a quotation is not closed: {script[place:].splitlines()[0]}")
        if token.lastgroup in {"operator", "word"}:
            yield token.lastgroup, token[0]
        place = token.end()


def _unquoted(word: str) -> str:
    return _QUOTED.sub(lambda part: part[1] or _ESCAPED.sub(_kept, part[2] or "") or (part[3] or ""), word)


def _kept(escaped: re.Match[str]) -> str:
    return escaped[1].strip("\n")
