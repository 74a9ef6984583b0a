"""Names of modules: none is that of a module of Python's own."""

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]


def test_no_module_has_the_name_of_one_of_pythons_own() -> None:
    """A script started in any folder finds the standard library, because nothing of ours stands in front of it."""
    files = {
        file for top in ("operator/retune", "optimizer_jobs", "tools") for file in (REPOSITORY / top).rglob("*.py")
    }
    shadowing = {str(file.relative_to(REPOSITORY)) for file in files if file.stem in sys.stdlib_module_names}
    assert files
    assert shadowing == set()
