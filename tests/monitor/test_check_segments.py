"""Segments through the whole check on real rows: what the whole hides is named, and nothing else is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from optimizer_jobs.commands.check import segments
from optimizer_jobs.commands.check.command import run
from optimizer_jobs.data.uris import resolve
from retune.api.model import Task
from retune.api.monitoring import Segments
from retune.api.watched import Verdict
from retune.contract.results import CheckResult
from tests.monitor.shop import FIRST, Array, Shop

ROWS = 1200
COLUMN = 27
"""A column of breast_cancer, whose largest quarter the model answers well."""
NAMED = Segments(columns=(f"x[{COLUMN}]", "x[0]"))


def lost_above(shop: Shop, share: float, *, window: int = FIRST) -> None:
    """Serve a window of which a share of the rows in the largest quarter of a column has another label."""
    shop.serve(window, rows=ROWS, labels=None)
    chosen = np.random.default_rng(window).integers(0, len(shop.inputs), ROWS)
    values, truth = shop.inputs[chosen, COLUMN], shop.truth[chosen]
    wrong = (values > np.quantile(shop.inputs[:, COLUMN], 0.75)) & (np.arange(ROWS) % 100 < 100 * share)
    shop.label([f"{window}-{place}" for place in range(ROWS)], np.where(wrong, 1 - truth, truth), f"w{window}")


def checked(shop: Shop, **changes: Any) -> CheckResult:
    """Return what the window says."""
    return run(shop.request(**changes))


def test_a_loss_that_the_whole_hides_is_named_with_its_numbers(shop: Shop) -> None:
    """Result, sentence and page say the same; the whole's quality is no breach."""
    lost_above(shop, 0.23)
    result = checked(shop, segments=NAMED)
    assert result.segment is not None
    assert result.quality is not None
    assert result.quality.verdict is not Verdict.BREACH, result.quality.message
    assert (result.segment.verdict, result.segment.reason) == (Verdict.BREACH, "SegmentLost"), result.segment.message
    worst = result.segments[0]
    assert worst.name.startswith(f"x[{COLUMN}]>")
    assert result.segment.message.startswith(f"{worst.name}: accuracy {float(worst.value or 0):.3g}, was ")
    assert f"{worst.samples} labelled rows; the whole shows " in result.segment.message
    assert result.labelled_window == FIRST
    assert result.report is not None
    page = resolve(result.report).local.read_text()
    assert "Segments: Breach: " in page
    assert page.index("<table style") < page.index(">Breach</td>") < page.index(">Clear</td>")


def test_a_quiet_window_names_none_and_chooses_what_tells_most(shop: Shop) -> None:
    """Without a word in the spec: three columns of thirty, at most eight segments in the result."""
    shop.serve(FIRST, rows=ROWS)
    result = checked(shop)
    assert result.segment is not None
    assert (result.segment.verdict, result.segment.reason) == (Verdict.CLEAR, "SegmentsKept"), result.segment.message
    assert len(result.segments) == 8
    assert len({segment.name.split(">")[0].split("<=")[0] for segment in result.segments}) <= 3


def test_columns_that_are_not_there_are_said(shop: Shop) -> None:
    """With those that there are; where one is left, it is judged."""
    shop.serve(FIRST)
    none = checked(shop, segments=Segments(columns=("region",)), drift=None).segment
    one = checked(shop, segments=Segments(columns=("region", "x[3]")), drift=None).segment
    assert none is not None
    assert one is not None
    assert (none.verdict, none.reason) == (Verdict.UNKNOWN, "SegmentsMissing")
    assert "No captured input is called region; there are x[0], x[1]" in none.message
    assert one.verdict in {Verdict.CLEAR, Verdict.BETWEEN}
    assert one.message.startswith(("x[3]", "4 segments are judged"))
    assert "No captured input is called region" in one.message


@pytest.mark.parametrize("changes", [{"segments": Segments(choose="Never")}, {"labelled": None}])
def test_nothing_is_judged_that_is_not_wanted_or_has_no_labels(shop: Shop, changes: dict[str, object]) -> None:
    """No verdict, so no signal."""
    shop.serve(FIRST)
    assert checked(shop, drift=None, **changes).segment is None


def test_answers_that_moved_in_a_segment_are_told_and_raise_nothing(shop: Shop) -> None:
    """Rows of the largest quarter alone: the others' answers are gone, and no label is needed."""
    big = np.flatnonzero(shop.inputs[:, 0] > np.quantile(shop.inputs[:, 0], 0.6))
    shop.serve(FIRST, rows=ROWS, among=big, labels=None)
    result = checked(shop, segments=Segments(columns=("x[24]",)), labelled=None)
    assert result.segment is None
    assert any(segment.drift is not None for segment in result.segments)
    assert {segment.verdict for segment in result.segments} == {Verdict.UNKNOWN}


def test_a_segment_that_is_asked_for_and_gone_is_clear(shop: Shop) -> None:
    """Otherwise a signal could stay raised of what nobody judges any more."""
    shop.serve(FIRST)
    result = checked(shop, segments=NAMED, raised_segments=("region=EU",), drift=None)
    assert (result.segments[0].name, result.segments[0].verdict) == ("region=EU", Verdict.CLEAR)


def test_what_breaks_in_segments_costs_no_other_verdict(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Quality is judged all the same, and the reason is told."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError("odd rows")

    monkeypatch.setattr(segments, "judge_segments", broken)
    shop.serve(FIRST)
    result = checked(shop, drift=None)
    assert result.segment is not None
    assert result.quality is not None
    assert (result.segment.verdict, result.segment.reason) == (Verdict.UNKNOWN, "ComparisonFailed")
    assert result.quality.verdict is Verdict.CLEAR


@pytest.mark.parametrize("task", [Task.REGRESSION, Task.MULTI_LABEL])
def test_other_tasks_are_judged_by_their_own_metric(open_shop: Callable[[Task], Shop], task: Task) -> None:
    """Wrong labels of all rows are a loss in segments, too, proven by permutation."""
    made = open_shop(task)

    def mixed(truth: Array) -> Array:
        return np.roll(truth, 7, axis=0)

    made.serve(FIRST, rows=600, labels=mixed)
    result = checked(made, segments=Segments(columns=("x[2]", "x[10]")), drift=None)
    assert result.segment is not None
    assert (result.segment.verdict, result.segment.reason) == (Verdict.BREACH, "SegmentLost"), result.segment.message
    assert "the whole has lost, too" in result.segment.message
