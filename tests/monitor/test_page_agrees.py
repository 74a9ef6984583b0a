"""A window's page and its verdicts agree, for every kind of verdict and every state of it, with real Evidently.

Each window of the table is made, checked as a Job does it, and its page is read: the headline says of drift what the
verdict says and never the opposite, the marked columns are the drifted ones, every bad signal is named, each signal
stands there once with its verdict and sentence or not at all, and what labels of an earlier window tell says so.
"""

import html
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from optimizer_jobs.commands.check import command, headroom, page, quality_verdict, segments
from optimizer_jobs.commands.check.command import run
from optimizer_jobs.commands.check.drift import compare
from optimizer_jobs.commands.check.drift_verdict import judge
from optimizer_jobs.commands.check.told import Told
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from optimizer_jobs.signature import Reading, Scale
from retune.api.model import Task
from retune.api.monitoring import Drift, Headroom, Quality, Segments
from retune.api.watched import Verdict
from retune.contract.requests import Window
from retune.contract.results import CheckResult, SignalVerdict
from tests.monitor.shop import FIRST, HOUR, Array, Shop

BREACH, BETWEEN, CLEAR, UNKNOWN, UNTRUSTED = Verdict
ROWS = 400
HEADLINES = {
    BREACH: "Dataset Drift is detected",
    CLEAR: "Dataset Drift is NOT detected",
    BETWEEN: "Dataset Drift is neither proven nor ruled out",
    UNKNOWN: "Dataset Drift is not judged",
}
SEEN = Quality(min_labels=100, max_degradation="0.1", clear_degradation="0.06")
NEVER = SEEN.model_copy(update={"estimate": "Never"})
BY_SIZE = Segments(columns=("x[0]",), max_degradation="0.2")
NO_SEGMENTS = Segments(choose="Never")
Made = Callable[[Array, Array], Array]
"""Takes inputs (N, F) and what is true of them (N,), and returns labels (N,), or a mask (N,) of the rows with one."""


@dataclass(frozen=True)
class Case:
    """A window of the table, and what it says."""

    says: Mapping[str, tuple[Verdict, str]]
    """Verdict and reason of each signal that is judged."""
    change: Callable[[Array], Array] = np.asarray
    labels: Made | None = lambda _inputs, truth: truth
    kept: Made | None = None
    """Which rows have a label; None: all."""
    asks: Mapping[str, Any] = field(default_factory=dict)
    """What the request has of its own."""
    answers: Callable[[Array], Array] | None = None
    """What becomes of the champion's answered classes."""
    late: bool = False
    """Whether the labels are those of the window before, which has the same rows without the change."""
    learns: bool = False
    """Whether headroom is asked, with two windows before."""
    breaks: tuple[Any, str] | None = None
    """Module and name of a part that breaks."""
    page: bool = True
    wide: bool = False
    """Whether all columns are one wide input, as those of an image are."""
    words: tuple[str, ...] = ()
    """What the page says besides."""


def moved(*places: int, by: float = 1.5) -> Callable[[Array], Array]:
    """Move columns by so many standard deviations."""

    def change(inputs: Array) -> Array:
        changed = inputs.copy()
        changed[:, places] += by * changed[:, places].std(axis=0)
        return changed

    return change


def holes(inputs: Array) -> Array:
    """Leave two columns of six."""
    changed = inputs.copy()
    changed[:, :4] = np.nan
    return changed


def milliseconds(inputs: Array) -> Array:
    """Multiply a column by 1000."""
    changed = inputs.copy()
    changed[:, 2] *= 1000
    return changed


def wrong(share: float) -> Made:
    """Give a share of the rows another label."""
    return lambda _inputs, truth: np.where(np.random.default_rng(0).random(len(truth)) < share, 1 - truth, truth)


def other_world(inputs: Array, truth: Array) -> Array:
    """Let a column decide that the champion does not see so: what labelled rows know and it does not."""
    return np.where(inputs[:, 1] > np.median(inputs[:, 1]), 1 - truth, truth)


def large_are_wrong(inputs: Array, truth: Array) -> Array:
    """Give rows in the largest quarter of a column another label."""
    return np.where(inputs[:, 0] > np.quantile(inputs[:, 0], 0.75), 1 - truth, truth)


def few(_inputs: Array, truth: Array) -> Array:
    """Label 20 rows."""
    return np.arange(len(truth)) < 20


def highest(inputs: Array, _truth: Array) -> Array:
    """Label the rows that are highest in a column."""
    return np.asarray(inputs[:, 1] > np.quantile(inputs[:, 1], 0.85))


