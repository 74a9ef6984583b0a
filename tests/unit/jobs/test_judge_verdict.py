"""Selection and verdict: the champion stays unless a finalist passes every limit and beats it for sure."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizer_jobs.commands.judge.evidence import AtSize, ClassLoss, Contender, Evidence
from optimizer_jobs.commands.judge.rules import Rules
from optimizer_jobs.commands.judge.selection import best, duel
from optimizer_jobs.commands.judge.verdict import Decision, decide, why
from optimizer_jobs.measure.stats import Interval
from retune.api.metrics import Metric
from retune.api.objectives import GoalType, Objective
from retune.api.search import Serving
from retune.contract.results import Verdict
from tests.unit.jobs.judge_for_tests import contender, evidence, limit, ref, wanted

ACCURACY, P95, SIZE = Metric.ACCURACY, Metric.LATENCY_P95_MS, Metric.SIZE_BYTES
MARGIN = limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.02")
USUAL = (MARGIN, wanted(P95), wanted(SIZE))
BUSY = "the champion measured against itself came out at 0.8..1.3 of its own p95 latency, outside 0.952..1.050"


def decided(*contenders: Contender, noise: str | None = None, objectives: tuple[Objective, ...] = USUAL) -> Decision:
    """Return the decision with a smallest gain of 5 %."""
    return decide(evidence(*contenders, noise=noise), objectives=objectives, min_gain=0.05)


def test_smaller_and_faster_at_equal_quality_is_promoted_with_its_numbers() -> None:
    """The sentence holds sizes, speed, accuracy, paired difference, interval and margin."""
    decision = decided(contender(gained=1, lost=2, latency=0.55, size=0.2558))

    assert (decision.verdict, decision.reason) == (Verdict.PROMOTE, "SmallerAndFasterAtEqualQuality")
    assert decision.message == (
        "3.9x smaller (8.6 MB → 2.2 MB) and p95 1.8x faster at accuracy 0.960 → 0.959 "
        "(paired difference -0.1 points, 95 % interval -0.6..+0.4, margin -2.0)."
    )


def at(size: int, ratio: float) -> AtSize:
    """Return p95 in requests of a size that half of the requests have, known to 1 %."""
    champion = Interval(0.2, low=0.19, high=0.21, samples=400)
    after = Interval(0.2 * ratio, low=0.19 * ratio, high=0.21 * ratio, samples=400)
    known = Interval(ratio, low=0.99 * ratio, high=1.01 * ratio, samples=400)
    return AtSize(size=size, share=0.5, champion=champion, candidate=after, ratio=known)


def test_a_size_of_requests_that_got_slower_is_named() -> None:
    """A loss that the mix of all sizes hides is in the sentence; a size within its noise is not."""
    mixed = replace(contender(latency=0.55, size=0.25), sizes=(at(1, 1.4), at(8, 1.005), at(32, 0.5)))
    assert "Slower in requests of 1 row (p95 0.200 ms → 0.280 ms)." in decided(mixed).message
    assert "Slower in requests" not in decided(mixed, noise=BUSY).message
    idle = replace(contender(), sizes=(at(1, 1.4), at(32, 1.3)))
    assert "requests of 1 row (p95 0.200 ms → 0.280 ms) and 32 rows (p95" in decided(idle).message


def test_answers_that_depend_on_the_size_of_requests_are_told() -> None:
    """An owner learns that the same row is answered otherwise beside others, and which size counted."""
    message = decided(replace(contender(latency=0.55, size=0.25), worst_size=32)).message
    assert "Its answers depend on the rows beside them in a request: accuracy is that of requests of 32 rows" in message


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        ({"container_cpus": 0.5}, "2 threads were judged, and the serving container may use 0.5 CPU only"),
        ({"judge_cpus": 1.0}, "2 threads were judged on 1 CPU, all that the judge has"),
        ({"serving": Serving(cores=4)}, "2 threads were judged, and serving.cores asks for 4"),
        ({"container_cpus": 2.5, "judge_cpus": 2.0, "serving": Serving(cores=2)}, None),
    ],
)
def test_threads_that_cannot_serve_as_judged_are_told(parts: dict[str, Any], words: str | None) -> None:
    """Fewer CPUs than threads, or fewer threads than the spec asks for, are part of the verdict's sentences."""
    doubt = Rules(objectives=(), confidence=0.95, min_gain=0.05, threads=2, seed=0, **parts).threads_doubt
    assert (doubt or "").startswith(words or "")
    assert (doubt is None) is (words is None)
    found = decide(replace(evidence(contender(size=0.5)), threads=doubt), objectives=USUAL, min_gain=0.05)
    assert (words or "margin") in found.message


