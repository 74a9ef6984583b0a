"""Jobs that wait in a queue, or that it has admitted with fewer workers: what is said of them, and what it changes."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from retune.api.status import ConditionType, Outcome, Stage, Trials
from retune.plan.draft import condition_of
from retune.plan.jobs import progress_of
from retune.plan.observed import Job, JobPhase, Queue
from tests.unit.plan.test_changes_of_mind import run_to_search
from tests.unit.plan.world import World, spec

NOON = datetime(2026, 11, 25, 12, tzinfo=UTC)
FULL = "insufficient unused quota for cpu in flavor default, 3 more needed"
SEARCH = Job("digits-r1-search", "u-1", JobPhase.RUNNING, queue=Queue("team"), workers=4, asked=4)
HOURS = 10 * 3600


@pytest.mark.parametrize(
    "job,words",
    [
        (SEARCH, "runs"),
        (replace(SEARCH, workers=1), "runs: 1 of 4 workers admitted by queue team"),
        (replace(SEARCH, workers=1, asked=None), "runs"),
        (replace(SEARCH, phase=JobPhase.SUSPENDED), "waits for admission by queue team"),
        (
            replace(SEARCH, phase=JobPhase.SUSPENDED, queue=Queue("team", NOON)),
            "waits for admission by queue team since 2026-11-25 12:00:00 UTC",
        ),
        (
            replace(SEARCH, phase=JobPhase.SUSPENDED, queue=Queue("team", NOON, FULL)),
            f"waits for admission by queue team since 2026-11-25 12:00:00 UTC: {FULL}",
        ),
        (replace(SEARCH, phase=JobPhase.SUSPENDED, queue=None), "waits for admission by its queue"),
    ],
)
def test_a_sentence_says_which_queue_since_when_why_and_how_many_workers_run(job: Job, words: str) -> None:
    """Nothing is said of a queue while all that were asked for run."""
    assert progress_of(job)[1] == f"Job digits-r1-search {words}"


def admitted(world: World, name: str, workers: int) -> None:
    """Have a queue admit a Job with so many workers of four."""
    world.jobs[name] = replace(
        world.jobs[name], phase=JobPhase.RUNNING, workers=workers, asked=4, running_since=world.now
    )


def sentence(world: World) -> str:
    """What is told of the run."""
    shown = condition_of(world.resource.status, ConditionType.OPTIMIZING)
    assert shown is not None
    return shown.message


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_a_search_ends_the_same_with_however_many_workers(workers: int) -> None:
    """Its trials are the run's, and not a worker's."""
    world = World(spec=spec(execution={"queueName": "team"}, search={"parallelism": 4, "maxTrials": 12}))
    search = run_to_search(world)
    admitted(world, search, workers)
    world.reconcile()
    assert ("of 4 workers" in sentence(world)) is (workers < 4)
    world.finish(search)
    world.reconcile()
    assert world.resource.status.run is not None
    assert world.resource.status.run.trials.total == 12
    world.promote()
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.outcome is Outcome.PROMOTED


def test_a_search_that_its_queue_takes_back_waits_and_keeps_what_it_has_done() -> None:
    """For longer than it may run, and more than once: its time is that of running alone, and its trials stay."""
    world = World(spec=spec(execution={"queueName": "team"}, search={"parallelism": 4, "maxTrials": 12}))
    search = run_to_search(world)
    for workers in (4, 1):
        admitted(world, search, workers)
        world.trials = Trials(total=12, done=5)
        world.reconcile()
        queue = Queue("team", world.now, "Preempted to accommodate a workload")
        world.jobs[search] = replace(
            world.jobs[search], phase=JobPhase.SUSPENDED, queue=queue, running_since=None, workers=4
        )
        world.trials = None
        world.wait(HOURS)
        world.reconcile()
        assert sentence(world).endswith("UTC: Preempted to accommodate a workload")
        assert world.resource.status.stage is Stage.OPTIMIZING
        assert world.resource.status.run is not None
        assert world.resource.status.run.trials.done == 5
        assert not world.jobs[search].expired
    world.promote()
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.outcome is Outcome.PROMOTED
