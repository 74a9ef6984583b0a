"""A canary's share by the weights of a route: what it needs, how it is given, and what others have done to it since.

Others own the route: nothing but the weights of the rules that serve the target is changed, and copies of these rules
are added for testers. A change of theirs is never fought over. It ends the trial, with everything back at the champion.
"""

from dataclasses import dataclass

from retune.api.rollout import CanaryStep, Strategy
from retune.api.routed import CanaryRoute, RouteHeader
from retune.api.status import ConditionType, Stage, Version
from retune.plan.actions import CreateCanaryService, ShareRoute
from retune.plan.draft import Draft, Hold
from retune.plan.observed import Canary, Refusal, Route, Verb
from retune.plan.rollout.progress import LOOK_SECONDS, show, under_way, update
from retune.plan.rollout.steps import TurnBack
from retune.plan.rollout.withdrawing import (
    REFUSAL_RETRY_SECONDS,
    clear,
    note,
    originals,
    pair_of,
    tried,
    withdraw,
    written,
)
from retune.traffic import Pair, Rule

_NOT_ITS_DOING = "the route says nothing of it"
_Rules = tuple[tuple[int, Rule], ...]
"""Rules by their place in the route."""


@dataclass(frozen=True)
class _Changes:
    """What a route lacks for a share."""

    rules: _Rules = ()
    """Rules that have to change."""
    opened: tuple[int, ...] = ()
    """Rules of which testers need a copy."""

    def __bool__(self) -> bool:
        """Whether it lacks anything."""
        return bool(self.rules or self.opened)


def testers(draft: Draft) -> RouteHeader | None:
    """Return the header whose requests the spec gives to a canary whatever its share is."""
    return draft.spec.rollout.trial.traffic.header


def _is_switch(draft: Draft) -> bool:
    return draft.spec.rollout.strategy is Strategy.BLUE_GREEN


def is_wanted(draft: Draft, record: CanaryRoute) -> bool:
    """Whether the spec asks for this route, Service and testers, and for shares or a switch as it did."""
    ref = draft.spec.rollout.trial.traffic.route
    if ref is None or record.testers != testers(draft) or record.switched != _is_switch(draft):
        return False
    return ref.name == record.name and ref.service in {None, record.service}


def is_reached(draft: Draft, canary: Canary) -> bool:
    """Whether requests reach a canary in the way that the spec asks for."""
    record = draft.status.canary_route
    if draft.spec.rollout.trial.traffic.route is None:
        return canary.service is None
    if record is None or not is_wanted(draft, record):
        return False
    return canary.service == record.service and draft.observed.traffic.service is not None


def unfinished(draft: Draft) -> str | None:
    """Return what is still put back of an earlier trial, as a sentence; None where a new one may begin."""
    record = draft.status.canary_route
    if record is None or (withdraw(draft) if is_wanted(draft, record) else clear(draft)):
        return None
    return f"HTTPRoute {record.name} is put back as it was before an earlier trial"


def obstacle(draft: Draft) -> Refusal | None:
    """Return why no canary can be given a share by the route that the spec names."""
    ref, route = draft.spec.rollout.trial.traffic.route, draft.observed.traffic.route
    if ref is None:
        return None
    if route is None or route.name != ref.name:
        return Refusal(Verb.CANARY, "CanaryImpossible", f"HTTPRoute {ref.name} is being looked at")
    if route.obstacle or route.service is None:
        return route.obstacle
    pair = pair_of(draft, CanaryRoute(name=route.name, service=route.service))
    why = pair.obstacle(route.rules) or route.untestable
    return Refusal(Verb.CANARY, "CanaryImpossible", f"HTTPRoute {route.name} {why}") if why else None


def prepare(draft: Draft) -> str | None:
    """Write down which route a trial takes a share of, before anything is made; returns the Service that it names."""
    route = draft.observed.traffic.route
    if draft.spec.rollout.trial.traffic.route is None or route is None or route.service is None:
        return None
    record = CanaryRoute(name=route.name, service=route.service, testers=testers(draft), switched=_is_switch(draft))
    draft.update(canary_route=record)
    if draft.observed.traffic.service is None:
        draft.do(CreateCanaryService(route.service))
    return route.service


def present(draft: Draft, weight: int) -> int:
    """Return which share there is by the weights of the route; where none is used, the one that is asked for."""
    record, route = draft.status.canary_route, draft.observed.traffic.route
    if record is None or route is None:
        return weight
    pair = pair_of(draft, record)
    return min((pair.effective(rule) for _, rule in tried(pair, route)), default=0)


def share(draft: Draft, canary: Canary, step: CanaryStep, candidate: Version) -> Hold | TurnBack | None:
    """Have the rules give the canary the step's weight, and wait until they are seen with it."""
    record, route = draft.status.canary_route, draft.observed.traffic.route
    if record is None:
        return None
    if route is None or (route.obstacle and not (route.gone or (route.version and route.looked_at))):
        return _unseen(draft, record, route)
    if route.obstacle:
        return _ended(draft, "RouteChanged" if route.gone else "RouteNotAccepted", candidate, route.obstacle.message)
    if record.withdrawing:
        if not withdraw(draft):
            return _stopped(draft, canary, candidate)
        record = note(draft, record, rules=(), given=False, opened=0, withdrawing=False, released_time=None)
    wanted = _wanted(draft, record, route, step.weight)
    if isinstance(wanted, str):
        return _ended(draft, "RouteChanged", candidate, f"HTTPRoute {route.name} {wanted}")
    gets = f"{step.weight} % of the requests" if step.weight else "the requests of testers"
    return _asked(draft, route, wanted, f"version {candidate.version} gets {gets}")


