"""What a version is worth: noted when it is accepted and when it becomes champion, and never at rest."""

from dataclasses import replace
from typing import Any

import pytest

from retune.api.worth import Worth
from retune.contract.results import JudgeResult
from retune.contract.worth import JudgedWorth, Span
from retune.plan.observed import Target
from tests.answers import WORTH
from tests.unit.plan.reading import champion_of
from tests.unit.plan.world import World, spec

THROUGHPUT: dict[str, Any] = {
    "performance": {
        "signals": [{"name": "rate", "kind": "Throughput"}, {"name": "p95", "kind": "Latency", "limit": "9"}]
    }
}


class Limited(World):
    """A world whose target has another CPU limit, or none."""

    cpu_limit: float | None = 2.0

    @property
    def target(self) -> Target | None:
        """The target with that limit."""
        target = super().target
        assert target is not None
        return replace(target, containers=(replace(target.containers[0], cpu_limit=self.cpu_limit),))


def promoted(world: World, worth: JudgedWorth | None = WORTH) -> World:
    """Carry a world to a promotion whose judge says this."""
    world.reconcile()
    for _ in range(3):
        (name,) = world.active_jobs()
        result = world.answer(name)
        if isinstance(result, JudgeResult):
            result = result.model_copy(update={"worth": worth})
        world.finish(name, result)
        world.reconcile()
    world.settled = True
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    world.wait(600)
    world.reconcile()
    assert champion_of(world).version == 2
    return world


def worth_of(world: World) -> Worth:
    """The one thing that the status says of worth."""
    (worth,) = world.resource.status.worth
    return worth


def judged(low: float, value: float, high: float) -> JudgedWorth:
    """A judge's word with this ratio."""
    return WORTH.model_copy(update={"ratio": Span(value=value, low=low, high=high)})


def hearing(rate: str | None) -> World:
    """A world of six replicas that answer so many requests a second."""
    world = World(spec=spec(monitoring=THROUGHPUT), wanted=6)
    world.reconcile()
    for _ in range(3):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    monitoring = world.resource.status.monitoring
    assert monitoring is not None
    signal = {"name": "rate", "verdict": "Clear", "value": rate}
    heard = type(monitoring).model_validate(monitoring.to_dict() | {"signals": [signal]})
    world.update(status=world.resource.status.model_copy(update={"monitoring": heard}))
    world.settled = True
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    world.wait(600)
    world.reconcile()
    return world


def test_a_promotion_notes_what_the_same_traffic_needs() -> None:
    """Six replicas by 3.8, the lower end of the ratio, are two; the costs are those of 730 hours at 0.04."""
    worth = worth_of(promoted(World(wanted=6)))
    assert (worth.version, worth.compared_with) == (2, 1)
    assert (worth.requests_before, worth.requests_after, worth.limit_ms) == ("120", "480", "5.25")
    assert (worth.ratio, worth.ratio_low, worth.ratio_high, worth.limit_of) == ("4", "3.8", "4.2", "Champion")
    assert (worth.replicas, worth.replicas_needed) == (6, 2)
    assert (worth.cores, worth.cost_before, worth.cost_needed) == ("1", "175.2", "58.4")
    assert (worth.live_requests, worth.live_replicas) == (None, None)


@pytest.mark.parametrize(
    ("replicas", "ratio", "needed"),
    [
        (1, (3.8, 4.0, 4.2), 1),
        (2, (3.8, 4.0, 4.2), 2),
        (3, (3.8, 4.0, 4.2), 2),
        (12, (3.0, 4.0, 5.0), 4),
        (13, (3.0, 4.0, 5.0), 5),
        (6, (1.0, 1.5, 2.0), 6),
        (6, (0.9, 1.0, 1.1), 6),
        (1, (0.9, 1.0, 1.1), 1),
        (6, (0.5, 0.6, 0.7), 12),
        (3, (1e6, 1e6, 1e6), 2),
    ],
)
def test_replicas_are_counted_by_the_lower_end(replicas: int, ratio: tuple[float, ...], needed: int) -> None:
    """Never one where there were several, as many as before where no difference was shown, more for a slower one."""
    worth = worth_of(promoted(World(wanted=replicas), judged(*ratio)))
    assert (worth.replicas, worth.replicas_needed) == (replicas, needed)


@pytest.mark.parametrize(
    ("rate", "live", "needed"),
    [("100", 1, 2), ("1000", 3, 3), ("1.2e+03", 3, 3), (None, None, 2), ("often", None, 2), ("1e999999999", None, 2)],
)
def test_the_requests_of_now_may_need_more(rate: str | None, live: int | None, needed: int) -> None:
    """A replica answers 120 by 3.8 at least; the larger number counts, and what is no rate counts for nothing."""
    worth = worth_of(hearing(rate))
    assert (worth.live_replicas, worth.replicas_needed) == (live, needed)
    assert (worth.live_requests is None) is (live is None)


