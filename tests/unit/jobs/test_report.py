"""The page: everything in it is escaped, it is the same for the same document, and it stays readable at any size."""

import html
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.by_class import ClassLine
from optimizer_jobs.commands.judge.report import pictures
from optimizer_jobs.commands.judge.report.document import (
    Distribution,
    Environment,
    Estimate,
    FinalistRow,
    LatencyProfile,
    MarginLine,
    ModelRow,
    Report,
    Spread,
    StepLine,
    TechniqueLine,
    TrialLine,
)
from optimizer_jobs.commands.judge.report.render import render
from optimizer_jobs.measure.stats import Interval
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Selection, default_objectives
from retune.api.search import Serving
from retune.contract.requests import BundleRef
from retune.contract.results import CandidateSummary, JudgeResult, Verdict
from tests.answers import WORTH

OBJECTIVES = default_objectives(Task.CLASSIFICATION)

HOSTILE = "<script>alert('1')</script> & \"quoted\" $x^2$ {{ 7*7 }} </svg><img src=x onerror=alert(1)>"
EXACT = Estimate(value=1.0, low=1.0, high=1.0, samples=1)
RATIO = Estimate(value=0.5, low=0.49, high=0.52, samples=2000)
PROFILE = LatencyProfile(calls=2000, rounds=40, first_call_ms=3.0, percentiles=tuple(1 + n / 100 for n in range(99)))
DIGEST = "sha256:" + "a" * 64
START = StepLine(
    step="engine options only",
    trial=2,
    judged=False,
    quality=0.962,
    size_ratio=1.0,
    latency_ratio=0.99,
    noise=0.1,
    bought="Nothing measurable.",
)
BUNDLE = BundleRef(uri="pvc://a/b", digest=DIGEST)


def model_fields(name: str) -> dict[str, Any]:
    """Return the fields that champion and finalists share."""
    return {
        "digest": DIGEST,
        "plan": name,
        "techniques": (name,),
        "engine": name,
        "latency": PROFILE,
        "metrics": {
            Metric.ACCURACY: Estimate(value=0.96, low=0.94, high=0.98, samples=500),
            Metric.LATENCY_P50_MS: RATIO,
            Metric.LATENCY_P95_MS: RATIO,
            Metric.SIZE_BYTES: Estimate(value=1e6, low=1e6, high=1e6, samples=1),
        },
    }


def finalist(name: str) -> FinalistRow:
    """Return a finalist of this name."""
    ratios = {Metric.LATENCY_P50_MS: RATIO, Metric.LATENCY_P95_MS: RATIO, Metric.SIZE_BYTES: EXACT}
    return FinalistRow(
        **model_fields(name),
        trial=1,
        outcome="Chosen",
        why=name,
        ratios=ratios,
        confidence=0.95,
        p_value=0.5,
        differences={Metric.ACCURACY: Estimate(value=-0.002, low=-0.01, high=0.006, samples=500)},
        gained=1,
        lost=2,
        agreement=Estimate(value=0.99, low=0.98, high=1.0, samples=500),
        checks=(),
    )


def environment(name: str, *, noise: str | None, doubt: str | None) -> Environment:
    """Return where a run was measured."""
    return Environment(
        fingerprint="amd64",
        cpu=name,
        features=("avx2",),
        cpu_limit=2.0,
        memory_limit=None,
        threads=1,
        serving=Serving(),
        runtimes={name: name},
        seed=0,
        data={name: name},
        noise=noise,
        self_ratio=RATIO,
        doubt=doubt,
    )


def judged(name: str, verdict: Verdict) -> JudgeResult:
    """Return what the judge says of a candidate made by this technique."""
    return JudgeResult(
        spec_hash=name,
        run=name,
        champion_digest=DIGEST,
        verdict=verdict,
        reason="Because",
        message=name,
        candidate=CandidateSummary(bundle=BUNDLE, size_bytes=1, techniques=(name[:64],)),
        report="pvc://a/report.html",
        fingerprint="amd64",
    )


def left_out(name: str) -> TechniqueLine:
    """Return the line of a technique that was not tried."""
    return TechniqueLine(
        name=name,
        outcome="LeftOut",
        trials=0,
        trial=None,
        quality=None,
        latency_ratio=None,
        size_ratio=None,
        note=name,
    )


