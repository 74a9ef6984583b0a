"""The way back of a route: its rules as they were before the canary, whatever became of that and whoever asks.

The canary's pods go only after that, and a little later: a proxy goes on by what it knew for a moment. Rules that
others have changed meanwhile are not written over; the canary's share in them goes back to the target.
"""

from typing import Any

from retune.api.routed import CanaryRoute, RouteBackend, RouteRule
from retune.api.status import ConditionStatus, ConditionType
from retune.plan import names
from retune.plan.actions import RemoveCanaryService, ShareRoute
from retune.plan.draft import Draft
from retune.plan.observed import UNKNOWN, Route, Verb
from retune.plan.rollout.progress import LOOK_SECONDS
from retune.traffic import Backend, Pair, Rule

RELEASE_SECONDS = 10.0
"""How long the canary's pods stay when no rule names them any more."""
REFUSAL_RETRY_SECONDS = 60.0


def pair_of(draft: Draft, record: CanaryRoute) -> Pair:
    """Return the Services of target and canary."""
    return Pair(record.service, names.canary_service(draft.spec.target.ref.name))


def written(rule: Rule) -> RouteRule:
    """Return a rule as the status keeps it."""
    return RouteRule(backends=tuple(RouteBackend(name=backend.name, weight=backend.weight) for backend in rule))


def originals(record: CanaryRoute) -> list[Rule]:
    """Return the rules as the status keeps them."""
    return [tuple(Backend(backend.name, backend.weight) for backend in rule.backends) for rule in record.rules]


def tried(pair: Pair, route: Route) -> list[tuple[int, Rule]]:
    """Return the rules of others that name the canary, by their place in the route."""
    places = [index for index, rule in enumerate(route.rules) if pair.is_tried_in(rule) and index not in route.testers]
    return [(index, route.rules[index]) for index in places]


def note(draft: Draft, record: CanaryRoute, **fields: Any) -> CanaryRoute:
    """Change what is written down of the route; returns it as it is now."""
    changed = record.model_copy(update=fields)
    draft.update(canary_route=changed)
    return changed


def withdraw(draft: Draft) -> bool:
    """Have the rules as they were before the canary; returns whether that was so for long enough for its pods to go."""
    record, route = draft.status.canary_route, draft.observed.traffic.route
    if record is None or not record.rules:
        return True
    record = note(draft, record, withdrawing=True)
    if route is None or not _is_out(draft, record, route):
        return False
    if record.released_time is None or record.released_time > draft.now:
        record = note(draft, record, released_time=draft.now)
    if draft.observed.traffic.canary is None:
        return True
    left = draft.remaining(record.released_time or draft.now, RELEASE_SECONDS)
    if left > 0:
        draft.wake(after=left)
    return left <= 0


def _is_out(draft: Draft, record: CanaryRoute, route: Route) -> bool:
    """Whether no rule names the canary; asks for that where one does, or where it cannot be told."""
    pair = pair_of(draft, record)
    naming = tried(pair, route)
    if route.gone or (route.version and not naming and not route.testers):
        return True
    note(draft, record, released_time=None)
    if route.version:
        known: list[Rule] | list[None] = originals(record)
        known = known if len(known) == len(naming) else [None] * len(naming)
        rules = tuple((index, pair.alone(rule, before)) for (index, rule), before in zip(naming, known, strict=True))
        draft.do(ShareRoute(record.name, route.version, record.service, rules, closed=route.testers))
    _tell(draft, route)
    return False


def _tell(draft: Draft, route: Route) -> None:
    """Say what keeps the route from being put back, and try again later."""
    unreadable = None if route.version else route.obstacle
    refusal = draft.refusal(Verb.CANARY) or unreadable
    draft.wake(after=REFUSAL_RETRY_SECONDS if refusal else LOOK_SECONDS)
    if refusal:
        message = f"HTTPRoute {route.name} still gives a canary a share that it is to have no more: {refusal.message}"
        draft.condition(ConditionType.CANARY_POSSIBLE, ConditionStatus.FALSE, refusal.reason, message)


def clear(draft: Draft) -> bool:
    """Have nothing left of a canary that is gone but what was there before it; returns whether that is so."""
    record, service = draft.status.canary_route, draft.observed.traffic.service
    if record is None:
        return True
    if not withdraw(draft):
        return False
    if service is None:
        draft.update(canary_route=None)
        return True
    forget_what_goes_with_owner(draft)
    draft.do(RemoveCanaryService(service))
    draft.wake(after=REFUSAL_RETRY_SECONDS if draft.refusal(Verb.CANARY) else LOOK_SECONDS)
    return False


def forget_what_goes_with_owner(draft: Draft) -> None:
    """Let a resource that is deleted go where it may not remove what it owns: the garbage collector does that."""
    is_kept_from_it = draft.refusal(Verb.CANARY) is not None or draft.observed.traffic.service == UNKNOWN
    if is_kept_from_it and draft.resource.metadata.deletion_timestamp is not None:
        draft.update(canary_route=None)


def tend(draft: Draft) -> None:
    """Take the share of a canary away that has no pod to answer: its Service has nowhere to send requests."""
    record, canary = draft.status.canary_route, draft.observed.traffic.canary
    if record is not None and (record.withdrawing or canary is None or not canary.workload.available):
        withdraw(draft)
