"""Segments: what divides rows, which columns tell, what is proven of a part, and that nothing is by chance."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import fisher_exact

from optimizer_jobs.commands.check import segment_choice, segment_cuts
from optimizer_jobs.commands.check.result import fitted
from optimizer_jobs.commands.check.segment_losses import LEVEL, Labels, Standing, holm, standings
from optimizer_jobs.commands.check.segment_verdict import Segment, Segmented, summary, verdict_of
from optimizer_jobs.commands.check.watched_quality import Answered
from optimizer_jobs.measure.yardstick import PLAIN
from retune.api.metrics import Metric
from retune.api.monitoring import Quality, Segments
from retune.api.watched import Verdict
from retune.contract.paths import RESULT_LIMIT
from retune.contract.results import CheckResult, SignalVerdict, encode_result, parse_result
from tests.unit.jobs.test_check_watched import MANIFEST, Part, part, window

values = st.one_of(st.none(), st.text(max_size=60), st.floats(width=32), st.integers(-5, 5), st.booleans())
columns = st.lists(values, min_size=1, max_size=60).map(lambda told: pd.Series(told, name="<b>\x1b[31m" + "x" * 80))
numbers = st.lists(st.floats(allow_infinity=False, width=32), min_size=1, max_size=80)


@given(reference=columns, current=columns)
def test_every_row_is_in_exactly_one_segment_whatever_it_holds(reference: pd.Series, current: pd.Series) -> None:
    """Names are bounded, printable and unique; a window's own values make no segments."""
    cut = segment_cuts.cut_of(reference, most=8)
    if cut is None:
        return
    for series in (reference, current):
        named = segment_cuts.masks([cut], series.to_frame())
        assert np.stack(list(named.values())).sum(axis=0).tolist() == [1] * len(series)
        assert all(len(name) <= 64 and name.isprintable() for name in named)
    assert len(cut.names) <= 8


@given(told=st.lists(numbers, min_size=1, max_size=12))
def test_there_are_at_most_32_segments_and_each_name_is_one(told: list[list[float]]) -> None:
    """Columns that are shown alike are told apart."""
    rows = min(map(len, told))
    frame = pd.DataFrame({f"{'c' * 40}{place}": part[:rows] for place, part in enumerate(told)})
    named = segment_cuts.masks(segment_cuts.cuts(frame, list(map(str, frame.columns))), frame)
    kept = segment_cuts.largest(named)
    assert len(kept) == len(set(kept)) <= segment_cuts.SEGMENTS


def test_numbers_are_cut_at_the_reference_and_rare_categories_are_one_segment() -> None:
    """The window's values lie where they lie; a new category is a rare one."""
    frame = pd.DataFrame({"age": np.arange(400.0), "region": ["EU"] * 200 + ["US"] * 195 + list("abcde")})
    now = pd.DataFrame({"age": [0, 100, 500, np.nan], "region": ["EU", "a", "new", None]})
    named = segment_cuts.masks(segment_cuts.cuts(frame, ["age", "region"]), now)
    inside = {name: np.flatnonzero(mask).tolist() for name, mask in named.items() if mask.any()}
    assert inside == {
        "age<=99.8": [0],
        "age>99.8 to 200": [1],
        "age>299": [2],
        "age missing": [3],
        "region=EU": [0],
        "region=other": [1, 2],
        "region missing": [3],
    }


@given(p=st.lists(st.floats(0, 1), max_size=40))
def test_holm_is_between_nothing_and_bonferroni(p: list[float]) -> None:
    """And keeps the order."""
    adjusted = holm(p)
    assert all(raw <= now <= min(1.0, len(p) * raw) + 1e-12 for raw, now in zip(p, adjusted, strict=True))
    order = np.argsort(p, kind="stable")
    assert np.all(np.diff(np.asarray(adjusted)[order]) >= 0)


def test_the_columns_that_tell_most_are_chosen_and_none_twice() -> None:
    """A column that says the same as a better one, and one that says nothing of quality, come after."""
    generator = np.random.default_rng(0)
    region, age = generator.choice(["EU", "US"], 2000), generator.normal(size=2000)
    noise = {f"noise{place}": generator.normal(size=2000) for place in range(5)}
    frame = pd.DataFrame({**noise, "age": age, "years": 2 * age + 1, "region": region, "one": 1})
    right = generator.random(2000) < np.where(region == "EU", 0.6, 0.95) - 0.2 * (age > 1)
    chosen = segment_choice.choose(frame, right.astype(float), {"noise3": 0.9})
    assert chosen[0] == "region"
    assert len({"age", "years"} & set(chosen)) == 1
    assert len(chosen) == 3


def labels(reference: Part, now: Part, metric: Metric = Metric.ACCURACY) -> Labels:
    """Return labelled rows as the check joins them."""
    captured = [Answered.of(*each, MANIFEST, PLAIN) for each in (reference, now)]
    x = np.concatenate([each.rows.inputs["x"] for each in captured])
    both = part(x, np.concatenate([each.rows.answers for each in captured]))
    return Labels(Answered.of(*both, MANIFEST, PLAIN), len(reference[0]), metric, PLAIN)