QUIET = {"drift": (CLEAR, "ShareBelowClear")}
UNMOVED = {"drift": (CLEAR, "MovedColumnsCarryLittle")}
DRIFTED = {"drift": (BREACH, "PredictionDrifted")}
KEPT, LOST = {"quality": (CLEAR, "LossSmall")}, {"quality": (BREACH, "LossProven")}
DEAF: dict[str, Any] = {"segments": NO_SEGMENTS, "quality": None}
LISTENING: dict[str, Any] = {"segments": NO_SEGMENTS, "quality": SEEN}
UNLABELLED: dict[str, Any] = {"segments": NO_SEGMENTS, "quality": SEEN, "labelled": None}
ALIKE = Drift(weigh="Never", share="0.5", clear_share="0.1")

TABLE: dict[str, Case] = {
    "nothing": Case(QUIET | KEPT, asks=LISTENING, page=False),
    "drift": Case(DRIFTED, moved(0, 1, 2, 3), asks=DEAF, words=("carries",)),
    "drift of inputs that carry": Case(
        {"drift": (BREACH, "ShareAboveLimit")}, moved(1, by=0.6), asks=DEAF, words=("x[1] by",)
    ),
    "drift of answers alone": Case(DRIFTED, answers=np.ones_like, asks=DEAF),
    "neither drift nor none": Case({"drift": (BETWEEN, "ShareBetween")}, moved(4), asks=DEAF | {"drift": ALIKE}),
    "drift that carries nothing": Case(UNMOVED, moved(4, 5), asks=DEAF, words=("carries nothing",)),
    "one wide input": Case(DRIFTED, moved(0, 1, 2, 3), asks=DEAF, wide=True, words=("x by ",)),
    "another unit": Case(DRIFTED, milliseconds, asks=DEAF, words=("as if multiplied by 1000, like seconds",)),
    "columns without values": Case(
        {"drift": (UNKNOWN, "NoValues")}, holes, asks=DEAF | {"drift": Drift(columns=("x[0]", "x[1]", "x[4]"))}
    ),
    "too few rows": Case({"drift": (UNKNOWN, "TooFewSamples")}, asks=DEAF | {"min_samples": 900}, page=False),
    "a comparison that broke": Case(
        {"drift": (UNKNOWN, "ComparisonFailed"), **LOST},
        moved(0),
        labels=wrong(0.3),
        asks=LISTENING,
        breaks=(command, "compare"),
        page=False,
    ),
    "weights that broke": Case(
        DRIFTED, moved(0, 1, 2, 3), asks=DEAF, breaks=(command, "weigh"), words=("count alike",)
    ),
    "a schema that broke": Case(QUIET, asks=DEAF, breaks=(command, "violations")),
    "lost quality": Case(QUIET | LOST, labels=wrong(0.3), asks=LISTENING),
    "quality lost a little": Case(
        UNMOVED | {"quality": (BETWEEN, "LossBetween")}, moved(4, 5), labels=wrong(0.1), asks=LISTENING
    ),
    "drift and lost quality": Case(DRIFTED | LOST, moved(0, 2, 3), labels=wrong(0.3), asks=LISTENING),
    "drift, and quality kept": Case({"drift": (BREACH, "ShareAboveLimit"), **KEPT}, moved(1, by=0.6), asks=LISTENING),
    "drift, and few labels": Case(
        {**DRIFTED, "quality": (UNKNOWN, "TooFewLabels")},
        moved(0, 1, 2, 3),
        kept=few,
        asks=LISTENING | {"quality": NEVER},
    ),
    "labels that are not representative": Case(
        {**DRIFTED, "quality": (UNTRUSTED, "LabelsNotRepresentative")}, moved(0, 2, 3), kept=highest, asks=LISTENING
    ),
    "weights of labels that broke": Case(
        DRIFTED | LOST,
        moved(0, 2, 3),
        labels=wrong(0.3),
        asks=LISTENING,
        breaks=(quality_verdict, "selection_of"),
        words=("Whether labelled rows are like the others could not be judged (ZeroDivisionError: odd rows)",),
    ),
    "labels that broke": Case(
        {**DRIFTED, "quality": (UNKNOWN, "ComparisonFailed")},
        moved(0, 2, 3),
        asks=LISTENING,
        breaks=(quality_verdict, "_measured"),
    ),
    "an estimate that drift makes uncertain": Case(
        {"drift": (BREACH, "ShareAboveLimit"), "quality": (BETWEEN, "EstimateUncertain")},
        moved(1, by=0.6),
        labels=None,
        asks=UNLABELLED,
    ),
    "an estimate of strange rows": Case(
        {**DRIFTED, "quality": (UNTRUSTED, "OutsideReference")},
        lambda inputs: inputs + 6 * inputs.std(axis=0),
        labels=None,
        asks=UNLABELLED,
    ),
    "an estimate that broke": Case(
        {**DRIFTED, "quality": (UNTRUSTED, "ComparisonFailed")},
        moved(0, 2, 3),
        labels=None,
        asks=UNLABELLED,
        breaks=(quality_verdict, "_estimated"),
    ),
    "no label is due": Case(
        {**DRIFTED, "quality": (UNKNOWN, "NoLabels")},
        moved(0, 2, 3),
        labels=None,
        asks=UNLABELLED | {"quality": NEVER},
    ),
    "headroom": Case(
        QUIET | LOST | {"headroom": (BREACH, "HeadroomProven")}, labels=other_world, asks=LISTENING, learns=True
    ),
    "no headroom": Case(
        UNMOVED | KEPT | {"headroom": (CLEAR, "HeadroomSmall")}, moved(4, 5), asks=LISTENING, learns=True
    ),
    "headroom of few labels": Case(
        {**DRIFTED, "quality": (UNKNOWN, "TooFewLabels"), "headroom": (UNKNOWN, "TooFewLabels")},
        moved(0, 1, 2, 3),
        kept=few,
        asks=LISTENING | {"quality": NEVER},
        learns=True,
    ),
    "headroom that broke": Case(
        {**DRIFTED, **LOST, "headroom": (UNKNOWN, "ComparisonFailed")},
        moved(0, 2, 3),
        labels=wrong(0.3),
        asks=LISTENING,
        learns=True,
        breaks=(headroom, "corrected"),
    ),
    "a lost segment": Case(
        QUIET | LOST | {"segment": (BREACH, "SegmentLost")}, labels=large_are_wrong, asks={"segments": BY_SIZE}
    ),
    "segments kept": Case(
        UNMOVED | KEPT | {"segment": (CLEAR, "SegmentsKept")},
        moved(4, 5),
        asks={"segments": BY_SIZE, "quality": SEEN},
    ),
    "segments that are none": Case(
        {**DRIFTED, **LOST, "segment": (UNKNOWN, "SegmentsMissing")},
        moved(0, 2, 3),
        labels=wrong(0.3),
        asks={"segments": Segments(columns=("region",))},
    ),
    "segments that broke": Case(
        {**DRIFTED, **LOST, "segment": (UNKNOWN, "ComparisonFailed")},
        moved(0, 2, 3),
        labels=wrong(0.3),
        asks={"segments": BY_SIZE},
        breaks=(segments, "judge_segments"),
    ),
    "segments without labels": Case(
        DRIFTED, moved(0, 2, 3), labels=None, asks={"segments": BY_SIZE, "quality": None, "labelled": None}
    ),
    "labels of the window before": Case(
        {**DRIFTED, **LOST, "segment": (BREACH, "SegmentLost"), "headroom": (BREACH, "HeadroomProven")},
        moved(0, 2, 3),
        labels=lambda inputs, truth: np.where(large_are_wrong(inputs, truth) != truth, 1, other_world(inputs, truth)),
        asks={"segments": BY_SIZE, "quality": SEEN},
        learns=True,
        late=True,
        words=("label of window",),
    ),
}