def document(
    *,
    name: str = "int8",
    trials: int = 3,
    verdict: Verdict = Verdict.PROMOTE,
    noise: str | None = None,
    doubt: str | None = None,
) -> Report:
    """Return a report in which every text that a stranger may choose is `name`."""
    line = {"outcome": "feasible", "plan": name, "note": name, "values": {Metric.ACCURACY: 0.96}, "seconds": 1.5}
    step = StepLine(
        step=name, trial=1, judged=True, quality=0.96, size_ratio=0.3, latency_ratio=0.9, noise=0.02, bought=name
    )
    shrunk = {Metric.SIZE_BYTES: 0.3, Metric.LATENCY_P95_MS: 0.9}
    return Report(
        result=judged(name, verdict),
        resource=name,
        trigger=name,
        learned_from=name,
        objectives=OBJECTIVES,
        selection=Selection(),
        test_rows=500,
        champion=ModelRow(**model_fields(name)),
        finalists=(finalist(name),),
        trials=tuple(TrialLine(number=n, ratios=shrunk, finalist=n == 1, **line) for n in range(trials)),
        steps=(START, step),
        start_quality=0.962,
        techniques=(left_out(name),),
        distribution=None,
        classes=(ClassLine(label=name, rows=50, champion=0.9, candidate=0.8, gained=0, lost=5, p_value=0.01),),
        margins=(MarginLine(margin=0.01, shown="1.0", rows=2000, chosen=True),),
        environment=environment(name, noise=noise, doubt=doubt),
    )


