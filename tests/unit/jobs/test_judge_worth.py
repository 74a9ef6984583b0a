"""What the judge says of a winner's worth: at which limit, with which intervals, and when it says nothing, in words."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from optimizer_jobs.commands.judge.evidence import Contender
from optimizer_jobs.commands.judge.rules import Rules
from optimizer_jobs.commands.judge.verdict import decide
from optimizer_jobs.commands.judge.worth import Appraisal, appraise
from optimizer_jobs.measure.capacity import LEAST_ROUNDS
from optimizer_jobs.measure.latency import Timings
from optimizer_jobs.models.engine import EngineOptions
from retune.api.metrics import Metric
from retune.api.objectives import GoalType, Objective
from retune.api.worth import LimitOf
from tests.unit.jobs.judge_for_tests import champion, contender, evidence, limit, wanted

MARGIN = limit(Metric.ACCURACY, GoalType.MAX_DEGRADATION, "0.05")
SMALLER = (MARGIN, wanted(Metric.SIZE_BYTES))
FASTER = contender(latency=0.25, size=0.25)


def timed(factor: float, *, rounds: int = 40) -> Timings:
    """Timings of calls of about a millisecond, times a factor."""
    calls = np.random.default_rng(0).gamma(20, 1 / 20, (rounds, 20))
    return Timings(blocks=factor * calls, first_call_ms=1.0)


def appraised(
    winner: Contender = FASTER,
    *,
    objectives: tuple[Objective, ...] = (MARGIN, wanted(Metric.LATENCY_P95_MS)),
    rounds: int = 40,
    of_engines: tuple[int, int] = (1, 1),
    noise: str | None = None,
    widening: float = 1.0,
    **changes: Any,
) -> Appraisal | None:
    """What is said of a finalist whose calls take a quarter of the champion's."""
    known = replace(evidence(winner, noise=noise), widening=widening)
    settings: dict[str, Any] = {"confidence": 0.95, "min_gain": 0.05, "threads": 1, "seed": 0} | changes
    before, after = champion().bundle.digest, winner.bundle.digest
    return appraise(
        decide(known, objectives=objectives, min_gain=0.05),
        known,
        timings={before: timed(1.0, rounds=rounds), after: timed(0.25, rounds=rounds)},
        engines={before: EngineOptions(threads=of_engines[0]), after: EngineOptions(threads=of_engines[1])},
        rules=Rules(objectives=objectives, **settings),
    )


def said(appraisal: Appraisal | None) -> Appraisal:
    """The appraisal, which is there."""
    assert appraisal is not None
    return appraisal


def test_a_winner_is_worth_what_its_calls_take_less() -> None:
    """By the champion's own time, with the threads that were judged, and with few digits."""
    worth = said(appraised()).worth
    assert worth is not None
    assert (worth.limit_of, worth.threads) == (LimitOf.CHAMPION, 1)
    assert worth.ratio.value == 4.0
    assert worth.before.value == pytest.approx(500, rel=0.05)
    assert worth.before.low < worth.before.value < worth.before.high
    assert len(worth.model_dump_json(by_alias=True)) < 320


def test_a_limit_of_the_objectives_is_the_limit() -> None:
    """The owner's own word on how long a request may take comes first."""
    asked = limit(Metric.LATENCY_P95_MS, GoalType.THRESHOLD, "4")
    appraisal = said(appraised(objectives=(MARGIN, asked, wanted(Metric.SIZE_BYTES))))
    assert appraisal.worth is not None
    assert (appraisal.worth.limit_of, appraisal.worth.limit_ms) == (LimitOf.OBJECTIVE, 4.0)
    assert "within 4.00 ms, the limit of the objectives" in appraisal.words


def test_a_limit_that_the_champion_hardly_keeps_is_named_and_not_taken() -> None:
    """The champion's own time counts then, and the reader knows why."""
    asked = limit(Metric.LATENCY_P95_MS, GoalType.THRESHOLD, "1.3")
    appraisal = said(appraised(objectives=(MARGIN, asked, wanted(Metric.SIZE_BYTES))))
    assert appraisal.worth is not None
    assert appraisal.worth.limit_of is LimitOf.CHAMPION
    assert "as by the champion while half busy; it hardly keeps the limit of 1.30 ms" in appraisal.words


def test_a_restless_node_widens_the_intervals() -> None:
    """By what the champion differs from itself, as all intervals of latency."""
    quiet, restless = said(appraised()).worth, said(appraised(widening=1.2)).worth
    assert quiet is not None
    assert restless is not None
    assert restless.ratio.low == pytest.approx(quiet.ratio.low / 1.2, rel=0.001)
    assert restless.ratio.value == quiet.ratio.value


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"noise": "the node was busy", "objectives": SMALLER},
            "latency cannot be judged on this node: the node was busy",
        ),
        ({"rounds": LEAST_ROUNDS - 1}, "19 rounds only, and 20 are needed"),
        ({"threads": 4, "of_engines": (1, 4)}, "4 requests at a time with the champion and 1 with the winner"),
        ({"judge_cpus": 0.5}, "the judge had 0.5 CPU, and the serving container may use 1"),
        ({"container_cpus": 0.5, "judge_cpus": 1.0}, "the judge had 1 CPU, and the serving container may use 0.5"),
    ],
)
def test_nothing_is_said_where_times_are_not_those_of_a_server(changes: dict[str, Any], words: str) -> None:
    """Each doubt has its sentence, and the numbers stay away."""
    appraisal = said(appraised(**changes))
    assert appraisal.worth is None
    assert words in appraisal.words


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 4, "of_engines": (4, 1)},
        {"threads": 2, "container_cpus": 2.5, "judge_cpus": 8.0},
        {"container_cpus": 0.33, "judge_cpus": 0.333},
        {"threads": 4, "judge_cpus": None},
    ],
)
def test_what_cannot_favour_the_winner_is_no_doubt(changes: dict[str, Any]) -> None:
    """Fewer threads, a judge with CPU to spare, and the same share of one CPU."""
    assert said(appraised(**changes)).worth is not None


def test_nothing_is_worth_anything_that_is_not_promoted() -> None:
    """A verdict that keeps the champion says nothing of servers."""
    assert appraised(contender(gained=0, lost=200)) is None
