"""Following a resource: when it ends, with which exit code, and what it says on the way."""

from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from io import StringIO

import pytest
from rich.console import Console

from retune.api.objects import ModelOptimization
from retune.api.status import ConditionType, LastRun, Outcome, Stage
from retune.cli import follow
from retune.cli.access import Unreachable
from retune.cli.follow import Exit, Until
from tests.unit.cli import shelf

MOMENTS = ("optimizing", "gating", "rolling_out", "baking", "promoted")


def ended_as(outcome: Outcome) -> ModelOptimization:
    """The finished resource, had its run ended so."""
    finished = shelf.resource("promoted")
    last = finished.status.last_run
    assert last is not None
    changed: LastRun = last.model_copy(update={"outcome": outcome})
    return finished.model_copy(update={"status": finished.status.model_copy(update={"last_run": changed})})


def stalled_since(moment: datetime) -> ModelOptimization:
    """The blocked resource, had it been stuck since then."""
    blocked = shelf.resource("blocked")
    since = {"last_transition_time": moment}
    conditions = tuple(
        condition.model_copy(update=since) if condition.type == ConditionType.STALLED else condition
        for condition in blocked.status.conditions
    )
    return blocked.model_copy(update={"status": blocked.status.model_copy(update={"conditions": conditions})})


@pytest.mark.parametrize("moment", ["optimizing", "gating", "rolling_out", "baking"])
def test_nothing_ends_while_a_run_is_under_way(moment: str) -> None:
    """Every stage before the last is waited for."""
    assert follow.ending(shelf.resource(moment), until=Until.FINISHED, now=shelf.NOW) is None


def test_a_spec_that_was_not_looked_at_yet_is_waited_for() -> None:
    """A finished run says nothing about a spec that changed after it."""
    finished = shelf.resource("promoted")
    newer = finished.model_copy(update={"metadata": finished.metadata.model_copy(update={"generation": 99})})
    assert follow.ending(newer, until=Until.FINISHED, now=shelf.NOW) is None


@pytest.mark.parametrize("outcome", list(Outcome))
def test_the_exit_code_is_the_outcome(outcome: Outcome) -> None:
    """Finished accepts every honest verdict; Promoted accepts a promotion only."""
    resource = ended_as(outcome)
    finished = follow.ending(resource, until=Until.FINISHED, now=shelf.NOW)
    promoted = follow.ending(resource, until=Until.PROMOTED, now=shelf.NOW)
    assert finished is not None
    assert promoted is not None
    assert finished.code is (Exit.DONE if outcome.successful else Exit.BAD_OUTCOME)
    assert promoted.code is (Exit.DONE if outcome is Outcome.PROMOTED else Exit.BAD_OUTCOME)
    assert f"digits-r1 {outcome}" in finished.message


@pytest.mark.parametrize("seconds,ends", [(0, False), (59, False), (60, True), (3_600, True)])
def test_a_stalled_resource_is_given_a_minute(*, seconds: int, ends: bool) -> None:
    """A retry may help it; then the reason is told and the code says that a person is needed."""
    resource = stalled_since(shelf.NOW - timedelta(seconds=seconds))
    ending = follow.ending(resource, until=Until.FINISHED, now=shelf.NOW)
    assert (ending is not None) is ends
    if ending:
        assert ending.code is Exit.STALLED
        assert "Deployment missing does not exist" in ending.message


def test_a_suspended_resource_ends_it_at_once() -> None:
    """It would wait for ever."""
    finished = shelf.resource("promoted")
    frozen = finished.model_copy(update={"status": finished.status.model_copy(update={"stage": Stage.SUSPENDED})})
    assert follow.ending(frozen, until=Until.FINISHED, now=shelf.NOW) == follow.Ending(
        Exit.STALLED, "suspended: set spec.suspend to false to go on"
    )


def test_a_version_that_waits_for_approval_ends_it_at_once() -> None:
    """A person has to act, and is told how."""
    finished = shelf.resource("promoted")
    asked = {"stage": Stage.AWAITING_APPROVAL, "message": "version 3 waits for approval: approve it"}
    waiting = finished.model_copy(update={"status": finished.status.model_copy(update=asked)})
    assert follow.ending(waiting, until=Until.FINISHED, now=shelf.NOW) == follow.Ending(Exit.STALLED, asked["message"])


def reader(*answers: ModelOptimization | Unreachable) -> Callable[[], ModelOptimization]:
    """What reading the resource brings, one after the other."""
    coming: Iterator[ModelOptimization | Unreachable] = iter(answers)

    def read() -> ModelOptimization:
        answer = next(coming)
        if isinstance(answer, Unreachable):
            raise answer
        return answer

    return read


def test_a_log_has_one_line_a_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stays the same is not repeated, and an API server that is away for a while does not end it."""
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    states = [shelf.resource(moment) for moment in MOMENTS for _ in range(2)]
    page = StringIO()
    ended = follow.follow(
        reader(states[0], Unreachable("the API server does not answer"), *states),
        until=Until.PROMOTED,
        timeout=60,
        console=Console(file=page, width=160, force_terminal=False, color_system=None),
    )
    lines = [line.partition("  ")[2] for line in page.getvalue().splitlines()]
    assert ended.code is Exit.DONE
    words = "Optimizing the Optimizing Gating RollingOut Baking Monitoring"
    assert [line.split()[0] for line in lines] == words.split()
    assert "trial 9 of 12" in lines[0]


def test_a_timeout_is_an_exit_code_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """The run goes on; only the watching ends."""
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    ended = follow.follow(
        lambda: shelf.resource("optimizing"),
        until=Until.FINISHED,
        timeout=0.01,
        console=Console(file=StringIO(), force_terminal=False),
    )
    assert ended.code is Exit.TIMEOUT


def test_a_terminal_gets_a_live_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last picture stays on the screen."""
    monkeypatch.setattr(follow, "POLL_SECONDS", 0.0)
    page = StringIO()
    states = [shelf.resource(moment) for moment in MOMENTS]
    follow.follow(
        reader(Unreachable("away"), *states),
        until=Until.FINISHED,
        timeout=60,
        console=Console(file=page, width=120, height=60, force_terminal=True),
    )
    assert "version 2 serves" in page.getvalue()
