"""The weights of a route's backends: who gets which share of the requests that a rule matches.

A canary gets a part of what its service gets, so that the shares of all others stay. What was there before can be told
from what is there now, which is how the change of somebody else is noticed.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from retune.traffic.base import ALL

MOST_WEIGHT = 1_000_000
MOST_BACKENDS = 16
"""Limits of the Gateway API."""


@dataclass(frozen=True)
class Backend:
    """Where a rule sends requests."""

    name: str
    """Name of a Service in the route's namespace; of anything else, a text that no Service can have as its name."""
    weight: int | None = None
    """None where the rule says none."""

    @property
    def counts(self) -> int:
        """Its weight as the Gateway API counts it."""
        return 1 if self.weight is None else self.weight


Rule = tuple[Backend, ...]
"""The backends of one rule, in order."""


@dataclass(frozen=True)
class Pair:
    """The Services of a target and of its canary."""

    service: str
    canary: str

    def is_tried_in(self, rule: Rule) -> bool:
        """Return whether a rule names the canary."""
        return any(backend.name == self.canary for backend in rule)

    def is_served_by(self, rule: Rule) -> bool:
        """Return whether a rule gives the target requests."""
        return any(backend.name == self.service and backend.counts for backend in rule)

    def shared(self, rule: Rule, percent: int) -> Rule:
        """Return a rule in which the canary gets a part of what the target's service gets.

        Nobody else's share changes. The canary's is never above `percent` but where it were nothing, and exact where
        the weights have room for it.

        Args:
            rule: As it was before the canary; names the service once and may be shared, see `obstacle`.
            percent: The canary's part, from 0 to 100; at 0 the rule stays as it was.
        """
        if not percent:
            return rule
        whole, times = _room(rule, self.service, percent)
        part = max(1, whole * percent // ALL)
        weights = {self.service: whole - part}
        kept = (replace(backend, weight=weights.get(backend.name, _times(backend, times))) for backend in rule)
        return (*kept, Backend(self.canary, part))

    def percent(self, rule: Rule, original: Rule) -> int | None:
        """Return which share a rule gives the canary; None where that is not what we have made of the original."""
        return next((part for part in range(1, ALL + 1) if rule == self.shared(original, part)), None)

    def effective(self, rule: Rule) -> int:
        """Return the canary's part of what both get, in percent, rounded."""
        canary = sum(backend.counts for backend in rule if backend.name == self.canary)
        both = canary + sum(backend.counts for backend in rule if backend.name == self.service)
        return round(ALL * canary / both) if both else 0

    def alone(self, rule: Rule, original: Rule | None) -> Rule:
        """Return a rule without the canary: as it was, or where others have changed it, with its share given back.

        Args:
            rule: As it is.
            original: As it was before; None where that is not known.
        """
        if original is not None and self.percent(rule, original) is not None:
            return original
        part = sum(backend.counts for backend in rule if backend.name == self.canary)
        others = tuple(backend for backend in rule if backend.name != self.canary)
        mine = next((index for index, backend in enumerate(others) if backend.name == self.service), None)
        if mine is None:  # they have left the canary alone: the target gets its share
            return tuple(Backend(self.service, part) if entry.name == self.canary else entry for entry in rule)
        weight = min(MOST_WEIGHT, others[mine].counts + part)
        return (*others[:mine], replace(others[mine], weight=weight), *others[mine + 1 :])

    def obstacle(self, rules: Sequence[Rule]) -> str | None:
        """Return why rules cannot give the canary a share, as the end of a sentence about their route; None: they can.

        Args:
            rules: The rules of a route before the canary.
        """
        if any(self.is_tried_in(rule) for rule in rules):
            return f"names Service {self.canary} already, which is kept for the canary: take it out"
        serving = [rule for rule in rules if self.is_served_by(rule)]
        if not serving:
            return f"gives Service {self.service} no requests: name it as a backend of a rule"
        if any(sum(backend.name == self.service for backend in rule) > 1 for rule in serving):
            return f"names Service {self.service} twice in one rule: name it once"
        if any(len(rule) >= MOST_BACKENDS for rule in serving):
            return f"has a rule with {MOST_BACKENDS} backends, so that there is no room for the canary: take one out"
        if any(_room(rule, self.service, 1)[0] < 2 for rule in serving):
            return f"gives Service {self.service} too small a weight beside the others to be shared: raise it"
        return None


def _room(rule: Rule, service: str, percent: int) -> tuple[int, int]:
    """Return what target and canary weigh together, and by how much all others are multiplied for that."""
    whole = next(backend.counts for backend in rule if backend.name == service)
    others = [backend.counts for backend in rule if backend.name != service]
    if not any(others):
        return ALL, 1
    exact = ALL // math.gcd(ALL, whole * percent)
    times = min(exact, MOST_WEIGHT // max(whole, *others))
    return whole * times, times


def _times(backend: Backend, times: int) -> int | None:
    return backend.weight if times == 1 else backend.counts * times
