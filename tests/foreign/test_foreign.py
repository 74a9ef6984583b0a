"""Models that nobody here made: each is delivered, measured and judged right, by checks that use none of our code."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.foreign import independent
from tests.foreign.corpus import CORPUS
from tests.foreign.delivered import Foreign
from tests.foreign.local import Budget, optimize

BUDGET = Budget()
REFUSED = 2
"""Exit code of a model that cannot be taken."""


def _parameters(*, refused: bool) -> list[object]:
    return [
        pytest.param(foreign, id=foreign.name, marks=[pytest.mark.slice] if foreign.slice else [])
        for foreign in CORPUS
        if (foreign.refused is not None) is refused
    ]


def _need(foreign: Foreign) -> None:
    absent = [package for package in foreign.packages if find_spec(package) is None]
    if absent:
        pytest.skip(f"{foreign.name} is made with {', '.join(absent)}, which `make test-foreign` installs")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("foreign", _parameters(refused=False))
def test_a_model_of_others_is_delivered_measured_and_judged_right(foreign: Foreign, tmp_path: Path) -> None:
    """Version 1 answers as the model's own library, numbers can be recomputed, and the verdict follows from them."""
    _need(foreign)
    files = tmp_path / "models"
    files.mkdir()
    delivered = foreign.make(files)
    ended = optimize(delivered, tmp_path, BUDGET)
    assert ended.document, ended.said
    independent.check_version_1(ended, delivered)
    independent.check_candidate(ended, delivered)
    independent.check_verdict(ended, delivered)
    assert ended.searched <= BUDGET.longest


@pytest.mark.timeout(600)
@pytest.mark.parametrize("foreign", _parameters(refused=True))
def test_what_cannot_be_taken_is_refused_in_words(foreign: Foreign, tmp_path: Path) -> None:
    """One sentence that names what is wrong, before anything was searched, and no traceback."""
    _need(foreign)
    files = tmp_path / "models"
    files.mkdir()
    ended = optimize(foreign.make(files), tmp_path, BUDGET)
    assert ended.code == REFUSED, ended.said
    assert foreign.refused is not None
    assert foreign.refused in ended.said
    assert "Traceback" not in ended.said
    assert "==> search" not in ended.said
