"""The checker of links: it finds what is broken, and only that."""

import subprocess
from pathlib import Path

import pytest

from tools.docs import links
from tools.docs.links import Repository

GUIDE = """# The guide: `retune` & more

## Same

## Same

<a id="own"></a>

| a |
| --- |
| <a id="cell"></a>x |
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with a page to lead to, a script, and a file that git ignores."""
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "guide.md").write_text(GUIDE)
    (tmp_path / "a file.py").write_text("1\n2\n")
    (tmp_path / "built.md").write_text("# Built\n")
    (tmp_path / ".gitignore").write_text("built.md\n")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    return tmp_path


PLACES = ("docs/guide.md", "docs", "docs/", "./docs/../docs/guide.md", "/docs/guide.md", "a%20file.py", "#here")
HEADINGS = ("the-guide-retune--more", "same", "same-1", "own", "cell")
LINES = ("a%20file.py#L2", "a%20file.py#L1-L2")
ELSEWHERE = ("https://example.dev/x#y", "mailto:someone@example.dev")


@pytest.mark.parametrize("target", [*PLACES, *(f"docs/guide.md#{heading}" for heading in HEADINGS), *LINES, *ELSEWHERE])
def test_a_link_that_leads_somewhere_is_fine(target: str, root: Path) -> None:
    """Files, folders, headings, anchors of our own and lines of code; addresses of other sites are not looked at."""
    (root / "README.md").write_text(f"# Here\n\n[text]({target})\n")
    assert list(Repository(root).faults()) == []


@pytest.mark.parametrize(
    ("target", "fault"),
    [
        ("docs/gide.md", "git holds no docs/gide.md"),
        ("Docs/guide.md", "git holds no Docs/guide.md"),
        ("../elsewhere.md", "git holds no ../elsewhere.md"),
        ("built.md", "git holds no built.md"),
        ("docs/guide.md#sane", "docs/guide.md has no heading #sane"),
        ("docs/guide.md#same-2", "docs/guide.md has no heading #same-2"),
        ("#there", "README.md has no heading #there"),
        ("docs#guide", "a folder has no headings"),
        ("a%20file.py#L3", "a file.py has 2 lines and no #L3"),
        ("a%20file.py#top", "a file.py has 2 lines and no #top"),
    ],
)
def test_a_broken_link_is_named_with_its_place(target: str, fault: str, root: Path) -> None:
    """Page, line, link and what is wrong with it; what git does not hold is not there, and names are exact."""
    (root / "README.md").write_text(f"# Here\n\nA sentence\nand [text]({target})\n")
    assert list(Repository(root).faults()) == [f"README.md:4: {target}: {fault}"]


def test_links_of_every_form_are_looked_at(root: Path) -> None:
    """Images, references and links in tables and lists; what stands in code is no link."""
    links = ("![picture](a.png)", "- [one][two]", "| x |\n| --- |\n| [y](b.md) |")
    no_links = ("`[z](c.md)`", "    [w](d.md)", "[two]: e.md")
    (root / "README.md").write_text("\n\n".join((*links, *no_links)))
    assert [fault.split(": ")[1] for fault in Repository(root).faults()] == ["a.png", "e.md", "b.md"]


def test_the_exit_code_tells(root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """So that `make lint` stops at a broken link, and says which."""
    monkeypatch.chdir(root)
    assert links.main() == 0
    (root / "README.md").write_text("[text](docs/gide.md)\n")
    assert links.main() == 1
    assert capsys.readouterr().err == "README.md:1: docs/gide.md: git holds no docs/gide.md\n"
