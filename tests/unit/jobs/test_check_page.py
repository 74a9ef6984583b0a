"""A window's page says of every signal what its verdict says, and nothing in the data is markup."""

from html import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.check.column_statistics import Kind
from optimizer_jobs.commands.check.drift import Compared, Findings
from optimizer_jobs.commands.check.page import _completed
from optimizer_jobs.commands.check.segment_losses import Standing
from optimizer_jobs.commands.check.segment_verdict import Segmented, badness, segment_of, summary
from optimizer_jobs.commands.check.told import Told, above
from retune.api.metrics import Metric
from retune.api.monitoring import Quality, Segments
from retune.api.watched import Verdict
from retune.contract.results import SignalVerdict

HEADLINE = "Dataset Drift is {}detected. Dataset drift detection threshold is 0.5"
BARE = f"<html><head><title>t</title></head><body class='a'><div>{HEADLINE}</div></body></html>"
CLEAR = SignalVerdict(verdict=Verdict.CLEAR, reason="ShareBelowClear", message="0 of 3 columns drifted")
NOTHING = Findings((), (), (), proven=False, prediction=False)
verdicts = st.builds(
    SignalVerdict,
    verdict=st.sampled_from(Verdict),
    reason=st.just("SomeReason"),
    message=st.sampled_from(["<b>x</b> by 0.4", "few rows", "it broke (E: 1 < 2)"]),
    estimated=st.just(value=False),
)


@pytest.mark.parametrize("without", ["", "NOT "])
@pytest.mark.parametrize("verdict", Verdict)
def test_the_headline_is_the_verdict_whatever_was_counted(verdict: Verdict, without: str) -> None:
    """Only a breach is detected drift, and only a clear window is none."""
    page = _completed(BARE.format(without), verdict, "<p>told</p>")
    assert ("Dataset Drift is detected" in page) is (verdict is Verdict.BREACH)
    assert ("Dataset Drift is NOT detected" in page) is (verdict is Verdict.CLEAR)
    assert "threshold" not in page
    assert "<body class='a'><p>told</p><div>" in page
    assert page.index("Content-Security-Policy") < page.index("<title>")


@pytest.mark.parametrize(
    "page", ["<html><head></head><body></body></html>", f"<body>{HEADLINE.format('')}</body>", f"<head>{HEADLINE}"]
)
def test_a_page_of_an_unknown_form_is_none(page: str) -> None:
    """Nobody knows what its headline would say."""
    with pytest.raises(ValueError, match="no head, no body or no headline"):
        _completed(page, Verdict.UNKNOWN, "")


@given(
    drift=verdicts,
    quality=st.none() | verdicts,
    headroom=st.none() | verdicts,
    segment=st.none() | verdicts,
    labelled=st.none() | st.integers(0, 9),
)
def test_every_signal_is_told_as_it_is_judged_and_no_other(
    drift: SignalVerdict,
    quality: SignalVerdict | None,
    headroom: SignalVerdict | None,
    segment: SignalVerdict | None,
    labelled: int | None,
) -> None:
    """With the window that it is of, where labels are of an earlier one."""
    told = Told(drift, quality, headroom, Segmented(segment), window=9, labelled=labelled)
    words = above(told, NOTHING, shown=0)
    late = "" if labelled in {None, 9} else f" of window {labelled}, {9 - (labelled or 0)} earlier"
    every = {"Drift": drift, f"Quality{late}": quality, f"Headroom{late}": headroom, f"Segments{late}": segment}
    judged = {name: verdict for name, verdict in every.items() if verdict is not None}
    for name, verdict in judged.items():
        assert words.count(f">{name}: {verdict.verdict}: {escape(verdict.message)}</p>") == 1
    assert words.count("<p ") == len(judged)


def test_an_estimate_is_of_the_window_itself_and_called_so() -> None:
    """Whatever window labels are of."""
    estimate = CLEAR.model_copy(update={"estimated": True, "message": "accuracy is 0.9"})
    words = above(Told(CLEAR, estimate, window=9, labelled=8), NOTHING, shown=0)
    assert ">Estimated quality: Clear: accuracy is 0.9</p>" in words
    assert "earlier" not in words


@given(count=st.integers(0, 90))
def test_columns_that_are_not_listed_or_shown_are_counted(count: int) -> None:
    """Of many, the first are listed, and nothing in a name is markup."""
    columns = (Compared(f"<i>{n}</i>", "Wasserstein", 0.4, 0.0, 99, Kind.NUMERIC, drifted=True) for n in range(count))
    findings = Findings(tuple(columns), (), (), proven=True, prediction=False)
    words = above(Told(CLEAR), findings, shown=min(count, 60))
    assert words.count("<li>") == min(count, 20) + (count > 20)
    assert (f"<li>and {count - 20} more</li>" in words) is (count > 20)
    assert (f">Of {count} compared columns, 60 are shown.</p>" in words) is (count > 60)
    assert "<i>" not in words


standing = st.builds(
    Standing,
    value=st.floats(0, 1),
    reference=st.floats(0, 1),
    loss=st.floats(-0.5, 0.5),
    samples=st.integers(30, 9999),
    adjusted=st.floats(0, 0.01),
)


@given(
    found=st.dictionaries(st.sampled_from(["<b>region</b>=EU", "age>31 to 45", "device missing"]), standing),
    late=st.booleans(),
)
def test_the_page_says_of_segments_what_the_verdict_says(found: dict[str, Standing], *, late: bool) -> None:
    """Of bad windows, of clear ones and of those that say nothing: a row a segment, the worst first, and no markup."""
    settings = Segments()
    judged = summary(Metric.ACCURACY, settings, Quality(), found, None)
    segments = [segment_of(name, 99, found.get(name), None, settings) for name in [*found, "region=other"]]
    segmented = Segmented(judged, tuple(sorted(segments, key=badness)))
    page = above(Told(CLEAR, segmented=segmented, window=9, labelled=9 - late), NOTHING, shown=0)
    assert (f"Segments of window 8, 1 earlier: {judged.verdict}: " in page) is late
    assert (f"Segments: {judged.verdict}: " in page) is not late
    assert all((f">{head} in window 8</th>" in page) is late for head in ("verdict", "quality", "labelled rows"))
    assert page.count("<tr>") == 2 + len(found)
    assert page.count("<td") == 7 * (1 + len(found))
    assert (">Breach</td>" in page) == (judged.verdict is Verdict.BREACH)
    assert "<b>region" not in page
    if found:
        worst = segmented.segments[0]
        assert worst.verdict is judged.verdict
        assert page.index(f"{escape(worst.name)}</td>") < page.index("region=other</td>")


def test_a_page_of_a_window_without_segments_has_no_table() -> None:
    """As where none are judged."""
    assert "<table" not in above(Told(CLEAR, segmented=Segmented(None)), NOTHING, shown=0)