def _ended(draft: Draft, reason: str, candidate: Version, message: str) -> TurnBack:
    return TurnBack(reason, f"{draft.spec.rollout.on_trial}, version {candidate.version}: {message}", _NOT_ITS_DOING)


def _unseen(draft: Draft, record: CanaryRoute, route: Route | None) -> Hold:
    """Let the time of a weight begin again once it is seen that requests come by the route."""
    update(draft, under_way(draft), weight_start_time=None, requests_before=None)
    draft.wake(after=REFUSAL_RETRY_SECONDS if route else LOOK_SECONDS)
    if route is not None and route.obstacle is not None:
        return show(draft, Stage.ROLLING_OUT, route.obstacle.reason, route.obstacle.message)
    return show(draft, Stage.ROLLING_OUT, "SharingRoute", f"HTTPRoute {record.name} is being looked at")


def _stopped(draft: Draft, canary: Canary, candidate: Version) -> Hold:
    """Let the time of a weight begin again once the canary has pods to answer."""
    update(draft, under_way(draft), weight_start_time=None, requests_before=None)
    message = (
        f"Deployment {canary.workload.name} had no available pod, so that version {candidate.version} "
        "has no share of the requests for a moment"
    )
    return show(draft, Stage.ROLLING_OUT, "WithdrawingRoute", message)


def _wanted(draft: Draft, record: CanaryRoute, route: Route, percent: int) -> _Changes | str:
    """Return what has to change for a share, or why there can be none, as the end of a sentence."""
    pair = pair_of(draft, record)
    naming = tried(pair, route)
    if _is_closed_by_others(record, route, is_tried=bool(naming)):
        return "has not the rules for testers that it was given: others have changed them"
    if naming:
        return _weighed(draft, record, route, percent)
    if record.given and percent:
        return f"names Service {pair.canary} no more: others have changed its rules"
    why = _unshared(pair, route)
    if why is not None:
        return why
    serving = [(index, rule) for index, rule in enumerate(route.rules) if pair.is_served_by(rule)]
    rules = tuple(written(rule) for _, rule in serving)
    note(draft, record, rules=rules, given=False, opened=len(route.testers))
    is_opened = record.testers is None or bool(route.testers)
    return _Changes(
        tuple((index, pair.shared(rule, percent)) for index, rule in serving) if percent else (),
        () if is_opened else tuple(index for index, _ in serving),
    )


def _is_closed_by_others(record: CanaryRoute, route: Route, *, is_tried: bool) -> bool:
    """Whether rules for testers that have been there are not, or not all; they come in one write with the share."""
    if record.testers is None:
        return False
    return len(route.testers) != record.opened if record.opened else is_tried and not route.testers


def _unshared(pair: Pair, route: Route) -> str | None:
    """Return why the rules of others cannot give a canary requests, as the end of a sentence; None: they can."""
    theirs = [rule for index, rule in enumerate(route.rules) if index not in route.testers]
    return pair.obstacle(theirs) or (None if route.testers else route.untestable)


def _weighed(draft: Draft, record: CanaryRoute, route: Route, percent: int) -> _Changes | str:
    """Return the rules with a share of the canary that have another than the one that is wanted."""
    pair, before = pair_of(draft, record), originals(record)
    naming = tried(pair, route)
    is_ours = len(before) == len(naming) and all(
        pair.percent(rule, known) is not None for (_, rule), known in zip(naming, before, strict=True)
    )
    if not is_ours:
        return "has other weights than it was given: others have changed its rules"
    note(draft, record, given=percent > 0, opened=len(route.testers))
    shared = [(index, pair.shared(known, percent)) for (index, _), known in zip(naming, before, strict=True)]
    return _Changes(tuple(new for new, old in zip(shared, naming, strict=True) if new != old))


def _asked(draft: Draft, route: Route, wanted: _Changes, message: str) -> Hold | None:
    """Ask for what has to change; wait for the Gateways where none has to."""
    record, refusal = draft.status.canary_route, draft.refusal(Verb.CANARY)
    if record is None or (not wanted and route.looked_at):
        return None
    draft.wake(after=REFUSAL_RETRY_SECONDS if refusal else LOOK_SECONDS)
    if not wanted:
        message = f"{message}: the Gateways of HTTPRoute {route.name} have not looked at its weights yet"
        return show(draft, Stage.ROLLING_OUT, "SharingRoute", message)
    draft.do(
        ShareRoute(
            route.name, route.version, record.service, wanted.rules, testers=record.testers, opened=wanted.opened
        )
    )
    if refusal:
        return show(draft, Stage.ROLLING_OUT, refusal.reason, refusal.message)
    earlier = draft.refused_before(ConditionType.ROLLED_OUT)
    said = earlier or ("SharingRoute", f"{message} by HTTPRoute {route.name}")
    return show(draft, Stage.ROLLING_OUT, *said)
