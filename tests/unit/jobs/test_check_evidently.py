"""How Evidently's tests are imported, shown on packages that are laid out as it is."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from optimizer_jobs.commands.check.evidently_tests import tests as evidently_tests

_TESTS = "legacy/calculations/stattests.py"
Lay = Callable[[str, str], None]


def _known() -> list[str]:
    return [name for name in sys.modules if name.partition(".")[0] == "evidently"]


@pytest.fixture
def lay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Lay]:
    """Return what lays out a package of this name by the texts of its `__init__` and of its tests."""
    before = {name: sys.modules.pop(name) for name in _known()}
    monkeypatch.syspath_prepend(str(tmp_path))

    def laid(whole: str, tests: str) -> None:
        for folder in ("evidently", "evidently/legacy", "evidently/legacy/calculations"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "__init__.py").write_text("")
        (tmp_path / "evidently/__init__.py").write_text(whole)
        (tmp_path / "evidently" / _TESTS).write_text(tests)

    yield laid
    for name in _known():
        del sys.modules[name]
    sys.modules.update(before)


def test_the_rest_of_the_package_is_left_out_until_it_is_wanted(lay: Lay) -> None:
    """The package itself runs only when somebody imports it, and keeps the tests that are there already."""
    lay("from evidently.legacy.calculations.stattests import ks\nwhole = True", "ks = object()")
    found = evidently_tests()
    assert "evidently" not in sys.modules
    import evidently

    assert evidently.whole
    assert evidently.ks is found.ks
    assert evidently_tests() is found


def test_a_release_whose_tests_need_the_rest_gets_it(lay: Lay) -> None:
    """Where the tests cannot be imported alone, they are imported with the whole package."""
    lay("whole = 7", "from evidently import whole as ks")
    assert evidently_tests().ks == 7


@pytest.mark.usefixtures("lay")
def test_that_it_is_not_installed_is_said_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the error names it, as the Job's result does then."""
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(ModuleNotFoundError) as error:
        evidently_tests()
    assert error.value.name == "evidently"
    assert _known() == []
