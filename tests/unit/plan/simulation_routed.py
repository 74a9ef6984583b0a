"""The same histories for a canary by a route, which others edit, take away and bring back at any moment.

`python -m tests.unit.plan.simulation_routed [HISTORIES]` plays them; RETUNE_TEST_SEED repeats what was played.
"""

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

from retune.traffic import Backend, Pair, Rule
from tests.unit.plan.server import FOR_TESTERS, STABLE, TRIED
from tests.unit.plan.simulation import CANARY, EDITS, HAPPENINGS, WEIGHTS, BrokenError, History, main

PAIR = Pair(STABLE, TRIED)
RULES: tuple[Rule, ...] = ((Backend(STABLE),), (Backend("other", 5),), (Backend("other", 1), Backend(STABLE, 3)))
_BY_ROUTE: dict[str, Any] = {"kind": "HTTPRoute", "route": {"name": "digits"}}
_TESTERS = {"header": {"name": "x-tester", "value": "yes"}}
ROUTED: dict[str, Any] = CANARY | {"canary": CANARY["canary"] | {"traffic": _BY_ROUTE}}
TESTED: dict[str, Any] = CANARY | {
    "canary": {
        "steps": [{"weight": 0, "hold": "1m", "minRequests": 0}, *CANARY["canary"]["steps"]],
        "traffic": _BY_ROUTE | {"testers": _TESTERS},
    }
}
SHADOWED: dict[str, Any] = CANARY | {"canary": ROUTED["canary"] | {"shadow": {"requests": 50}}}
SWITCHED: dict[str, Any] = {
    "strategy": "BlueGreen",
    "blueGreen": {"preview": "1m", "keepOld": "1m", "traffic": _BY_ROUTE | {"testers": _TESTERS}},
}
DEEDS = ("put back", "close", "weigh", "insert", "delete", "slow", "fault", "refuse", "service")
EDITED_WEIGHT, OTHER_WEIGHT = 5, 95


class RoutedHistory(History):
    """A history whose canary gets its share by a route."""

    def __init__(self, seed: int) -> None:
        super().__init__(seed)
        rollout = self.dice.choice([ROUTED, TESTED, SHADOWED, SWITCHED])
        watched = {"monitoring": {"window": "24h", "production": {"uri": "pvc://retune-artifacts/captured"}}}
        self.edits = tuple({"rollout": rollout} if edit == {"rollout": {}} else edit for edit in EDITS)
        self.world.rules = RULES
        self.world.change(rollout=rollout, **(watched if rollout is SHADOWED else {}))
        self.touched = False
        """Whether others have changed what is in the rules."""

    def _chosen(self) -> Callable[[History], None]:
        """Return what happens next, which is sometimes the deed of those who own the route."""
        edits = self.dice.choices([True, False], [EDITED_WEIGHT, OTHER_WEIGHT])[0]
        deed = cast("Callable[[History], None]", RoutedHistory.route_changes)
        return deed if edits else self.dice.choices(HAPPENINGS, WEIGHTS)[0]

    def route_changes(self) -> None:
        """Somebody edits the rules, or its Gateway is slow, refuses them, or nobody may write them."""
        world = self.world
        deed = self.dice.choice(
            ["put back", "close", "weigh", "insert", "delete", "slow", "fault", "refuse", "service"]
        )
        self.log.append(deed)
        match deed:
            case "put back":
                world.edit_route(*RULES)
            case "close":
                self._close()
            case "weigh" | "insert" | "delete":
                self.touched = True
                self._edit(deed)
            case "slow":
                world.route_slow = not world.route_slow
            case "fault":
                world.route_fault = "HTTPRoute digits is not Accepted by its parent gate"
            case "refuse":
                world.route_refused = ("Forbidden", "Retune may not patch httproutes")
            case _:
                world.service = None

    def _close(self) -> None:
        """Take a rule for testers out, where there is one."""
        rules = list(self.world.rules or ())
        if FOR_TESTERS in rules:
            rules.remove(FOR_TESTERS)
            self.world.edit_route(*rules)

    def _edit(self, deed: str) -> None:
        world, rules = self.world, list(self.world.rules or RULES)
        place = self.dice.randrange(len(rules))
        if deed == "delete":
            world.rules = None
        elif deed == "insert" and len(rules) < 6:
            world.edit_route(*rules[:place], (Backend("new"),), *rules[place:])
        else:
            weighed = tuple(replace(backend, weight=self.dice.randint(1, 9)) for backend in rules[place])
            world.edit_route(*rules[:place], weighed, *rules[place + 1 :])

    def _calm(self) -> None:
        super()._calm()
        world = self.world
        world.route_slow, world.route_fault, world.route_refused = False, None, None
        if world.rules is None:
            world.edit_route(*RULES)

    # What must hold

    def _is_named(self) -> bool:
        return any(PAIR.is_tried_in(rule) for rule in self.world.rules or ())

    def _check(self) -> None:
        """Whatever of the route is ours is written down, and no canary of ours goes while rules name it."""
        super()._check()
        if self._is_named() and self.status.canary_route is None:
            raise BrokenError(f"the rules name the canary, and nothing says so: {self.world.rules}")
        if self.world.removed_while_named:
            raise BrokenError("the canary's pods went while the route gave them requests")

    def _check_rest(self) -> None:
        super()._check_rest()
        world, record = self.world, self.status.canary_route
        if world.rules is None or world.beside is not None:
            return
        if self._is_named() or record is not None or world.service is not None:
            raise BrokenError(f"something of a canary is left at rest: {world.rules}, {record}, {world.service}")
        if not self.touched and world.rules != RULES:
            raise BrokenError(f"the rules are others than before: {world.rules}")


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 2_500, RoutedHistory))
