"""Headroom in the planner: what teaches the correction, when the signal is raised, and what its run learns from."""

from typing import Any

from retune.api.watched import Verdict
from retune.contract.requests import CheckRequest, GatherRequest
from tests.answers import check
from tests.unit.plan.test_monitoring import HOUR, PRODUCTION, judged, next_window, signal, watched
from tests.unit.plan.test_triggers import QUICK, running
from tests.unit.plan.world import World

WATCHED: dict[str, Any] = {"production": PRODUCTION, "window": "1h", "delay": "1m"}
NAME = "Headroom"


def asked(world: World) -> CheckRequest:
    """Return what the next window's check is asked, and let it end with nothing to say."""
    name = next_window(world)
    request = world.requests[name]
    assert isinstance(request, CheckRequest)
    world.finish(name, check(request))
    world.reconcile()
    return request


def test_the_windows_before_teach_as_far_as_the_champion_served() -> None:
    """The first window has none before it; later ones have all of this champion's, up to the number that is wanted."""
    world = watched(monitoring=WATCHED | {"headroom": {"windows": 2}})
    requests = [asked(world) for _ in range(4)]
    spans = [request.learned and (request.learned.start, request.learned.end) for request in requests]
    first = requests[0].window.start
    assert spans == [
        None,
        (first, first + HOUR),
        (first, first + 2 * HOUR),
        (first + HOUR, first + 3 * HOUR),
    ]


def test_nobody_is_asked_for_headroom_without_labels() -> None:
    """Without a source of labels there is nothing to learn from."""
    world = watched(monitoring=WATCHED | {"production": {"uri": "pvc://store/production"}})
    requests = [asked(world) for _ in range(2)]
    assert [(request.headroom, request.learned) for request in requests] == [(None, None), (None, None)]


def test_headroom_starts_a_run_that_learns_from_what_taught_it() -> None:
    """A verdict raises it, as it is on several windows; the run's data begins with the first one that taught it."""
    world = watched(triggers=QUICK, monitoring=WATCHED | {"headroom": {"windows": 3}})
    for _ in range(4):
        judged(world, headroom=Verdict.CLEAR)
    assert (signal(world, NAME).raised, running(world)) == (False, None)
    judged(world, headroom=Verdict.BREACH)
    assert (signal(world, NAME).raised, running(world)) == (True, NAME)
    first = signal(world, NAME).first_bad
    assert first is not None
    (gather,) = (request for request in world.requests.values() if isinstance(request, GatherRequest))
    assert gather.changed == (first - 3) * HOUR


def test_headroom_is_told_and_starts_nothing_where_no_technique_learns() -> None:
    """A smaller or faster model has no less error."""
    techniques = [{"name": "int8", "type": "Quantization"}, {"name": "graph", "type": "GraphOptimization"}]
    world = watched(triggers=QUICK, monitoring=WATCHED, techniques=techniques)
    for _ in range(3):
        judged(world, headroom=Verdict.BREACH)
    assert signal(world, NAME).raised
    assert running(world) is None
    assert world.resource.status.triggers.pending == ()


def test_headroom_of_a_labelled_window_counts_once() -> None:
    """Labels that come late are seen by several checks; the window that they belong to counts a single time."""
    late = {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "3h"}}
    world = watched(triggers=QUICK, monitoring=WATCHED | {"production": late})
    for _ in range(5):
        judged(world, headroom=Verdict.BREACH)
    before = signal(world, NAME)
    name = next_window(world)
    request = world.requests[name]
    assert isinstance(request, CheckRequest)
    again = check(request, headroom=Verdict.BREACH).model_copy(update={"labelled_window": before.window})
    world.finish(name, again)
    world.reconcile()
    assert signal(world, NAME).streak == before.streak


def test_headroom_that_is_small_again_is_raised_no_more() -> None:
    """What is merely not proven any more goes on; a small one ends it."""
    world = watched(monitoring=WATCHED, triggers={"signals": ["Drift"]})
    seen = []
    for verdict in (Verdict.BREACH, Verdict.BETWEEN, Verdict.CLEAR):
        judged(world, headroom=verdict)
        seen.append(signal(world, NAME).raised)
    assert seen == [True, True, False]
