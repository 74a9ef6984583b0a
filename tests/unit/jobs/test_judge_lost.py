"""What the verdict says of a server's limits: a loss that is proven, one that is not, or nothing."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import pytest

from optimizer_jobs.commands.judge import lost
from optimizer_jobs.commands.judge.comparison import Node
from optimizer_jobs.commands.judge.lost import Lost, lost_to_server
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.commands.judge.verdict import Decision, decide
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.latency import Effort, Timings
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions, Session
from retune.api.metrics import Metric
from retune.api.objectives import GoalType
from retune.api.search import Serving
from tests.unit.jobs.judge_for_tests import contender, evidence, limit, wanted
from tests.unit.jobs.test_judge_worth import timed

OBJECTIVES = (limit(Metric.ACCURACY, GoalType.MAX_DEGRADATION, "0.05"), wanted(Metric.LATENCY_P50_MS))
QUIET, ROWS = "idle threads that do not spin", "a fixed number of rows"
TRITON: dict[str, Any] = {"runtime": "Triton"}
STEADY = Node()


def rules(serving: dict[str, Any]) -> Rules:
    """The rules for a server."""
    return Rules(
        objectives=OBJECTIVES,
        confidence=0.95,
        min_gain=0.05,
        threads=2,
        seed=0,
        serving=Serving.model_validate(serving),
    )


Say = Callable[..., Lost | None]


@pytest.fixture
def say(make: Callable[..., Bundle], splits: dict[str, Rows], monkeypatch: pytest.MonkeyPatch) -> Say:
    """Return what is said of a winner whose times beside the server's are these factors, by what the server lacks."""
    bundle = make(engine=EngineOptions(threads=2))
    entrant = Entrant(bundle=bundle, ref=contender(latency=0.5).bundle, plan="int8")
    entrant = replace(entrant, ref=entrant.ref.model_copy(update={"digest": bundle.digest}))

    def said(
        factors: Mapping[str, float],
        *,
        serving: dict[str, Any] = TRITON,
        node: Node = STEADY,
        wins: bool = True,
    ) -> Lost | None:
        def raced(subjects: Mapping[str, Session], rows: Rows, **_: Any) -> tuple[dict[str, Timings], Node]:
            assert len(rows) == len(splits["test"])
            return {name: timed(factors.get(name, 1.0)) for name in subjects}, node

        monkeypatch.setattr(lost, "raced", raced)
        decision = _decision(bundle.digest, latency=0.5 if wins else 1.0)
        return lost_to_server(
            decision, [entrant], splits["test"], champion=entrant, rules=rules(serving), effort=Effort()
        )

    return said


def _decision(digest: str, *, latency: float) -> Decision:
    finalist = contender(latency=latency)
    finalist = replace(finalist, bundle=finalist.bundle.model_copy(update={"digest": digest}))
    return decide(evidence(finalist), objectives=OBJECTIVES, min_gain=0.05)


def test_a_proven_loss_is_told_with_its_interval_in_report_and_verdict(say: Say) -> None:
    """The best that the server lacks counts; what is slower with it is no loss."""
    told = say({QUIET: 1.3, ROWS: 0.8, f"{QUIET} and {ROWS}": 0.9})
    assert told is not None
    slower = "p50 is 1.25x slower (1.25..1.25) than with Retune's runtime"
    sentence = f"Triton cannot express a fixed number of rows: {slower}."
    assert told.sentence == sentence
    assert told.lines[-1] == sentence
    decision = _decision("sha256:0", latency=0.5)
    assert told.told_by(decision).message == f"{decision.message} {sentence}"


def test_nothing_is_claimed_that_is_not_proven(say: Say) -> None:
    """Neither where nothing is faster, nor within what the node differs from itself."""
    words = "It is not proven that this costs speed: with"
    slower = {ROWS: 1.2, QUIET: 1.3, f"{QUIET} and {ROWS}": 1.2}
    for told in (say({}), say(slower), say({ROWS: 0.9}, node=Node(widening=1.2))):
        assert told is not None
        assert told.sentence is None
        assert told.lines[-1].startswith(words)


def test_on_a_restless_node_the_cost_is_not_told(say: Say) -> None:
    """The report says why."""
    told = say({ROWS: 0.5}, node=Node(noise="it is restless"))
    assert told is not None
    assert told.sentence is None
    assert told.lines[-1] == "What that costs cannot be judged on this node: it is restless."


def test_without_a_winner_only_the_limits_are_told(say: Say) -> None:
    """No time is spent on a model that does not serve."""
    told = say({ROWS: 0.5}, wins=False)
    assert told is not None
    assert told.lines == (f"Triton has no setting for {QUIET}, {ROWS} or bfloat16 on Arm processors.",)


def test_without_a_server_nothing_is_said(say: Say) -> None:
    """As in every release before."""
    assert say({ROWS: 0.5}, serving={}) is None


def test_a_version_alone_takes_no_option(say: Say) -> None:
    """There is nothing to compare, and the report says whose times they are."""
    told = say({}, serving={"engineVersion": "1.20"})
    assert told is not None
    assert told.sentence is None
    assert told.lines[0] == "Candidates are such as ONNX Runtime 1.20 runs."
    assert told.lines[1].endswith("and the server has ONNX Runtime 1.20.")
    assert len(told.lines) == 2