def test_champion_is_kept_on_a_tie() -> None:
    """An equal finalist changes nothing, even when any gain at all would do."""
    for min_gain in (0.0, 0.05):
        decision = decide(evidence(contender()), objectives=USUAL, min_gain=min_gain)
        assert (decision.verdict, decision.reason) == (Verdict.NO_GAIN, "NoRelevantGain")


@pytest.mark.parametrize(
    ("latency", "half_width", "verdict"),
    [
        pytest.param(0.94, 0.005, Verdict.PROMOTE, id="5 % for sure"),
        pytest.param(0.94, 0.03, Verdict.NO_GAIN, id="perhaps 5 %"),
        pytest.param(0.97, 0.005, Verdict.NO_GAIN, id="3 % for sure"),
    ],
)
def test_gain_counts_by_its_pessimistic_end(latency: float, half_width: float, verdict: Verdict) -> None:
    """A finalist must gain the smallest relevant gain with the bad end of its interval."""
    assert decided(contender(latency=latency, half_width=half_width)).verdict is verdict


def test_smaller_but_slower_loses_when_latency_comes_first() -> None:
    """Objectives decide in order: a loss on the first is not bought by a gain on the second."""
    decision = decided(contender(latency=1.3, size=0.25))

    assert (decision.verdict, decision.reason) == (Verdict.NO_GAIN, "NoRelevantGain")
    assert "loses to the champion by p95 (gain -30.0 %" in decision.message
    assert (
        decided(contender(latency=1.3, size=0.25), objectives=(MARGIN, wanted(SIZE), wanted(P95))).verdict == "Promote"
    )


def test_slower_within_tolerance_is_a_tie_and_the_next_objective_decides() -> None:
    """4 % slower is equal at a tolerance of 5 %, so a quarter of the size wins."""
    decision = decided(contender(latency=1.04, size=0.25))

    assert (decision.verdict, decision.reason) == (Verdict.PROMOTE, "SmallerAtEqualQuality")


def test_noisy_node_makes_latency_a_tie_and_says_so() -> None:
    """Size still decides; the message names the reason and does not claim a speed."""
    decision = decided(contender(latency=0.3, size=0.25), noise=BUSY)

    assert (decision.verdict, decision.reason) == (Verdict.PROMOTE, "SmallerAtEqualQuality")
    assert "MeasurementUnreliable" in decision.message
    assert "faster" not in decision.message


def test_noisy_node_without_another_gain_is_the_reason_for_keeping_the_champion() -> None:
    """A finalist that only looks faster is not promoted, and the reason is the node."""
    decision = decided(contender(latency=0.3), noise=BUSY)

    assert (decision.verdict, decision.reason) == (Verdict.NO_GAIN, "MeasurementUnreliable")


def test_a_restless_node_is_told_and_what_is_still_proven_counts() -> None:
    """Intervals that were widened decide as any others do."""
    proof = replace(evidence(contender(latency=0.3)), doubt=BUSY)
    decision = decide(proof, objectives=USUAL, min_gain=0.05)

    assert (decision.verdict, decision.reason) == (Verdict.PROMOTE, "FasterAtEqualQuality")
    assert "The node was restless: the champion measured against itself" in decision.message