def halved(told: Labels, name: str = "s=1", *, counts_from: float = 0.1, min_labels: int = 30) -> dict[str, Standing]:
    """Return how two segments stand: every other row."""
    rows = len(told.answered.rows)
    before, now = (np.arange(count) % 2 == 0 for count in (told.before, rows - told.before))
    return standings(
        told,
        {name: before, "s=2": ~before},
        {name: now, "s=2": ~now},
        counts_from=counts_from,
        min_labels=min_labels,
        seed=0,
    )


def flipped(x: np.ndarray, y: np.ndarray, share: float) -> Part:
    """Return a window of whose even rows a share has another label than the model learnt."""
    wrong = (np.arange(len(y)) % 2 == 0) & (np.random.default_rng(5).random(len(y)) < share)
    return part(x, np.where(wrong, 1 - y, y))


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.LOG_LOSS, Metric.F1, Metric.AVERAGE_PRECISION])
def test_a_loss_in_one_half_is_proven_there_and_not_in_the_other(metric: Metric) -> None:
    """By shares of rows and by permutation; the sentence has the segment's numbers."""
    found = halved(labels(part(*window(rows=600)), flipped(*window(rows=400, seed=2), 0.3), metric))
    settings = Segments()
    assert verdict_of(found["s=1"], settings) is Verdict.BREACH, found
    assert verdict_of(found["s=2"], settings) is not Verdict.BREACH
    told = summary(metric, settings, Quality(), found, Standing(0.9, 0.93, 0.03, 400))
    assert (told.verdict, told.reason, told.samples) == (Verdict.BREACH, "SegmentLost", 200)
    assert told.message.startswith(f"s=1: {metric} {found['s=1'].value:.3g}, was {found['s=1'].reference:.3g} on the")
    assert "200 labelled rows; the whole shows a small loss (0.9, was 0.93)." in told.message


def test_accuracy_is_proven_by_fishers_exact_test() -> None:
    """The same number as SciPy's."""
    told = labels(part(*window(rows=300)), flipped(*window(rows=200, seed=2), 0.3))
    right = told.numbers() > 0
    even = np.concatenate([np.arange(300) % 2 == 0, np.arange(200) % 2 == 0])
    before, now = right[:300][even[:300]], right[300:][even[300:]]
    table = [[(~now).sum(), now.sum()], [(~before).sum(), before.sum()]]
    p = fisher_exact(table, alternative="greater").pvalue
    assert halved(told)["s=1"].adjusted == pytest.approx(min(1.0, 2 * p))


def test_a_segment_of_few_labelled_rows_says_nothing() -> None:
    """Neither below the limit of the window nor below that of the reference."""
    told = labels(part(*window(rows=300)), flipped(*window(rows=200, seed=2), 1.0))
    assert halved(told, min_labels=101) == {}
    small = labels(part(*window(rows=50)), flipped(*window(rows=200, seed=2), 1.0))
    assert halved(small) == {}
    said = summary(Metric.ACCURACY, Segments(), Quality(), {}, None)
    assert (said.verdict, said.reason) == (Verdict.UNKNOWN, "SegmentsTooSmall")


@pytest.mark.parametrize("metric", [Metric.ACCURACY, Metric.LOG_LOSS])
def test_windows_without_a_loss_name_no_segment(metric: Metric) -> None:
    """A hundred windows of forty segments of thirty rows, of which some look lost."""
    generator, before = np.random.default_rng(3), part(*window(rows=1600))
    looks, proven = 0, 0
    for _ in range(100 if metric is Metric.ACCURACY else 10):
        told = labels(before, part(*window(rows=1200, seed=int(generator.integers(1 << 30)))), metric)
        there, here = np.arange(1600) % 40, np.arange(1200) % 40
        named = [{f"s={place}": rows == place for place in range(40)} for rows in (there, here)]
        found = standings(told, *named, counts_from=0.05, min_labels=30, seed=0).values()
        looks += sum(standing.loss >= 0.05 for standing in found)
        proven += sum(standing.loss >= 0.05 and standing.adjusted <= LEVEL for standing in found)
    assert looks > 10
    assert proven == 0


name = st.text(min_size=1, max_size=64)


@given(
    names=st.lists(name, max_size=12, unique=True), message=st.text(max_size=1000), wanted=st.lists(name, max_size=3)
)
def test_hostile_names_travel_and_the_result_fits(names: list[str], message: str, wanted: list[str]) -> None:
    """Whatever is in it, a result has at most 4096 bytes, keeps its verdicts and at least the two worst segments."""
    standing = Standing(0.71, 0.93, 0.22, 412, 1e-9)
    segments = tuple(Segment(name, Verdict.BREACH, 980, standing, 0.25) for name in names)
    told = SignalVerdict(verdict=Verdict.BREACH, reason="SegmentLost", message=message)
    listed = Segmented(told, segments).listed(wanted)
    assert len(listed) <= 8
    assert [one.name for one in listed][: len(wanted)] == wanted
    full = CheckResult(
        spec_hash="0" * 32,
        window=1,
        champion_digest="sha256:" + "c" * 64,
        drift=told,
        quality=told,
        segment=told,
        segments=listed,
        violations=(message[:300],) * 8,
        report="pvc://" + "r" * 200,
    )
    payload = encode_result(fitted(full))
    assert len(payload) <= RESULT_LIMIT
    back = parse_result(payload)
    assert isinstance(back, CheckResult)
    assert back.segment is not None
    assert back.segment.verdict is Verdict.BREACH
    assert len(back.segments) >= min(2, len(listed))
    assert all(segment.name.isprintable() for segment in back.segments)
