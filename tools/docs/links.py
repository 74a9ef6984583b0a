"""Check the links of every Markdown page of the repository: `python -m tools.docs.links`.

Files, folders and headings that are linked must be there for whoever clones the repository: what git does not hold
does not count. Nothing is asked of the network, so addresses of other sites are not looked at.
"""

import posixpath
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tools.docs.markdown import Page

_LINES = re.compile(r"L(\d+)(?:-L(\d+))?")


def main() -> int:
    """Say what is wrong, one line a link; returns 1 when anything is."""
    faults = list(Repository(Path.cwd()).faults())
    for fault in faults:
        sys.stderr.write(f"{fault}\n")
    return 1 if faults else 0


class Repository:
    """The files that git holds, and the pages among them."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.files = _tracked(root)
        self._folders = {folder for file in self.files for folder in _folders_of(file)}
        self._pages: dict[str, Page] = {}

    @property
    def pages(self) -> list[str]:
        """Paths of the Markdown pages, from the root."""
        return sorted(file for file in self.files if file.endswith(".md"))

    def page(self, name: str) -> Page:
        """Return a page, parsed once."""
        if name not in self._pages:
            self._pages[name] = Page.read(self._root / name)
        return self._pages[name]

    def faults(self) -> Iterator[str]:
        """Yield `page:line: link: what is wrong with it` for every broken link."""
        for name in self.pages:
            for link in self.page(name).links():
                fault = self._fault(link.target, name)
                if fault is not None:
                    yield f"{name}:{link.line}: {link.target}: {fault}"

    def _fault(self, target: str, page: str) -> str | None:
        parts = urlsplit(target)
        if parts.scheme or parts.netloc:
            return None
        path = unquote(parts.path)
        if not path:
            return self._no_anchor(page, parts.fragment)
        place = posixpath.normpath(posixpath.join("" if path[0] == "/" else posixpath.dirname(page), path.lstrip("/")))
        if place in self._folders:
            return "a folder has no headings" if parts.fragment else None
        return self._no_anchor(place, parts.fragment) if place in self.files else f"git holds no {place}"

    def _no_anchor(self, file: str, anchor: str) -> str | None:
        """Return what is wrong with the part of a link behind the `#`, if anything."""
        if not anchor:
            return None
        if file.endswith(".md"):
            return None if unquote(anchor) in self.page(file).anchors() else f"{file} has no heading #{anchor}"
        lines = _LINES.fullmatch(anchor)
        count = len((self._root / file).read_text(encoding="utf-8").splitlines())
        if lines is None or any(int(number) > count for number in lines.groups() if number):
            return f"{file} has {count} lines and no #{anchor}"
        return None


def _tracked(root: Path) -> frozenset[str]:
    """Return the files that git holds, or would add, as paths from the root."""
    words = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(words, cwd=root, capture_output=True, check=True, text=True).stdout
    return frozenset(name for name in listed.split("\0") if name and (root / name).is_file())


def _folders_of(file: str) -> Iterator[str]:
    while file:
        file = posixpath.dirname(file)
        yield file or "."


if __name__ == "__main__":
    sys.exit(main())