def test_missed_margin_fails_the_gate_with_its_numbers() -> None:
    """A finalist that loses 5 points is refused, however small and fast."""
    decision = decided(contender(lost=50, latency=0.2, size=0.1))

    assert (decision.verdict, decision.reason) == (Verdict.GATE_FAILED, "AccuracyBelowMargin")
    assert "Accuracy 0.910 is below the limit of 0.940" in decision.message


def test_a_constant_is_refused_in_words_though_it_is_tiny_and_keeps_its_accuracy() -> None:
    """Smaller, faster, and accurate where one class is rare: it never passes."""
    decision = decided(replace(contender(gained=4, latency=0.1, size=0.001), spread=0.004))

    assert (decision.verdict, decision.reason) == (Verdict.GATE_FAILED, "NearlyConstant")
    assert "its answers vary by 0.4 % of what the champion's do" in decision.message


def test_classes_that_lose_are_named_in_a_promotion() -> None:
    """The owner decides what a class is worth, and must hear of it; the largest losses are told."""
    losses = tuple(ClassLoss(label=str(n), rows=40, champion=0.9, candidate=0.5 + n / 10) for n in range(4))
    decision = decided(replace(contender(latency=0.5), class_losses=losses))

    assert decision.verdict is Verdict.PROMOTE
    worse = "Worse in classes 0 (90 % → 50 % right of 40), 1 (90 % → 60 % right of 40) and 2 (90 % → 70 % right of 40)"
    assert f"{worse} and 1 more." in decision.message


def test_margin_that_the_rows_cannot_show_names_rows_and_agreement() -> None:
    """The message says how many rows are needed and how often both models agree."""
    decision = decided(contender(gained=60, lost=60, size=0.2))

    assert (decision.verdict, decision.reason) == (Verdict.GATE_FAILED, "TooFewTestRows")
    assert "1000 test rows cannot show" in decision.message
    assert "are needed" in decision.message
    assert "agree on 88 % of the rows" in decision.message


def test_failed_gate_of_one_finalist_does_not_stop_another() -> None:
    """The refused one is in the findings with its reason; the other is promoted."""
    bad, good = contender("bad", lost=50, size=0.1), contender("good", size=0.3)
    decision = decided(bad, good)
    reasons = {each.contender.plan: why(each, decision, evidence(bad, good)) for each in decision.findings}

    assert decision.verdict is Verdict.PROMOTE
    assert decision.subject is not None
    assert decision.subject.contender is good
    assert "below the limit" in reasons["bad"]
    assert reasons["good"] == "Better than the champion by size."


def test_no_finalist_is_an_honest_end() -> None:
    """A search without a new candidate keeps the champion."""
    decision = decided()

    assert (decision.verdict, decision.reason, decision.subject) == (Verdict.NO_GAIN, "NoFinalist", None)


@pytest.mark.parametrize(
    ("first", "second", "winner"),
    [
        pytest.param({"latency": 0.5}, {"latency": 0.4}, "second", id="faster"),
        pytest.param(
            {"latency": 0.5, "size": 0.2}, {"latency": 0.49, "size": 0.5}, "first", id="equally fast, smaller"
        ),
        pytest.param(
            {"latency": 0.5, "techniques": ("a", "b")},
            {"latency": 0.5, "techniques": ("a",)},
            "second",
            id="fewer steps",
        ),
        pytest.param(
            {"latency": 0.5, "half_width": 0.3, "size": 0.2}, {"latency": 0.45, "size": 0.5}, "first", id="within noise"
        ),
    ],
)
def test_best_is_lexicographic_with_tolerance(first: dict[str, object], second: dict[str, object], winner: str) -> None:
    """The first objective decides beyond tolerance and noise, then the next, then simplicity."""
    pair = contender("first", **first), contender("second", **second)  # type: ignore[arg-type]

    assert best(pair, evidence(*pair), objectives=USUAL).plan == winner


