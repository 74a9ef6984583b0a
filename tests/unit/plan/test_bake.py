"""The bake by example: what live traffic says of a version, as far as its numbers prove something."""

from typing import Any

import pytest

from retune.api.base import seconds
from retune.api.status import ConditionType, Outcome, Stage
from retune.plan.observed import Heard, LiveNumber
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, rollout_of, settle_back
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.world import World, spec

WATCHED: dict[str, Any] = {
    "performance": {
        "signals": [
            {"name": "error-rate", "kind": "ErrorRate", "limit": "0.05"},
            {"name": "p95-latency", "kind": "Latency", "limit": "0.5"},
        ]
    }
}


def bake_hearing(counts: Heard | None, *, monitoring: dict[str, Any] | None = None) -> World:
    """Return a world whose bake is over, and in which the new pods have counted this."""
    world = World(spec=spec(monitoring=monitoring) if monitoring else spec())
    world.run_to_bake()
    world.counts = counts
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    return world


@pytest.mark.parametrize("monitoring", [None, WATCHED])
def test_half_of_the_requests_failing_turns_back_at_once_and_rejects(monitoring: dict[str, Any] | None) -> None:
    """Fault 25: pods that are ready and answer 500 are no champion; the sentence has the numbers."""
    world = World(spec=spec(monitoring=monitoring) if monitoring else spec())
    world.run_to_bake()
    world.counts = Heard(pods=2, requests=4000, errors=2000)
    world.wait(5)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_BACK
    assert reason_of(world, ConditionType.ROLLED_OUT) == "LiveErrors"
    assert "2000 of 4000 requests failed" in message_of(world, ConditionType.ROLLED_OUT)
    settle_back(world)
    assert is_rejected(world)


@pytest.mark.parametrize(
    ("requests", "errors", "is_promoted", "is_counted"),
    [
        (4000, 2000, False, True),
        (50, 25, False, True),
        (3, 1, True, False),
        (3, 3, True, False),
        (400, 3, True, False),
        (104, 6, False, False),
        (100000, 5300, False, False),
        (100000, 5600, False, True),
    ],
)
def test_errors_count_as_far_as_their_number_proves_something(
    requests: int, errors: int, *, is_promoted: bool, is_counted: bool
) -> None:
    """What chance may explain rejects nothing; beyond the limit by enough requests, but not surely, it is a doubt.

    Of 100,000 requests, 5,300 are four standard deviations beyond the limit in one look, and no proof in many looks.
    """
    world = bake_hearing(Heard(pods=1, requests=requests, errors=errors), monitoring=WATCHED)
    assert (champion_of(world).version == 2) is is_promoted
    settle_back(world)
    assert is_rejected(world) is is_counted


@pytest.mark.parametrize(
    ("slow", "saturation", "is_promoted", "is_counted"),
    [(0, None, True, False), (300, None, False, True), (300, 0.95, False, False), (40, None, True, False)],
)
def test_latency_counts_unless_the_processor_is_short(
    slow: int, saturation: float | None, *, is_promoted: bool, is_counted: bool
) -> None:
    """A percentile is beyond its limit when more requests than it allows took longer."""
    buckets = {0.1: 1000.0 - slow, 0.5: 1000.0 - slow, 1.0: 1000.0, float("inf"): 1000.0}
    counts = Heard(pods=1, requests=1000, errors=0, buckets=buckets, saturation=saturation)
    world = bake_hearing(counts, monitoring=WATCHED)
    assert (champion_of(world).version == 2) is is_promoted
    settle_back(world)
    assert is_rejected(world) is is_counted


def test_requests_between_two_bounds_of_a_histogram_are_a_doubt_and_no_proof() -> None:
    """Whether they took longer than a limit that lies between the bounds is a guess; the version is not rejected."""
    buckets = {0.1: 0.0, 1.0: 1000.0, float("inf"): 1000.0}
    world = bake_hearing(Heard(pods=1, requests=1000, errors=0, buckets=buckets), monitoring=WATCHED)
    settle_back(world)
    assert last_of(world).reason == "LiveLatency"
    assert not is_rejected(world)


def test_a_version_is_not_held_to_what_the_champion_did_not_keep() -> None:
    """Where errors have another cause, the champion has them too: only what is worse than its own turns back."""
    world = World(spec=spec(monitoring=WATCHED))
    world.run_to_bake()
    monitoring = world.resource.status.monitoring
    assert monitoring is not None
    signal = {"name": "error-rate", "verdict": "Breach", "value": "0.1"}
    suffering = type(monitoring).model_validate(monitoring.to_dict() | {"signals": [signal]})
    world.update(status=world.resource.status.model_copy(update={"monitoring": suffering}))
    world.counts = Heard(pods=1, requests=4000, errors=360)
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    assert champion_of(world).version == 2


