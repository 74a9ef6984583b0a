"""docs/troubleshooting.md explains every reason that a condition can have, and none that it cannot."""

from pathlib import Path

import pytest

from retune.api.status import ConditionType
from retune.contract.results import Reason
from tests.unit.docs.reasons import Reader
from tests.unit.docs.sources import modules_of
from tools.docs.markdown import Page

ROOT = Path(__file__).resolve().parents[3]
PAGE = Page.read(ROOT / "docs" / "troubleshooting.md")
EXPLAINING = {"Reason", "Stage", "Word"}
"""First columns of the tables that explain reasons, or the parts they are put together from."""


def explained() -> set[str]:
    """Every reason that the page explains."""
    return {word for row in PAGE.rows() if row.header[0] in EXPLAINING for word in row.codes[0]}


@pytest.fixture(scope="module")
def settable() -> set[str]:
    """Every reason that operator and Jobs can set; the command line sets none."""
    operator = ROOT / "operator" / "retune"
    modules = modules_of([operator, ROOT / "optimizer_jobs"], without=[operator / "cli"])
    return Reader(modules).reasons() | {reason.value for reason in Reason}


@pytest.mark.slow
def test_every_reason_is_explained(settable: set[str]) -> None:
    """Whoever adds a reason says what it means and what to do."""
    assert settable - explained() == set()


@pytest.mark.slow
def test_no_other_reason_is_explained(settable: set[str]) -> None:
    """Whoever renames or removes a reason finds its old name here."""
    assert explained() - settable == set()


def test_every_explanation_is_whole() -> None:
    """What it means and what to do are said of each; only a reason that is of no window leaves its cell empty."""
    filled = ("What it means", "What to do", "What happens", "Status")
    cells = [zip(row.header, row.cells, strict=True) for row in PAGE.rows() if row.header[0] in EXPLAINING]
    assert [name for row in cells for name, text in row if name in filled and not text] == []


def test_every_condition_has_a_section() -> None:
    """Conditions are found by their name in the table of contents."""
    assert {kind.value for kind in ConditionType} - {row.section for row in PAGE.rows()} == set()
