"""What each step bought and what became of every technique, from trials written down."""

from dataclasses import replace

from optimizer_jobs.commands.judge.evidence import Contender
from optimizer_jobs.commands.judge.report.document import StepLine, TechniqueLine
from optimizer_jobs.commands.judge.report.steps import Searched, ShownMetrics, steps, techniques
from optimizer_jobs.commands.judge.verdict import Finding, decide
from optimizer_jobs.study.trials import TrialResult, TrialRow
from retune.api.metrics import Metric
from retune.api.objectives import GoalType
from tests.unit.jobs.judge_for_tests import contender, evidence, limit, wanted

ACCURACY, P95, SIZE = Metric.ACCURACY, Metric.LATENCY_P95_MS, Metric.SIZE_BYTES
USUAL = (limit(ACCURACY, GoalType.MAX_DEGRADATION, "0.02"), wanted(P95), wanted(SIZE))
CHAMPION = {"accuracy": 0.96, "latency_p95_ms": 2.0, "size_bytes": 8_600_000.0}


def trial(
    number: int,
    *summaries: str,
    steps: tuple[str, ...] = (),
    accuracy: float = 0.96,
    latency: float = 1.0,
    size: float = 1.0,
    missed: float = -0.02,
    idle: tuple[str, ...] = (),
    skipped: tuple[str, ...] = (),
) -> TrialRow:
    """Return a measured trial by what its steps did."""
    values = {"accuracy": accuracy, "latency_p95_ms": 2.0 * latency, "size_bytes": 8_600_000 * size}
    found = TrialResult(
        plan=", ".join(summaries),
        steps=steps,
        techniques=summaries,
        idle=idle,
        skipped=skipped,
        values=values,
        champion=CHAMPION,
        shortfalls={"accuracy": missed},
        costs=(latency, size),
    )
    return TrialRow(number=number, outcome="feasible", result=found, seconds=1.0)


def finding(finalist: Contender) -> Finding:
    """Return what the judge says of one finalist."""
    (found,) = decide(evidence(finalist), objectives=USUAL, min_gain=0.05).findings
    return found


SUBJECT = finding(replace(contender(latency=0.5, size=0.2, techniques=("tuned", "pruned", "int8")), trial=4))
ENGINE, TUNED, PRUNED, ALL = (
    trial(1, latency=0.9),
    trial(2, "tuned", steps=("tune",), accuracy=0.97, latency=0.9),
    trial(3, "tuned", "pruned", steps=("tune", "prune"), latency=0.6, size=0.5),
    trial(4, "tuned", "pruned", "int8", steps=("tune", "prune", "quantize"), latency=0.4, size=0.2),
)


def lines(*trials: TrialRow) -> tuple[StepLine, ...]:
    """Return the steps of the subject."""
    return steps(SUBJECT, (SUBJECT,), trials, latency=P95)


def test_every_step_is_compared_with_the_one_before() -> None:
    """Factors multiply: what pruning bought is relative to the tuned model, not to the champion."""
    engine, tuned, pruned, quantized = lines(ENGINE, TUNED, PRUNED, ALL)

    assert engine.bought == tuned.bought == "Nothing measurable."
    assert (tuned.quality, tuned.judged) == (0.97, False)
    assert pruned.bought == "2.00x smaller, 1.50x faster."
    assert quantized.bought == "2.50x smaller, 1.20x faster."


def test_the_last_step_has_the_judges_numbers() -> None:
    """The finalist's own ratios are the judge's, which looked longer than the search."""
    last = lines(ENGINE, TUNED, PRUNED, ALL)[-1]

    assert (last.trial, last.judged, last.latency_ratio, last.size_ratio) == (4, True, 0.5, 0.2)


def test_a_step_without_a_trial_is_counted_with_the_next() -> None:
    """Where nobody stopped after pruning, the two steps together bought what they bought."""
    *_, pruned, quantized = lines(ENGINE, TUNED, ALL)

    assert pruned.trial is None
    assert "Not tried on its own" in pruned.bought
    assert quantized.bought.startswith("5.00x smaller, 1.80x faster, together with the steps before")