def test_errors_that_the_champion_had_too_are_not_the_version_s() -> None:
    """Clients that send what the server answers with 500 do so before and after; worse than that still turns back."""
    world = World()
    world.counts = Heard(pods=1, requests=10000, errors=1000)
    world.run_to_bake()
    assert rollout_of(world).errors_before == "0.100000"
    world.counts = Heard(pods=1, requests=4000, errors=410)
    world.wait(5)
    world.reconcile()
    assert stage_of(world) is Stage.BAKING
    world.counts = Heard(pods=1, requests=4000, errors=2000)
    world.reconcile()
    assert stage_of(world) is Stage.ROLLING_BACK


def test_a_version_that_refuses_more_than_the_champion_did_goes_back_and_is_not_rejected() -> None:
    """Clients err before and after; a version that answers half of what comes with 400 has been seen to fail at it."""
    world = World()
    world.counts = Heard(pods=1, requests=10000, errors=0, refused=1000)
    world.run_to_bake()
    assert rollout_of(world).refused_before == "0.100000"
    world.counts = Heard(pods=1, requests=4000, errors=0, refused=430)
    world.wait(5)
    world.reconcile()
    assert stage_of(world) is Stage.BAKING
    world.counts = Heard(pods=1, requests=4000, errors=0, refused=2000)
    world.reconcile()
    settle_back(world)
    assert last_of(world).reason == "LiveErrors"
    assert "2000 of 4000 requests were refused (with a status of 400 to 499), beside 10.00%" in last_of(world).message
    assert not is_rejected(world)


def test_a_version_that_fails_as_much_as_the_champion_did_is_not_doubted_for_a_little_more() -> None:
    """Where the champion was beyond the limit, an equal version shows more than it in half of all cases."""
    world = World()
    world.counts = Heard(pods=1, requests=10000, errors=1000)
    world.run_to_bake()
    world.counts = Heard(pods=1, requests=4000, errors=410)
    world.wait(seconds(world.spec.rollout.bake_time))
    world.reconcile()
    assert champion_of(world).version == 2


@pytest.mark.parametrize(("value", "is_counted"), [(0.08, False), (0.33, True)])
def test_a_queried_share_of_errors_counts_as_far_as_the_requests_prove_it(value: float, *, is_counted: bool) -> None:
    """Two hundred requests prove a third, and not eight in a hundred, to be beyond five."""
    queried = {"name": "errors", "kind": "ErrorRate", "limit": "0.05", "query": "sum(rate(x[{{window}}]))"}
    monitoring = {"performance": {"prometheus": {"server": "main"}, "signals": [queried]}}
    number = LiveNumber("errors", value, "Measured", f"{value}.")
    world = bake_hearing(Heard(pods=1, requests=200, numbers=(number,)), monitoring=monitoring)
    settle_back(world)
    assert last_of(world).reason == "LiveErrors"
    assert is_rejected(world) is is_counted


def test_a_query_without_a_count_is_a_doubt_and_no_proof() -> None:
    """A share of unknown numbers rolls back once the bake is over, and rejects nothing."""
    queried = {"name": "errors", "kind": "ErrorRate", "limit": "0.05", "query": "sum(rate(x[{{window}}]))"}
    monitoring = {"performance": {"prometheus": {"server": "main"}, "signals": [queried]}}
    number = LiveNumber("errors", 0.33, "Measured", "0.33.")
    world = bake_hearing(Heard(numbers=(number,)), monitoring=monitoring)
    settle_back(world)
    assert last_of(world).reason == "LiveErrors"
    assert not is_rejected(world)


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        (Heard(pods=1, requests=4000, errors=3), "In its bake: 3 of 4000 requests failed"),
        (Heard(pods=1, requests=0, errors=0), "Baked without traffic: no request was answered"),
        (Heard(pods=1, requests=43, errors=0), "Baked without a verdict on live traffic"),
        (Heard(pods=1, requests=400, errors=0, trouble="pod z: silent"), "not every pod was read: pod z: silent"),
        (Heard(trouble="pod 10.0.0.1: no answer"), "Baked without being listened to: pod 10.0.0.1: no answer"),
        (None, "Baked without being listened to"),
    ],
)
def test_a_promotion_says_what_was_heard_in_the_bake(counts: Heard | None, words: str) -> None:
    """Silence is told as silence."""
    world = bake_hearing(counts)
    assert champion_of(world).version == 2
    assert words in message_of(world, ConditionType.ROLLED_OUT)


def test_errors_under_a_template_that_others_changed_reject_nothing() -> None:
    """They may be those of the other image."""
    world = World()
    world.run_to_bake()
    world.edit_template()
    world.reconcile()
    world.settled = True
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.counts = Heard(pods=2, requests=4000, errors=2000)
    world.reconcile()
    settle_back(world)
    assert last_of(world).outcome is Outcome.ROLLED_BACK
    assert not is_rejected(world)
