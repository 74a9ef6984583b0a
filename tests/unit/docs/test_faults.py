"""The fault table and the tests agree: no number without a row, no citation that is not listed, no test that is gone.

Tests cite a fault in a docstring, as in "Fault 13: ..." or "(faults 1, 2 and 31)".
"""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "faults.md"
CITATION = re.compile(r"\bfaults? (\d+(?:(?:, | and |/)\d+)*)", re.IGNORECASE)
ROW = re.compile(r"^\| \[(\d+)\]\(#fault-(\d+)\) \|.*\| (yes|partly|no) \|$", re.MULTILINE)
SECTION = re.compile(r"^### Fault (\d+)$(.*?)(?=^### |\Z)", re.MULTILINE | re.DOTALL)
LISTED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")

Place = tuple[str, str]
"""File and name of a test."""


@cache
def page() -> str:
    """Return the text of the fault table's page."""
    return PAGE.read_text(encoding="utf-8")


def verdicts() -> dict[int, str]:
    """Return what each row says of its tests, by the fault's number."""
    return {int(number): verdict for number, _, verdict in ROW.findall(page())}


def sections() -> dict[int, str]:
    """Return the text of each fault's section, by number."""
    return {int(number): text for number, text in SECTION.findall(page())}


def listed() -> dict[int, set[Place]]:
    """Return the tests that each fault's section lists."""
    return {number: set(LISTED.findall(text)) for number, text in sections().items()}


def numbers(text: str | None) -> set[int]:
    """Return the faults that a docstring cites."""
    return {int(number) for cited in CITATION.findall(text or "") for number in re.findall(r"\d+", cited)}


@cache
def parsed(path: Path) -> ast.Module:
    """Return the syntax tree of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


def modules(*folders: str) -> Iterator[Path]:
    """Yield every module below some folders, but this one, whose docstrings are about citations."""
    for folder in folders:
        yield from (path for path in sorted((REPOSITORY / folder).rglob("*.py")) if path != Path(__file__).resolve())


def shown(path: Path) -> str:
    """Return a path as the page writes it."""
    return path.relative_to(REPOSITORY).as_posix()


def documented(tree: ast.Module) -> Iterator[tuple[str | None, str | None]]:
    """Yield name and docstring of a module, whose name is None, and of every class and function in it."""
    yield None, ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, ast.get_docstring(node)


@cache
def cited_in(path: Path) -> list[tuple[str | None, int]]:
    """Return who cites a fault in a module, by name, and its number."""
    if not CITATION.search(path.read_text(encoding="utf-8")):
        return []
    return [(name, number) for name, text in documented(parsed(path)) for number in sorted(numbers(text))]


def names_in(path: Path) -> set[str]:
    """Return the names of a module's tests: functions, classes, and names given to test cases."""
    names = set()
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign):
            names |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return {name for name in names if name.startswith(("test_", "Test"))}


def citations() -> list[tuple[str, str | None, int]]:
    """Return every citation in a test module: its file, the test's name (None for a module or a helper), the number."""
    return [
        (shown(path), name if name and name.startswith("test_") else None, number)
        for path in modules("tests")
        for name, number in cited_in(path)
    ]


def test_every_fault_has_one_row_and_one_section() -> None:
    """Numbers begin at 1 and have no gap, and each row leads to the section of its own number."""
    rows = ROW.findall(page())
    assert [int(number) for number, _, _ in rows] == list(range(1, len(rows) + 1))
    assert all(number == linked for number, linked, _ in rows)
    assert [int(number) for number, _ in SECTION.findall(page())] == list(range(1, len(rows) + 1))


def test_the_page_counts_its_rows_right() -> None:
    """What the page says of the table as a whole is what the rows say one by one."""
    counts = [list(verdicts().values()).count(verdict) for verdict in ("yes", "partly", "no")]
    words = "Of {} faults, {} are tested, {} partly and {} not yet."
    assert words.format(len(verdicts()), *counts) in page()


@pytest.mark.parametrize("folder", ["operator", "optimizer_jobs", "tests"])
def test_every_number_that_is_cited_is_in_the_table(folder: str) -> None:
    """Whoever reads a number in a docstring finds what it means."""
    cited = {number for path in modules(folder) for _, number in cited_in(path)}
    assert cited - set(verdicts()) == set()


def test_tests_do_cite_faults() -> None:
    """Guards the tests here: the search for citations finds them."""
    assert len(citations()) >= 40
    assert any(name is None for _, name, _ in citations())


def test_every_test_that_cites_a_fault_is_listed_under_it() -> None:
    """A test by its name; where a module or a helper of it cites the fault, any test of that module will do."""
    known = listed()
    missing = [
        (file, name, number)
        for file, name, number in citations()
        if not any(test == (file, name) or (name is None and test[0] == file) for test in known[number])
    ]
    assert missing == []


def test_every_test_that_is_listed_exists() -> None:
    """A test that was renamed or removed is noticed here."""
    every = {test for tests in listed().values() for test in tests}
    gone = {
        (file, name)
        for file, name in every
        if not (REPOSITORY / file).is_file() or name not in names_in(REPOSITORY / file)
    }
    assert every
    assert gone == set()


def test_a_fault_says_what_is_not_tested() -> None:
    """Where it is tested it lists tests; where that is not the whole of it, it says what is missing."""
    tests, texts = listed(), sections()
    assert [number for number, verdict in verdicts().items() if verdict != "no" and not tests[number]] == []
    silent = [
        number for number, verdict in verdicts().items() if (verdict != "yes") != ("Not tested yet:" in texts[number])
    ]
    assert silent == []
