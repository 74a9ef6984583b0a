"""A fit that nothing can interrupt is left behind at the deadline, and otherwise fits as it does alone."""

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from sklearn.base import BaseEstimator
from sklearn.svm import SVC

from optimizer_jobs.machinery.estimators.growth import grown
from optimizer_jobs.technique import StoppedEarlyError

X, Y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2


class Endless(BaseEstimator):  # type: ignore[misc] # the library has no types
    """Fits until it is told to end, like one long call of compiled code."""

    def __init__(self, end: threading.Event | None = None) -> None:
        self.end = end

    def fit(self, _x: Any, _y: Any) -> "Endless":
        """Wait."""
        assert self.end is not None
        self.end.wait(60)
        return self


@pytest.fixture
def end() -> Iterator[threading.Event]:
    """The end of a fit that was left behind, set at the latest when the test ends."""
    event = threading.Event()
    yield event
    event.set()


def _no_report(_stage: int, _estimator: Any) -> None:
    """Let every stage go on."""


def test_a_fit_that_cannot_be_interrupted_is_left_behind(end: threading.Event) -> None:
    """The search goes on with what the clock raises, while the library is still fitting."""

    def over() -> None:
        raise StoppedEarlyError("given up: over")

    with pytest.raises(StoppedEarlyError, match="given up: over"):
        grown(Endless(end), X, Y, report=_no_report, threads=1, check_time=over)
    assert not end.is_set()


def test_what_a_fit_raises_is_raised() -> None:
    """An estimator that cannot be fitted so is no deadline."""
    with pytest.raises(ValueError, match="number of classes"):
        grown(SVC(), X, np.zeros(20), report=_no_report, threads=1)


def test_a_fit_within_its_time_is_the_librarys_own() -> None:
    """Nothing of the answer depends on who waited."""
    fitted = grown(SVC(), X, Y, report=_no_report, threads=1, check_time=lambda: None)
    np.testing.assert_array_equal(fitted.decision_function(X), SVC().fit(X, Y).decision_function(X))
