"""Worlds whose canary gets its requests by a route, for tests that begin somewhere in its trial."""

from retune.metrics import ROLLBACK_REASONS
from retune.plan.rollout.withdrawing import RELEASE_SECONDS
from retune.traffic import Backend, Pair, Rule
from tests.unit.plan.reading import is_rejected, last_of, rollout_of
from tests.unit.plan.server import STABLE, TRIED
from tests.unit.plan.trial import hold, prove, strategy
from tests.unit.plan.world import World, spec

PAIR = Pair(STABLE, TRIED)
OTHERS: Rule = (Backend("other", 5),)
BEFORE: tuple[Rule, ...] = ((Backend(STABLE),), OTHERS, (Backend("other", 1), Backend(STABLE, 3)))
ROLLOUT = strategy(kind="HTTPRoute", route={"name": "digits"})


def asked(**fields: object) -> World:
    """Return a world whose candidate asks for a canary by a route."""
    world = World(**({"spec": spec(rollout=ROLLOUT), "wanted": 9, "rules": BEFORE} | fields))  # type: ignore[arg-type]
    world.run_to_rollout()
    return world


def proven(**fields: object) -> World:
    """Return a world whose canary has answered golden requests, and what its first step gives it."""
    world = asked(**fields)
    prove(world)
    world.reconcile()
    return world


def on_target(world: World) -> World:
    """Let the last share pass, so that the target is being given the version; returns the world."""
    hold(world)
    assert rollout_of(world).injected
    return world


def share(world: World) -> set[int]:
    """Return the canary's share in the rules that serve the target."""
    assert world.rules is not None
    return {PAIR.effective(rule) for rule in (world.rules[0], world.rules[2])}


def rest(world: World) -> None:
    """Let proxies hear of it, and everything come to rest."""
    for _ in range(3):
        world.wait(RELEASE_SECONDS + 1)
        world.reconcile()


def is_back(world: World) -> bool:
    """Whether nothing is left of the trial, and the rules are as they were."""
    there = (world.beside, world.service, world.resource.status.canary_route)
    return there == (None, None, None) and world.rules == BEFORE


def ended(world: World, reason: str) -> bool:
    """Whether the trial ended for this reason, and the version may be proposed again."""
    assert reason in ROLLBACK_REASONS
    rest(world)
    nothing = (world.beside, world.service, world.resource.status.canary_route, world.resource.status.rollout)
    return nothing == (None,) * 4 and last_of(world).reason == reason and not is_rejected(world)