class Structure(HTMLParser):
    """Collects the elements and attributes of a page, and whether every element is closed in order."""

    VOID = frozenset({"meta", "br", "img", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element and its attributes."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element that closes itself."""
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_endtag(self, tag: str) -> None:
        """Check that what closes was opened last."""
        assert self.open.pop() == tag


def structure(page: str) -> Structure:
    """Parse a page."""
    found = Structure()
    found.feed(page)
    return found


def test_the_page_says_what_was_learned_from() -> None:
    """Where the run had data of its own; where it had that of the spec, nothing is said of it."""
    words = "Chosen to learn from: Mixed: log-loss 0.41"
    told = document().model_copy(update={"learned_from": words})
    assert f"<li>data: {words}</li>" in render(told)
    assert "<li>data: " not in render(told.model_copy(update={"learned_from": None}))


def test_hostile_names_change_nothing_but_the_text() -> None:
    """Markup in every name a stranger can choose gives the same elements and attributes as plain names."""
    plain, hostile = structure(render(document())), structure(render(document(name=HOSTILE)))

    assert hostile.tags == plain.tags
    assert hostile.attributes == plain.attributes
    assert hostile.open == []
    assert not {"script", "img", "iframe", "link", "a"} & hostile.tags
    assert not any(name.startswith("on") for name in hostile.attributes)


def test_hostile_names_are_shown_as_they_are_written() -> None:
    """A name is neither dropped nor evaluated: the reader sees every character of it."""
    page = render(document(name=HOSTILE))

    assert html.unescape(page).count(HOSTILE) > 10
    assert "{{ 7*7 }}" in html.unescape(page)


def test_page_forbids_itself_to_load_or_run_anything() -> None:
    """A content policy allows inline styles only."""
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'\"" in render(document())


def test_same_document_gives_the_same_page() -> None:
    """Pictures included: no date, no random id."""
    assert render(document()) == render(Report.model_validate_json(document().model_dump_json()))


def test_ids_of_the_pictures_are_unique_on_the_page() -> None:
    """Two pictures on one page must not refer to each other's parts."""
    ids = re.findall(r'\bid="([^"]+)"', render(document()))

    assert len(ids) == len(set(ids))


def test_thousand_trials_stay_below_a_megabyte_and_keep_the_finalist() -> None:
    """Long tables are cut with a note; the document has every trial."""
    report = document(name="n" * 200, trials=1000)
    page = render(report)

    assert len(page.encode()) < 1_000_000
    assert "300 of 1000 trials" in page
    assert len(report.trials) == 1000


@pytest.mark.parametrize(
    ("verdict", "title"),
    [
        (Verdict.PROMOTE, "A better model was found"),
        (Verdict.NO_GAIN, "The champion stays: nothing gains enough"),
        (Verdict.GATE_FAILED, "The champion stays: no finalist keeps every limit"),
    ],
)
def test_title_says_how_it_ended(verdict: Verdict, title: str) -> None:
    """A reader knows from the first line whether anything changes."""
    assert f"<h1>{title}</h1>" in render(document(verdict=verdict))


def test_noisy_node_is_named_where_latency_is_shown() -> None:
    """Numbers that did not count are marked as such."""
    page = render(document(noise="the node was busy"))

    assert "not judged" in page
    assert "MeasurementUnreliable: the node was busy" in page
    assert "widened" not in page


def test_restless_node_is_named_and_latency_still_counts() -> None:
    """Intervals that were widened are shown with why."""
    page = render(document(doubt="two copies differed"))

    assert "The node was restless: two copies differed. Intervals of latency were widened by as much." in page
    assert "not judged" not in page


def test_what_a_winner_is_worth_is_told_with_its_limit_and_what_it_is_not() -> None:
    """Before and after with intervals, and the sentence that this was no load test."""
    report = document()
    judged_worth = report.result.model_copy(update={"worth": WORTH})
    page = render(report.model_copy(update={"result": judged_worth, "worth": "it waits <5 ms"}))

    assert "What it is worth" in page
    assert all(number in page for number in ("120", "118 to 123", "480", "x4.00", "x3.80 to x4.20"))
    assert "While it waits &lt;5 ms. A replay" in page
    assert "no load test" in page


def test_why_nothing_is_said_of_a_worth_is_told() -> None:
    """A reader does not look for numbers in vain; a report of an earlier release has no such section."""
    page = render(document().model_copy(update={"worth": "calls were timed in 8 rounds only"}))

    assert "Nothing is said: calls were timed in 8 rounds only." in page
    assert "What it is worth" not in render(document())


def test_report_without_trials_has_no_picture_of_them() -> None:
    """Nothing to show is shown as nothing: what is left are latencies and steps."""
    assert render(document(trials=0)).count("<svg") == 2


def test_report_without_steps_has_no_waterfall() -> None:
    """Where only engine options changed, there is nothing to break down."""
    assert render(document().model_copy(update={"steps": (START,)})).count("<svg") == 2


def test_a_loss_that_the_judge_cannot_tell_from_none_is_not_called_one() -> None:
    """Two thousandths with an interval of sixteen are grey; six hundredths are amber."""
    start, step = document().steps
    small = document().model_copy(update={"steps": (start, step)})
    large = document().model_copy(update={"steps": (start, step.model_copy(update={"quality": 0.90}))})

    assert pictures.REFUSED not in str(pictures.waterfall(small))
    assert pictures.REFUSED in str(pictures.waterfall(large))


def test_a_step_that_nobody_tried_alone_is_shown_as_unknown() -> None:
    """A gap in the chain of trials is written into the picture; no level is made up for it."""
    gap = START.model_copy(update={"trial": None, "quality": None, "size_ratio": None, "latency_ratio": None})
    known, unknown = document(), document().model_copy(update={"steps": (START, gap, *document().steps[1:])})

    assert "not tried on its own" in render(unknown)
    assert "not tried on its own" not in render(known)


@pytest.mark.parametrize(("what", "title"), [("residual", "Residuals"), ("similarity", "Similarity to the model")])
def test_spread_of_a_regression_or_an_embedding_has_its_picture(what: str, title: str) -> None:
    """The page has one more picture, and the percentiles of both models in figures."""
    spread = Spread(mean=0.5, low=0.1, high=0.97, percentiles=(0.2, 0.3, 0.4321, 0.6, 0.9), counts=(3, 5, 2))
    edges = (0.1, 0.4, 0.7, 1.0)
    found = Distribution.model_validate({"what": what, "edges": edges, "champion": spread, "candidate": spread})
    page = render(document().model_copy(update={"distribution": found}))

    assert page.count("<svg") == 4
    assert f"<h2>{title}" in page
    assert page.count(">0.4321") == 2


def test_techniques_that_are_not_in_the_candidate_say_why() -> None:
    """A technique that was left out is on the page with its reason."""
    line = TechniqueLine(
        name="prune",
        outcome="LeftOut",
        trials=0,
        trial=None,
        quality=None,
        latency_ratio=None,
        size_ratio=None,
        note="there is no training data.",
    )
    page = render(document().model_copy(update={"techniques": (line,)}))

    assert "left out" in page
    assert "there is no training data." in page


@pytest.mark.parametrize(
    ("count", "expected"),
    [(12, "12 B"), (999, "999 B"), (77_100, "77.1 kB"), (999_960, "1.0 MB"), (8_600_000, "8.6 MB"), (2.5e9, "2.5 GB")],
)
def test_sizes_are_written_with_their_unit(count: float, expected: str) -> None:
    """Bytes as people write them."""
    assert words.size(count) == expected


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (Interval(0.25, low=0.24, high=0.26, samples=1), "4.0x faster"),
        (Interval(0.96, low=0.95, high=0.97, samples=1), "1.04x faster"),
        (Interval(1.3, low=1.2, high=1.4, samples=1), "1.3x slower"),
        (Interval(0.9, low=0.8, high=1.1, samples=1), "not measurably different"),
        (Interval.exact(1.0), "unchanged"),
    ],
)
def test_ratio_is_only_called_a_difference_when_its_interval_says_so(ratio: Interval, expected: str) -> None:
    """An interval that holds 1 is no difference."""
    assert words.times(ratio, better="faster", worse="slower") == expected


@pytest.mark.parametrize(
    ("difference", "expected"), [(0.0, "+0"), (-0.0000123, "-0.0000123"), (0.25, "+0.250"), (-12.3, "-12.3")]
)
def test_change_of_an_error_has_three_digits(difference: float, expected: str) -> None:
    """In the unit of the error, without an exponent."""
    assert words.change(Metric.RMSE, difference) == expected


@pytest.mark.parametrize("share", [-0.0004, 0.0, 0.0004])
def test_nothing_is_never_written_as_minus_nothing(share: float) -> None:
    """Small differences round to +0.0 points."""
    assert words.points(share) == "+0.0"