@pytest.fixture(scope="module", name="shop")
def _shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop of six columns, of which the last two carry nothing, as its reference knows."""
    folder = tmp_path_factory.mktemp("claims")
    (folder / "shop").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(CLAIM_ROOT_VARIABLE, str(folder))
        made = Shop(folder / "shop", Task.CLASSIFICATION, width=6)
        made.read_as(Reading(label="label", scores="scores", scale=Scale.PROBABILITIES))
        made.blind_to(slice(4, 6))
        made.refer(measured=True)
        yield made


def serve(shop: Shop, window: int, pool: Array, case: Case, *, change: Callable[[Array], Array]) -> None:
    """Capture a window of rows of a pool, and write the labels that the case wants."""
    sound = shop.run
    if (answers := case.answers) is not None:
        shop.run = lambda rows: {**(out := sound(rows)), "label": answers(out["label"])}
    shop.serve(window, rows=ROWS, change=change, labels=None, among=pool)
    shop.run = sound
    if case.labels is not None:
        rows = pool[np.random.default_rng(window).integers(0, len(pool), ROWS)]  # as the shop has drawn them
        inputs, truth = shop.inputs[rows], shop.truth[rows]
        kept = np.flatnonzero(np.ones(ROWS, np.bool_) if case.kept is None else case.kept(inputs, truth))
        shop.label([f"{window}-{place}" for place in kept], case.labels(inputs, truth)[kept], f"w{window}")


def span(first: int, windows: int = 1) -> Window:
    """Return windows as one span of time, with the number of the first."""
    return Window(index=first, start=first * HOUR, end=(first + windows) * HOUR)


def checked(shop: Shop, case: Case, window: int, patch: pytest.MonkeyPatch) -> CheckResult:
    """Make the windows of a case and check the last one; what taught has other rows than what is asked."""
    shutil.rmtree(shop.root / "labels", ignore_errors=True)
    places = np.random.default_rng(0).permutation(len(shop.inputs))
    labelled = window - case.late
    taught, asked = places[: len(places) // 2], places[len(places) // 2 :]
    for earlier in range(labelled - 2, labelled) if case.learns else ():
        serve(shop, earlier, taught, case, change=np.asarray)
    if case.late:
        serve(shop, labelled, asked, case, change=np.asarray)
    serve(
        shop,
        window,
        asked if case.learns else places,
        replace(case, labels=None) if case.late else case,
        change=case.change,
    )
    asks: dict[str, Any] = {"min_samples": 200, "labelled": span(labelled), "quality": SEEN, **case.asks}
    if case.learns:
        asks |= {"headroom": Headroom(), "learned": span(labelled - 2, 2)}
    if case.wide:
        patch.setattr("optimizer_jobs.production.features.WIDE", 5)
    if case.breaks is not None:

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError("odd rows")

        patch.setattr(*case.breaks, broken)
    return run(shop.request(window, **asks))


PARAGRAPH = re.compile(r"<p style=[^>]*>(.*?)</p>")
MARK = re.compile(
    r'"column_name": "([^"]+)", "column_type": "[^"]+"(?:(?!"column_name").)*?"data_drift": "(Not )?Detected"'
)


def names(result: CheckResult) -> dict[str, SignalVerdict]:
    """Return the verdicts of a window by the name that the page should give them."""
    late = "" if result.labelled_window in {None, result.window} else f" of window {result.labelled_window}, 1 earlier"
    quality = "Estimated quality" if result.quality and result.quality.estimated else f"Quality{late}"
    every = {
        "Drift": result.drift,
        quality: result.quality,
        f"Headroom{late}": result.headroom,
        f"Segments{late}": result.segment,
    }
    return {name: verdict for name, verdict in every.items() if verdict is not None}


def disagreements(result: CheckResult, text: str) -> Iterator[str]:
    """Yield what a page says that the verdicts do not, and what it does not say that they do."""
    assert result.drift is not None
    headlines = set(re.findall(r"Dataset Drift is [a-zA-Z ]+", text))
    if headlines != {HEADLINES[result.drift.verdict]}:
        yield f"headlines {headlines} of {result.drift.verdict}"
    said = [html.unescape(words) for words in PARAGRAPH.findall(text)]
    signals = {name: f"{name}: {verdict.verdict}: {verdict.message}" for name, verdict in names(result).items()}
    for name, words in signals.items():
        if said.count(words) != 1:
            yield f"{name} is not said as it is judged: {words}; but {said}"
    others = [words for words in said if words not in signals.values() and "no window with labels is due" not in words]
    if others:
        yield f"what is no verdict: {others}"
    late = f" of window {result.labelled_window}" if result.labelled_window not in {None, result.window} else ""
    drifted = {f"{one.name}{late}" if one.name == "label" else one.name for one in result.columns if one.drifted}
    marked = {name.split("[component")[0] for name, without in MARK.findall(text) if not without}
    if marked != drifted:
        yield f"marked {marked}, drifted {drifted}"


@pytest.mark.parametrize("name", TABLE)
def test_page_and_verdicts_say_the_same(shop: Shop, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of every window of the table."""
    case = TABLE[name]
    result = checked(shop, case, FIRST + 10 * list(TABLE).index(name), monkeypatch)
    judged = {"drift": result.drift, "quality": result.quality, "headroom": result.headroom, "segment": result.segment}
    found = {signal: (verdict.verdict, verdict.reason) for signal, verdict in judged.items() if verdict is not None}
    assert found == case.says, judged
    assert (result.report is not None) is case.page
    if result.report is not None:
        text = resolve(result.report).local.read_text()
        assert list(disagreements(result, text)) == []
        assert [words for words in case.words if html.escape(words) not in text] == []


def test_a_long_window_is_marked_as_it_is_judged(tmp_path: Path) -> None:
    """Of more rows than are drawn; Evidently's p-value, which is of these, is larger than the verdict's."""
    generator = np.random.default_rng(0)
    before = pd.DataFrame(generator.normal(size=(1500, 2)), columns=["moved", "still"])
    now = pd.DataFrame(generator.normal(size=(16_000, 2)), columns=["moved", "still"])
    now["moved"] += 0.3
    findings = compare(before, now, Drift(), names=["moved", "still"])
    judged = judge(findings, Drift(), samples=len(now))
    assert judged.verdict is BREACH, judged.message
    uri = page.write(f"file://{tmp_path}", 1, findings, Told(judged), rows=(before, now), keep=1)
    assert uri is not None
    text = Path(uri.removeprefix("file://")).read_text()
    assert sorted(MARK.findall(text)) == [("moved", ""), ("still", "Not ")]
    assert HEADLINES[BREACH] in text
