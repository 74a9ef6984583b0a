"""How the live model looks to a person: no alarm is hidden, none is made up, and data cannot draw."""

from datetime import timedelta
from typing import Any

import pytest

from retune.api.objects import ModelOptimization
from retune.api.watched import Pending, Signal, Verdict, WatchedSegment
from retune.cli import explaining, tables, watching
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
        (Verdict.UNTRUSTED, False, "untrusted"),
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


def test_an_estimate_is_shown_with_its_interval_and_the_share_outside() -> None:
    """Without a number, the share says why there is none."""
    said = Signal(
        name="EstimatedQuality", verdict=Verdict.CLEAR, value="0.95", low="0.93", high="0.97", outside="0.012"
    )
    line = "Estimated  0.95, 95 % between 0.93 and 0.97, without labels; 1.2 % of the rows outside the reference"
    assert line in drawn(watched(signals=(said,))).splitlines()
    silent = Signal(name="EstimatedQuality", verdict=Verdict.UNTRUSTED, outside="0.41", message="It is not estimated.")
    text = drawn(watched(signals=(silent,)))
    assert "no value: 41 % of the rows outside the reference" in text
    assert "It is not estimated." in text


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


LOST = WatchedSegment(
    name="[red]EU[/]=x", verdict=Verdict.BREACH, raised=True, streak=3, value="0.71", reference="0.93", samples=412
)
KEPT = WatchedSegment(
    name="region=US", verdict=Verdict.CLEAR, value="0.95", reference="0.94", samples=1500, rows=2100, drift="0.2"
)


def test_segments_that_have_lost_are_in_one_line_and_all_in_a_table() -> None:
    """A name from production data is no markup; what is well is in the table alone."""
    resource = watched(segments=(LOST, KEPT))
    assert "Lost in  [red]EU[/]=x (0.71, was 0.93)" in drawn(resource).splitlines()
    table = watching.segments(resource)
    assert table is not None
    lines = shelf.drawn(table, width=120).splitlines()
    assert lines[1].split() == ["[red]EU[/]=x", "raised", "0.71", "0.93", "412", "0", "-"]
    assert lines[2].split() == ["region=US", "ok", "0.95", "0.94", "1,500", "2,100", "0.2"]
    said = [answer for question, answer in explaining.answers(resource, now=shelf.NOW) if question == "Segment"]
    assert said == ["[red]EU[/]=x is raised: 0.71, was 0.93, 412 labelled rows"]
    assert watching.segments(watched()) is None


def test_a_segment_that_was_bad_once_is_counted_against_what_raises_it() -> None:
    """Like a signal."""
    table = watching.segments(watched(segments=(LOST.model_copy(update={"raised": False, "streak": 1}),)))
    assert table is not None
    assert " bad 1/2 " in shelf.drawn(table, width=120)
