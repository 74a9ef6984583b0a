"""How the live model looks to a person: no alarm is hidden, none is made up, and data cannot draw."""

from datetime import timedelta
from typing import Any

import pytest

from retune.api.objects import ModelOptimization
from retune.api.watched import Pending, Signal, Verdict
from retune.cli import tables, watching
from tests.unit.cli import shelf


def watched(**changes: Any) -> ModelOptimization:
    """The watched resource with another watch."""
    resource = shelf.resource("watched")
    assert resource.status.monitoring is not None
    monitoring = resource.status.monitoring.model_copy(update=changes)
    return resource.model_copy(update={"status": resource.status.model_copy(update={"monitoring": monitoring})})


def held(**changes: Any) -> ModelOptimization:
    """The watched resource with other triggers, and nothing watched."""
    resource = shelf.resource("watched")
    triggers = resource.status.triggers.model_copy(update=changes)
    status = resource.status.model_copy(update={"triggers": triggers, "monitoring": None})
    return resource.model_copy(update={"status": status})


def drawn(resource: ModelOptimization, *, width: int = 120) -> str:
    """The whole picture."""
    return shelf.drawn(tables.picture(resource, now=shelf.NOW), width=width)


@pytest.mark.parametrize(
    "verdict,raised,words",
    [
        (Verdict.BREACH, True, "raised"),
        (Verdict.UNKNOWN, True, "raised"),
        (Verdict.BREACH, False, "bad"),
        (Verdict.BETWEEN, False, "ok"),
        (Verdict.CLEAR, False, "ok"),
        (Verdict.UNKNOWN, False, "unknown"),
    ],
)
def test_a_signal_has_one_state(verdict: Verdict, raised: bool, words: str) -> None:  # noqa: FBT001 - a table's column
    """An alarm outlives windows that say nothing, and one bad window is not an alarm."""
    assert watching.state(Signal(name="Drift", verdict=verdict, raised=raised)) == words


def test_bad_windows_are_counted_against_those_that_raise_the_signal() -> None:
    """How near an alarm is can be seen; an estimate raises none, so it has no such number."""
    both = (
        Signal(name="Drift", verdict=Verdict.BREACH, streak=1),
        Signal(name="EstimatedQuality", verdict=Verdict.BREACH, streak=5),
    )
    drift, estimate = (line for line in drawn(watched(signals=both)).splitlines() if " bad " in line)
    assert drift.split()[:3] == ["Drift", "bad", "1/2"]
    assert estimate.split()[:3] == ["EstimatedQuality", "bad", "-"]


def test_a_value_of_an_earlier_window_says_how_long_ago_that_was() -> None:
    """An estimate that nobody has made since says nothing of the window above it."""
    both = (Signal(name="Quality", window=40, value="0.67"), Signal(name="EstimatedQuality", window=20, value="0.999"))
    quality, estimate = (line for line in drawn(watched(window=40, signals=both)).splitlines() if "Quality " in line)
    assert "(" not in quality
    assert "20 (20 ago)" in estimate


def test_before_the_first_window_it_says_so() -> None:
    """Nothing is called fine that nobody has looked at."""
    text = drawn(watched(window=None, window_end=None, samples=None, signals=(), drifted_columns=(), report_uri=None))
    assert "Window   none was judged yet" in text
    assert "SIGNAL" not in text


def test_what_does_not_fit_and_what_was_passed_over_are_told() -> None:
    """Violations are not drift, and windows that nobody judged are counted."""
    lines = drawn(watched(violations=("Column a is missing.", "Column b is new."), skipped_windows=3)).splitlines()
    assert "Violation  Column a is missing." in lines
    assert "           Column b is new." in lines
    assert any(line.startswith("Window") and line.endswith("; 3 passed over") for line in lines)


def test_names_of_columns_are_shown_as_they_are() -> None:
    """A column's name that reads as markup neither vanishes nor breaks the picture."""
    assert "mean[radius], [/red], [bold]" in drawn(watched(drifted_columns=("mean[radius]", "[/red]", "[bold]")))


def test_what_waits_is_told_without_a_watch() -> None:
    """A schedule or a delivered file waits with its sentence, and an open circuit names its reason."""
    pending = Pending(reason="Schedule", since=shelf.NOW - timedelta(minutes=5), message="scheduled for 04:55 UTC")
    lines = drawn(held(pending=(pending,), held=None, circuit="Exhausted", no_gain_streak=3)).splitlines()
    assert "Pending   Schedule for 5m: scheduled for 04:55 UTC" in lines
    assert "Circuit   open: Exhausted" in lines
    assert any(line.startswith("Cooldown") and line.endswith("(3 without gain in a row)") for line in lines)


@pytest.mark.parametrize("width", [80, 120])
def test_no_number_of_a_signal_is_cut(width: int) -> None:
    """On a small terminal every signal keeps its name, its state and its numbers."""
    text = drawn(shelf.resource("watched"), width=width)
    assert "…" not in text
    for words in ("Drift             raised   26.7 %   20 %", "EstimatedQuality  ok       0.9536   0.9542"):
        assert words in text
