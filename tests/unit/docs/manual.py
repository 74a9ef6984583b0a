"""The pages that people read, and the blocks of code on them."""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tools.docs.markdown import Block, Page

ROOT = Path(__file__).resolve().parents[3]
FOLDERS = ("docs", "charts", "examples", "tools")
SHELL = ("sh", "bash", "shell")
_GENERATED = ROOT / "docs" / "reference"


@dataclass(frozen=True)
class Example:
    """A block of code on a page."""

    page: Path
    block: Block

    @property
    def place(self) -> str:
        """Page and line, as editors take them."""
        return f"{self.page.relative_to(ROOT)}:{self.block.line}"


def pages() -> list[Path]:
    """Return the pages that are written by hand."""
    below = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*.md"))
    return sorted(path for path in (*ROOT.glob("*.md"), *below) if not path.is_relative_to(_GENERATED))


@cache
def examples(*languages: str) -> tuple[Example, ...]:
    """Return the blocks of these languages on all pages."""
    return tuple(Example(page, block) for page in pages() for block in Page.read(page).blocks(*languages))