def test_full_tie_goes_to_the_lower_digest() -> None:
    """Nothing is left to chance or order."""
    pair = [contender(name, latency=0.5) for name in ("one", "two")]
    lower = min(pair, key=lambda each: ref(each.plan).digest)

    assert all(best(order, evidence(*order), objectives=USUAL) is lower for order in (pair, pair[::-1]))


finalists = st.lists(
    st.builds(
        lambda name, gained, lost, latency, size: contender(
            f"finalist-{name}", gained=gained, lost=lost, latency=latency, size=size
        ),
        st.integers(0, 10**6),
        st.integers(0, 15),
        st.integers(0, 40),
        st.floats(0.2, 2.0),
        st.floats(0.1, 1.5),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda each: each.plan,
)


@pytest.mark.slow
@given(finalists, st.sampled_from([None, BUSY]))
def test_verdict_does_not_depend_on_the_order_of_finalists(contenders: list[Contender], noise: str | None) -> None:
    """Every order of the same evidence gives the same verdict on the same bundle."""
    outcomes = {
        (decision.verdict, decision.reason, decision.message)
        for order in itertools.permutations(contenders)
        for decision in [decided(*order, noise=noise)]
    }

    assert len(outcomes) == 1


@given(finalists, st.sampled_from([None, BUSY]))
def test_nothing_is_promoted_that_misses_a_limit_or_gains_nothing(
    contenders: list[Contender], noise: str | None
) -> None:
    """A promoted finalist kept every limit and gains 5 % for sure on an objective that could be judged."""
    decision = decided(*contenders, noise=noise)
    if decision.verdict is Verdict.PROMOTE:
        assert decision.subject is not None
        chosen = decision.subject.contender
        assert chosen.difference.low >= -0.02 - 1e-9
        assert chosen.size_bytes <= 0.951 * 8_600_000 or (noise is None and chosen.ratios[P95].high <= 0.951)


@given(finalists)
def test_message_fits_a_status_field(contenders: list[Contender]) -> None:
    """Whatever the numbers, the sentence is short enough for the API."""
    assert len(decided(*contenders, noise=BUSY).message) < 1000


def test_more_accurate_wins_where_accuracy_is_optimized() -> None:
    """Accuracy gains by the paired lower end, relative to the champion's."""
    accurate = (Objective(metric=ACCURACY),)
    decision = decide(evidence(contender(gained=30)), objectives=accurate, min_gain=0.01)

    assert (decision.verdict, decision.reason) == (Verdict.PROMOTE, "MoreAccurate")


@pytest.mark.parametrize(("own", "verdict"), [(None, Verdict.NO_GAIN), ("0.01", Verdict.PROMOTE)])
def test_an_objectives_own_least_gain_counts_before_the_general_one(own: str | None, verdict: Verdict) -> None:
    """Three points of accuracy are less than 5 %, and worth a change where the objective itself asks for 1 %."""
    accurate = (Objective(metric=ACCURACY, min_gain=own, tolerance="0.01"), wanted(SIZE, "0"))
    decision = decide(evidence(contender(gained=30, size=2.0)), objectives=accurate, min_gain=0.05)

    assert decision.verdict is verdict


def test_what_each_objective_asks_for_is_told() -> None:
    """Where objectives ask for different gains, the sentence names each."""
    objectives = (Objective(metric=ACCURACY, min_gain="0.01", tolerance="0.01"), wanted(SIZE, "0"))
    decision = decide(evidence(contender(gained=0, size=1.0)), objectives=objectives, min_gain=0.05)

    assert "accuracy 1 %, size 5 %" in decision.message


def test_duel_without_tolerance_is_not_lost_to_noise() -> None:
    """At tolerance 0 a finalist whose interval holds the champion's value is equal, not worse."""
    finalist = contender(latency=1.005, half_width=0.01, size=0.5)
    objectives = (wanted(P95, "0"), wanted(SIZE, "0"))
    found = duel(
        finalist,
        Evidence(champion=evidence().champion, contenders=(finalist,), noise=None),
        objectives=objectives,
        min_gain=0.05,
    )

    assert (found.wins, found.decided_by) == (True, SIZE)
