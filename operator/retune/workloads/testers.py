"""Rules of a route for testers: copies of those that serve the target, for requests that have one more header.

Of two matches that a request fulfils alike, the one with more headers counts. So a copy goes before its rule wherever
it is in the list; at the end of it, it takes no request from a rule that others have made as narrow. It is told by what
it says: a rule's name, which is no part of the older releases of the Gateway API, is for those who own the route.
"""

import copy

from retune.api.base import Json
from retune.api.routed import RouteHeader
from retune.traffic import Pair
from retune.workloads.rules import backends

MOST_RULES, MOST_MATCHES, MOST_HEADERS = 16, 128, 16
"""Limits of the Gateway API: rules and matches of a route, headers of a match."""
_NOT_COPIED = ("name", "sessionPersistence")
"""What may be in a route once: the name of a rule, and that of a session."""
_ANY: Json = {"path": {"type": "PathPrefix", "value": "/"}}
"""What a rule without matches matches."""


def for_testers(rule: Json, header: RouteHeader, pair: Pair, *, namespace: str) -> Json:
    """Return the copy of a rule for testers: its filters and timeouts, and the canary as its only backend.

    Args:
        rule: Serves the target.
        header: What testers' requests have.
        pair: The Services of target and canary.
        namespace: The route's own.
    """
    copied: Json = copy.deepcopy({field: value for field, value in rule.items() if field not in _NOT_COPIED})
    named = zip(copied["backendRefs"], backends(rule, namespace=namespace), strict=True)
    model = next(ref for ref, backend in named if backend.name == pair.service)
    asked = {"type": "Exact", "name": header.name, "value": header.value}
    matches = [match | {"headers": [*(match.get("headers") or ()), asked]} for match in _matches(copied)]
    return copied | {"matches": matches, "backendRefs": [model | {"name": pair.canary, "weight": 1}]}


def places(raw: Json, header: RouteHeader, pair: Pair) -> tuple[int, ...]:
    """Return which rules of a route are for testers: the canary is their only backend, and every match has the header.

    Args:
        raw: JSON of the route.
        header: What testers' requests have.
        pair: The Services of target and canary.
    """
    namespace = raw["metadata"]["namespace"]
    return tuple(
        index
        for index, rule in enumerate(raw["spec"].get("rules") or ())
        if [backend.name for backend in backends(rule, namespace=namespace)] == [pair.canary]
        and all(any(_is(asked, header) for asked in match.get("headers") or ()) for match in _matches(rule))
    )


def obstacle(raw: Json, header: RouteHeader, pair: Pair) -> str | None:
    """Return why rules of a route can have no copies for testers, as the end of a sentence about it; None: they can.

    Args:
        raw: JSON of the route, without such copies.
        header: What testers' requests have.
        pair: The Services of target and canary.
    """
    rules, namespace = raw["spec"].get("rules") or (), raw["metadata"]["namespace"]
    serving = [rule for rule in rules if pair.is_served_by(backends(rule, namespace=namespace))]
    matches = [match for rule in serving for match in _matches(rule)]
    if any(header.is_named(asked["name"]) for match in matches for asked in match.get("headers") or ()):
        return f"asks for header {header.name} itself: take another one for testers"
    if any(len(match.get("headers") or ()) >= MOST_HEADERS for match in matches):
        return f"has a match with {MOST_HEADERS} headers, so that there is no room for that of testers: take one out"
    if len(rules) + len(serving) > MOST_RULES:
        return f"has {len(rules)} rules, so that there is no room for those of testers: {MOST_RULES} are allowed in all"
    if sum(len(_matches(rule)) for rule in rules) + len(matches) > MOST_MATCHES:
        return f"has so many matches that there is no room for those of testers: {MOST_MATCHES} are allowed in all"
    return None


def _matches(rule: Json) -> list[Json]:
    return rule.get("matches") or [_ANY]


def _is(asked: Json, header: RouteHeader) -> bool:
    is_exact = asked.get("type", "Exact") == "Exact"
    return is_exact and header.is_named(asked["name"]) and asked["value"] == header.value
