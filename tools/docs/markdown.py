"""Markdown pages as GitHub shows them: headings and their anchors, links, tables and blocks of code, read and written.

Pages are read with a CommonMark parser, so that what stands in a block of code is never taken for a link or a heading.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

_PARSER = MarkdownIt("commonmark").enable("table")
_END = Token("", "", 0)
_NO_ANCHOR = re.compile(r"[^\w\- ]")
_BAR = "\\|"
_OWN_ANCHOR = re.compile(r"""<a\s+(?:id|name)=["']([^"']+)["']""")


@dataclass(frozen=True)
class Link:
    """A link or an image."""

    target: str
    line: int


@dataclass(frozen=True)
class Block:
    """A fenced block of code."""

    language: str
    text: str
    line: int
    """Line of its fence."""
    section: str
    """Text of the heading above it."""
    file: str = ""
    """Path of the file that it is the content of, where its fence says `file=PATH`; it is no command then."""


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    header: tuple[str, ...]
    """Texts of the table's header."""
    cells: tuple[str, ...]
    """Texts of its cells, without marks."""
    codes: tuple[tuple[str, ...], ...]
    """What is marked as code, by cell."""
    section: str
    """Text of the heading above."""
    line: int


class Page:
    """One page, parsed once."""

    def __init__(self, text: str) -> None:
        self._tokens = _PARSER.parse(text)

    @classmethod
    def read(cls, path: Path) -> "Page":
        """Return the page in a file."""
        return cls(path.read_text(encoding="utf-8"))

    def anchors(self) -> frozenset[str]:
        """Return everything that a link to this page may end with: headings, as GitHub names them, and our own."""
        own = (_OWN_ANCHOR.findall(token.content) for token in self._everything() if token.type.startswith("html_"))
        return frozenset(self._headings()).union(*own)

    def _headings(self) -> Iterator[str]:
        """Yield the anchor of each heading; one that repeats gets a number."""
        seen: dict[str, int] = {}
        for token, inline, _ in self._blocks():
            if token.type == "heading_open":
                anchor = anchor_of(_text(inline))
                count = seen[anchor] = seen.get(anchor, -1) + 1
                yield f"{anchor}-{count}" if count else anchor

    def links(self) -> Iterator[Link]:
        """Yield links and images in their order."""
        for block in self._tokens:
            line = _line(block)
            for token in block.children or ():
                line += token.type in {"softbreak", "hardbreak"}
                target = token.attrs.get("href" if token.type == "link_open" else "src")
                if token.type in {"link_open", "image"} and target:
                    yield Link(str(target), line)

    def blocks(self, *languages: str) -> Iterator[Block]:
        """Yield the fenced blocks of these languages, of all where none is named."""
        for token, _, section in self._blocks():
            language, *more = token.info.split() or [""]
            file = next((word.removeprefix("file=") for word in more if word.startswith("file=")), "")
            if token.type == "fence" and (not languages or language in languages):
                yield Block(language, token.content, _line(token), section, file)

    def codes(self) -> Iterator[str]:
        """Yield what is marked as code within sentences and cells."""
        return (token.content for token in self._everything() if token.type == "code_inline")

    def rows(self) -> Iterator[Row]:
        """Yield the rows of all tables, without their headers."""
        line, header, cells = 0, list[str](), list[Token]()
        for token, inline, section in self._blocks():
            if token.type == "thead_open":
                header = []
            elif token.type == "th_open":
                header.append(_text(inline))
            elif token.type == "tr_open":
                line, cells = _line(token), []
            elif token.type == "td_open":
                cells.append(inline)
            elif token.type == "tr_close" and cells:
                yield Row(tuple(header), tuple(map(_text, cells)), tuple(map(_codes, cells)), section, line)

    def _blocks(self) -> Iterator[tuple[Token, Token, str]]:
        """Yield every token of a block, the one behind it, which may hold its text, and the heading above both."""
        section = ""
        for token, following in zip(self._tokens, [*self._tokens[1:], _END], strict=True):
            section = _text(following) if token.type == "heading_open" else section
            yield token, following, section

    def _everything(self) -> Iterator[Token]:
        for token in self._tokens:
            yield token
            yield from token.children or ()


def anchor_of(heading: str) -> str:
    """Return the anchor that GitHub gives a heading of this text when no other has it."""
    return _NO_ANCHOR.sub("", heading.lower()).replace(" ", "-")


def code(text: str) -> str:
    """Return a text marked as code."""
    return f"`{text}`"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """Yield the lines of a table."""
    for row in (header, ["---"] * len(header), *rows):
        yield f"| {' | '.join(cell.replace('|', _BAR) for cell in row)} |"


def _text(inline: Token) -> str:
    return "".join(token.content for token in inline.children or () if token.type in {"text", "code_inline"})


def _codes(inline: Token) -> tuple[str, ...]:
    return tuple(token.content for token in inline.children or () if token.type == "code_inline")


def _line(token: Token) -> int:
    return token.map[0] + 1 if token.map else 0