def test_what_counts_is_what_the_target_wants_when_it_is_promoted() -> None:
    """Between the gate and the promotion it may be scaled; afterwards nothing is written any more."""
    world = World(wanted=6)
    world.run_to_bake()
    assert (worth_of(world).version, worth_of(world).replicas) == (2, 6)
    world.wanted = 9
    world.wait(600)
    world.reconcile()
    assert (worth_of(world).replicas, worth_of(world).replicas_needed) == (9, 3)
    world.wanted = 2
    assert world.reconcile() == 0
    world.wait(24 * 3600)
    assert world.reconcile() == 0
    assert worth_of(world).replicas == 9


def test_a_recommended_version_says_what_it_would_be_worth() -> None:
    """Before anything goes live, so that a person knows what the approval brings."""
    world = World(spec=spec(mode="RecommendOnly"), wanted=6)
    world.run_to_rollout()
    assert world.resource.status.candidate is not None
    assert (worth_of(world).version, worth_of(world).replicas_needed) == (2, 2)
    assert world.reconcile() == 0


def test_a_target_of_no_replicas_needs_none_that_are_known() -> None:
    """The rates are told, replicas and costs are not."""
    world = World(spec=spec(mode="RecommendOnly"), wanted=0)
    world.run_to_rollout()
    worth = worth_of(world)
    assert (worth.requests_after, worth.replicas, worth.replicas_needed, worth.cost_before) == ("480", None, None, None)


@pytest.mark.parametrize(
    ("limit", "serving", "cores", "cost"),
    [
        (2.0, {}, "2", "350.4"),
        (0.5, {"pricePerCpuHour": "0.08"}, "0.5", "175.2"),
        (None, {"cores": 4}, "4", "700.8"),
        (None, {}, None, None),
        (1.0, {"pricePerCpuHour": "0"}, "1", "0"),
        (1.0, {"pricePerCpuHour": "999999999999999"}, "1", None),
    ],
)
def test_costs_are_those_of_the_cores_of_a_replica(
    limit: float | None, serving: dict[str, Any], cores: str | None, cost: str | None
) -> None:
    """The container's own number comes first; without any there is no cost, and none that a status cannot hold."""
    world = Limited(spec=spec(serving=serving), wanted=6)
    world.cpu_limit = limit
    worth = worth_of(promoted(world))
    assert (worth.cores, worth.cost_before) == (cores, cost)
    assert worth.replicas_needed == 2


def test_a_judge_of_an_earlier_release_says_nothing() -> None:
    """The promotion is as good without."""
    assert promoted(World(wanted=6), None).resource.status.worth == ()


@pytest.mark.parametrize("back", ["1", "2"])
def test_a_rollback_takes_away_what_is_no_longer_true(back: str) -> None:
    """What served then was worth so much at another time; only what serves is said anything of."""
    world = promoted(World(wanted=6))
    world.change(manualNonce="again")
    world.reconcile()
    world.promote()
    assert (champion_of(world).version, worth_of(world).version, worth_of(world).compared_with) == (3, 3, 2)
    world.change(rollout={"rollbackTo": back})
    world.reconcile()
    for _ in range(4):
        for name in world.active_jobs():
            world.finish(name)
        world.settled = True
        world.reconcile()
    assert champion_of(world).version == int(back)
    assert world.resource.status.worth == ()
    assert world.reconcile() == 0


def test_a_version_that_is_taken_back_leaves_the_champion_s_worth() -> None:
    """The champion serves as before, so that what is said of it stays."""
    world = promoted(World(wanted=6))
    before = world.resource.status.worth
    world.change(manualNonce="again")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    assert [worth.version for worth in world.resource.status.worth] == [2, 3]
    world.change(rollout={"rollbackTo": "2"})
    world.reconcile()
    world.settled = True
    world.reconcile()
    assert world.resource.status.worth == before


@pytest.mark.parametrize("number", ["", "x", "-1", "0", "inf", "nan", "1e999999999", "1/0"])
def test_numbers_that_others_wrote_into_the_status_harm_nothing(number: str) -> None:
    """The version is promoted, and what cannot be reckoned with is left as it is."""
    world = World(wanted=6)
    world.run_to_bake()
    (worth,) = world.resource.status.worth
    spoiled = worth.model_copy(update={"ratio_low": number or "?"})
    world.update(status=world.resource.status.model_copy(update={"worth": (spoiled,)}))
    world.wait(600)
    world.reconcile()
    assert champion_of(world).version == 2
    assert worth_of(world) == spoiled
