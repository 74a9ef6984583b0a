"""Evidently's statistical tests without the rest of Evidently, which takes seconds and 90 MB to import.

`import evidently` brings its pages, its server and what it knows of language models. A window without a page needs none
of that, so the package stands empty while its tests are imported. Whoever needs the whole of it, such as a page,
imports it as usual afterwards.
"""

import sys
import warnings
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType

_WHOLE = "evidently"
_TESTS = f"{_WHOLE}.legacy.calculations.stattests"


def tests() -> ModuleType:
    """Return the module with Evidently's tests; raises ModuleNotFoundError where Evidently is not installed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its dependencies use old names of NumPy's
        if _TESTS in sys.modules or _WHOLE in sys.modules:
            return import_module(_TESTS)
        try:
            return _alone()
        except (ImportError, AttributeError):  # a release of Evidently whose tests need the rest
            _forget()
            return import_module(_TESTS)


def load_whole() -> None:
    """Import all of Evidently that a page needs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import_module(_WHOLE)
        import_module(f"{_WHOLE}.presets")


def _alone() -> ModuleType:
    """Import the tests while an empty module stands for the package."""
    spec = find_spec(_WHOLE)
    if spec is None or spec.submodule_search_locations is None:
        raise ModuleNotFoundError(f"No module named {_WHOLE!r}", name=_WHOLE)
    empty = ModuleType(_WHOLE)
    empty.__path__ = list(spec.submodule_search_locations)
    sys.modules[_WHOLE] = empty
    try:
        return import_module(_TESTS)
    finally:
        if sys.modules.get(_WHOLE) is empty:
            del sys.modules[_WHOLE]


def _forget() -> None:
    """Remove what a failed import has left, so that the next one begins anew."""
    for name in [name for name in sys.modules if name.startswith(f"{_WHOLE}.")]:
        del sys.modules[name]