def test_the_fastest_of_equal_trials_stands_for_a_step() -> None:
    """Parameters differ between trials of one technique; the best one is shown."""
    slow = replace(
        PRUNED, number=9, result=replace(PRUNED.result, values={**PRUNED.result.values, "latency_p95_ms": 9.0})
    )

    assert lines(ENGINE, TUNED, slow, PRUNED, ALL)[2].trial == 3


def became(
    *trials: TrialRow, left_out: dict[str, str] | None = None, said: dict[int, str] | None = None
) -> dict[str, TechniqueLine]:
    """Return what became of every technique, by name, when trial 4 became the candidate."""
    searched = Searched(trials, left_out or {})
    found = techniques(searched, chosen=4, judgements=said or {}, metrics=ShownMetrics(ACCURACY, P95, (P95, SIZE)))
    return {each.name: each for each in found}


def test_techniques_in_the_candidate_have_its_numbers() -> None:
    """All three are used, with the trial that became the candidate."""
    found = became(ENGINE, TUNED, PRUNED, ALL)

    assert {name: (each.outcome, each.trial) for name, each in found.items()} == dict.fromkeys(
        ("tune", "prune", "quantize"), ("Used", 4)
    )
    assert found["tune"].trials == 3


def test_a_technique_that_missed_a_limit_is_named_with_its_best_numbers() -> None:
    """Of two trials the one that misses the limit less is shown, and which limit it is."""
    bad = trial(5, "low rank", steps=("factorize",), accuracy=0.80, size=0.1, missed=0.14)
    less_bad = trial(6, "low rank", steps=("factorize",), accuracy=0.90, size=0.3, missed=0.04)
    line = became(ALL, bad, less_bad)["factorize"]

    assert (line.outcome, line.trial, line.trials, line.quality) == ("Tried", 6, 2, 0.90)
    assert line.size_ratio == 0.3
    assert line.note == "Misses the limit on accuracy."


def test_a_technique_that_kept_every_limit_is_told_by_what_it_is_behind_in() -> None:
    """The first objective on which the candidate is better decides, with both numbers."""
    slower = trial(5, "low rank", steps=("factorize",), latency=0.7, size=0.1)
    larger = trial(6, "hardened", steps=("harden",), latency=0.4, size=0.3)
    found = became(ALL, slower, larger)

    assert found["factorize"].note == "Behind the candidate by p95: x0.70 against x0.40."
    assert found["harden"].note == "Behind the candidate by size: x0.30 against x0.20."


def test_a_finalist_has_the_judges_reason() -> None:
    """Where the judge looked, its word counts and not the search's."""
    other = trial(5, "low rank", steps=("factorize",), latency=0.1, size=0.1)

    assert became(ALL, other, said={5: "Too many errors."})["factorize"].note == "Judged: Too many errors."


def test_a_technique_without_effect_says_why() -> None:
    """A step that left the model as it was has no numbers of its own, but a reason."""
    idle = trial(7, steps=("graph",), idle=("graph",), skipped=("the graph has nothing to fold",))
    line = became(ALL, idle)["graph"]

    assert (line.outcome, line.trial, line.note) == ("NoEffect", None, "The graph has nothing to fold.")


def test_a_technique_that_only_failed_says_how() -> None:
    """Trials that ended early leave their reason."""
    failed = TrialRow(
        number=8, outcome="failed", result=TrialResult(plan="p", steps=("distil",), reason="it broke"), seconds=None
    )

    assert (became(ALL, failed)["distil"].outcome, became(ALL, failed)["distil"].note) == ("Tried", "It broke.")


def test_what_was_left_out_of_the_search_is_named() -> None:
    """The reason that the search gave is in the report."""
    line = became(ALL, left_out={"harden": "there is no training data", "quantize": "never mind"})

    assert (line["harden"].outcome, line["harden"].note) == ("LeftOut", "There is no training data.")
    assert line["quantize"].outcome == "Used"
