"""Thousands of histories of one resource, each from a seed, in a world that is as unreliable as a cluster.

Operators are told late, out of order or not at all; they die between any two writes, two of them work at once, clocks
are set, Jobs fail and are lost, pods do not come, and people edit. What must hold whatever happens is checked all the
way; in the end everything is let be, and must come to rest.

`python -m tests.unit.plan.simulation [HISTORIES]` plays them; RETUNE_TEST_SEED repeats what was played.
"""

import random
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

from retune.api import FIELD_MANAGER
from retune.api.rolling import ActiveRollout
from retune.api.status import ConditionType, ModelOptimizationStatus, Stage, Version
from retune.contract.results import Reason, Verdict
from retune.plan.draft import condition_of
from retune.plan.kept import kept
from retune.plan.observed import Heard, Incident
from retune.plan.rollout.proposing import REVERT_PROPOSED
from tests.dice import thrown
from tests.unit.plan.late import LateWorld
from tests.unit.plan.registries import REGISTRY, wrongly_named
from tests.unit.plan.trial import busy
from tests.unit.plan.world import spec

STEPS = 40
CALM_ROUNDS = 40
CANARY: dict[str, Any] = {
    "strategy": "Canary",
    "canary": {"steps": [{"weight": 10, "hold": "1m"}, {"weight": 60, "hold": "1m"}]},
}
EDITS: tuple[dict[str, Any], ...] = (
    *({"manualNonce": f"n{number}"} for number in range(6)),
    *({"search": {"maxTrials": number}} for number in range(1, 3)),
    *({"model": {"uri": f"pvc://store/digits/model-{number}.onnx"}} for number in range(1, 3)),
    *({"mode": mode} for mode in ("Automatic", "Automatic", "Propose", "RecommendOnly", "ObserveOnly")),
    {"rollout": {"approval": "Manual"}},
    {"rollout": {}},
    {"rollout": {}},
    {"rollout": {"rollbackTo": "99"}},
    {"suspend": True},
    {"suspend": False},
    {"rollout": CANARY},
    {"rollout": {"strategy": "RollingUpdate"}},
)


class BrokenError(AssertionError):
    """Something that must hold does not."""


class Watched(LateWorld):
    """A LateWorld that looks at every status that is written."""

    def __init__(self, **fields: Any) -> None:
        super().__init__(**fields)
        self.human: set[str | None] = set()
        """Values of the owned field that people have set."""

    def update(self, **parts: Any) -> None:
        """Change parts of the resource, unless they make a champion of what has not earned it."""
        status = parts.get("status")
        if status is not None:
            self._check_champion(self.resource.status, status)
        super().update(**parts)

    def _check_champion(self, before: ModelOptimizationStatus, after: ModelOptimizationStatus) -> None:
        old, new = before.champion, after.champion
        if new is None or (old is not None and old.injected_value == new.injected_value):
            return
        if new.run_name is not None and new.injected_value not in self.approved:
            raise BrokenError(f"{new.injected_value} is champion without having passed a gate")
        is_earned = _baked(before.rollout, before.candidate, new) or new.injected_value in self.human
        if old is not None and not is_earned and old.digest not in self.lost:
            raise BrokenError(
                f"{old.injected_value} lost to {new.injected_value} without a rollout, and nobody wished it"
            )

    def edit_field(self, value: str | None, manager: str | None) -> None:
        """Remember what people wished."""
        super().edit_field(value, manager)
        self.human.add(value)


def _baked(rollout: ActiveRollout | None, candidate: Version | None, champion: Version) -> bool:
    """Whether a rollout of this version has reached its bake, or a person has wanted it back."""
    if rollout is not None and rollout.rollback_number is not None:
        return True
    if rollout is None or candidate is None:
        return False
    return rollout.bake_start_time is not None and candidate.injected_value == champion.injected_value


class History:
    """One history: what happens, decided by a seed, and what must hold."""

    def __init__(self, seed: int) -> None:
        self.edits = EDITS
        self.seed, self.dice = seed, random.Random(seed)
        value = self.dice.choice([None, "file:///delivered"])
        target = {"ref": {"name": "digits"}, "inference": {"modelName": "digits"}}
        self.world = Watched(
            operators=self.dice.choice([1, 1, 2]),
            spec=spec(
                target=target,
                deletionPolicy=self.dice.choice(["KeepChampion", "RestoreOriginal"]),
                rollout=self.dice.choice([{}, CANARY]),
                registry=REGISTRY if seed % 2 == 0 else None,
            ),
            wanted=self.dice.choice([1, 9]),
            value=value,
            manager="kubectl" if value else None,
            bundles=self.dice.choice([None, 2]),
        )
        self.counted = self.dice.random() < 0.5
        """Whether a canary's pods can be heard."""
        self.log: list[str] = []
        self.given: set[str | None] = {value}
        self.foreign = 0
        self.lost: set[str] = set()

    def play(self) -> None:
        """Let things happen, then let everything be; raises BrokenError with the history's seed and its steps."""
        try:
            for _ in range(STEPS):
                happening = self._chosen()
                self.log.append(happening.__name__)
                happening(self)
                self._check()
            self._rest()
        except AssertionError as error:
            raise BrokenError(f"history {self.seed}: {error}; {', '.join(self.log)}") from error

    def _chosen(self) -> Callable[["History"], None]:
        """Return what happens next."""
        return self.dice.choices(HAPPENINGS, WEIGHTS)[0]

    @property
    def status(self) -> ModelOptimizationStatus:
        """The resource's status."""
        return self.world.resource.status

    # What happens

    def passes(self) -> None:
        """One operator makes a pass."""
        self.world.run(self._operator())

    def passes_together(self) -> None:
        """One operator makes a pass in the middle of another's."""
        first = self._operator()
        if len(self.world.processes) > 1:
            self.world.cut_in = (self.dice.randrange(4), lambda: self._discard(self.world.run(1 - first)))
        self.world.run(first)
        self.world.cut_in = None

    def _discard(self, writes: int) -> None:
        self.log.append(f"({writes} writes)")

    def is_told(self) -> None:
        """Events arrive, of some objects and in any order, and the operator looks."""
        number = self._operator()
        process = self.world.processes[number]
        late = self.world.untold(process)
        for what, name in self.dice.sample(late, self.dice.randint(0, len(late))):
            self.world.tell(what, name, process=process)
        self.world.run(number)

    def lists(self) -> None:
        """A resync repairs a memory whose watches have lost something."""
        number = self._operator()
        self.world.resync(self.world.processes[number])
        self.world.run(number)

    def dies(self) -> None:
        """An operator is killed before one of its next writes, and another takes its place."""
        self.world.crash_after = self.dice.randrange(5)
        self.world.run(self._operator())
        self.world.crash_after = None

    def restarts(self) -> None:
        """An operator ends between two passes."""
        self.world.restart(self._operator())

    def clock_is_set(self) -> None:
        """The machines' clocks are set, forward or back."""
        hours = self.dice.choice([-24, -1, -0.01, 0.01, 1, 24])
        self.world.wall = timedelta(hours=hours)

    def time_passes(self) -> None:
        """Nothing happens for a while."""
        self.world.wait(self.dice.choice([1, 15, 61, 700, 8000]))

    def job_ends(self) -> None:
        """A Job succeeds, whatever it says, or fails."""
        names = self.world.active_jobs()
        if not names:
            return
        name = self.dice.choice(names)
        if self.dice.random() < 0.15:
            self.world.fail(name, self.dice.choice(list(Reason)))
        else:
            verdict = self.dice.choice([Verdict.PROMOTE, Verdict.PROMOTE, Verdict.PROMOTE, *Verdict])
            self.world.finish(name, self.world.answer(name, verdict))

    def job_is_lost(self) -> None:
        """Somebody deletes a Job."""
        if self.world.jobs:
            del self.world.jobs[self.dice.choice(sorted(self.world.jobs))]

    def goes_well(self) -> None:
        """For a while nothing goes wrong but that everything is late."""
        for _ in range(4):
            for name in self.world.active_jobs():
                self.world.finish(name)
            self._calm()
            self.is_told()
            self.world.wait(130)
            self.lists()

    def pods_change(self) -> None:
        """Pods are ready, or are not; one may crash or answer with errors."""
        world = self.world
        world.settled = self.dice.random() < 0.6
        world.crash = Incident("pod x: ended with exit code 3", world.now) if self.dice.random() < 0.1 else None
        world.counts = Heard(pods=1, requests=1000, errors=500) if self.dice.random() < 0.1 else None
        world.wanted = self.dice.choice([1, 9]) if self.dice.random() < 0.9 else 0

    def canary_changes(self) -> None:
        """A canary's pods are ready, or are not; they crash, answer with errors, or somebody takes them away."""
        world = self.world
        world.beside_settled, world.beside_slow = self.dice.random() < 0.6, self.dice.random() < 0.3
        world.beside_trouble = self.dice.choice([None, "pod y: Evicted"])
        crash = Incident("pod y: ended with exit code 3", world.now)
        world.beside_crash = crash if self.dice.random() < 0.1 else None
        errors = self.dice.choice([None, 0, 500]) if self.counted else None
        world.beside_counts = None if errors is None else Heard(pods=1, requests=1000, errors=errors)
        world.beside_refused = ("Forbidden", "may not") if self.dice.random() < 0.1 else None
        if self.dice.random() < 0.2:
            world.beside = None

    def target_is_edited(self) -> None:
        """Somebody changes another part of the pod template."""
        self.world.edit_template()

    def surroundings_change(self) -> None:
        """A quota or a missing right comes or goes."""
        self.world.quota = self.dice.random() < 0.3
        self.world.inject_refused = "Forbidden" if self.dice.random() < 0.3 else None

    def is_edited(self) -> None:
        """A user edits the spec; it may come between reading and writing."""
        change = self.dice.choice(self.edits)
        if self.dice.random() < 0.3:
            self.world.cut_in = (self.dice.randrange(3), lambda: self.world.change(**change))
            self.world.run(self._operator())
            self.world.cut_in = None
        else:
            self.world.change(**change)

    def person_speaks(self) -> None:
        """A person approves what waits, or wants an earlier version back; the store may have lost that."""
        candidate, versions = self.status.candidate, kept(self.status)
        if candidate is not None:
            self.world.change(rollout={"approval": "Manual", "approvedVersion": candidate.digest})
        elif versions:
            version = self.dice.choice(versions)
            if self.dice.random() < 0.1:
                self.world.lost.add(version.digest)
            self.world.change(rollout={"rollbackTo": str(version.version)})

    def field_is_set(self) -> None:
        """A neighbour sets the owned field: to something new, to what was delivered, or to an earlier champion."""
        original, versions = self.status.original, self.status.versions
        self.foreign += 1
        choices: list[str | None] = [f"file:///foreign-{self.foreign}"]
        choices += [original.injected_value] if original else []
        choices += [version.injected_value for version in versions]
        value = self.dice.choice(choices)
        self.given.add(value)
        self.world.edit_field(value, None if value is None else "neighbour")

    def _operator(self) -> int:
        return self.dice.randrange(len(self.world.processes))

    def _calm(self) -> None:
        world = self.world
        world.settled, world.crash, world.counts, world.wanted = True, None, None, 1
        world.quota, world.inject_refused = False, None
        world.beside_settled, world.beside_slow, world.beside_trouble = True, False, None
        world.beside_crash, world.beside_refused = None, None
        world.beside_counts = busy(world.now) if self.counted else None

    def _merge_what_is_asked(self) -> None:
        """Git takes a version back that was merged and has failed, as the condition asks for."""
        shown, champion = condition_of(self.status, ConditionType.ROLLED_OUT), self.status.champion
        if shown is not None and shown.reason == REVERT_PROPOSED and champion is not None:
            self.world.edit_field(champion.injected_value, "git" if champion.injected_value else None)

    # What must hold

    def _check(self) -> None:
        """What we gave the target is the champion, a candidate in its rollout, or what a person had there before."""
        world, status = self.world, self.status
        delivered = {status.original.uri, status.original.injected_value} if status.original else set()
        if world.value not in self.given | world.approved | delivered:
            raise BrokenError(f"{world.value} serves, and nobody has approved or set it")
        if world.beside is not None and world.beside.value not in world.approved:
            raise BrokenError(f"{world.beside.value} is tried on users, and nobody has approved it")
        champion = status.champion.injected_value if status.champion else None
        if world.manager != FIELD_MANAGER or world.value in {champion, *world.human}:
            return
        candidate = status.candidate.injected_value if status.candidate and status.rollout else None
        is_on_its_way = status.rollout is not None and status.rollout.rollback_number is not None
        if world.value != candidate and not is_on_its_way:
            raise BrokenError(f"{world.value} serves, beside champion {champion} and candidate {candidate}")

    def _rest(self) -> None:
        """Once nothing disturbs it any more, the resource comes to rest, and stays there without a write."""
        world = self.world
        world.lost.clear()
        world.change(suspend=False, rollout={})
        for _ in range(CALM_ROUNDS):
            self._calm()
            self._merge_what_is_asked()
            for name in world.active_jobs():
                world.finish(name, world.answer(name, Verdict.NO_GAIN))
            for number, process in enumerate(world.processes):
                world.resync(process)
                world.run(number)
                self._check()
            world.wait(130)
        self._check_rest()
        self._check_silence()

    def _check_rest(self) -> None:
        world, status = self.world, self.status
        champion = status.champion.injected_value if status.champion else None
        taken = status.stage is Stage.BLOCKED and world.manager != FIELD_MANAGER
        if world.beside is not None and not taken:
            raise BrokenError(f"a canary is left at rest: {status.stage}, {status.message}")
        if (status.run, status.rollout) != (None, None) and not taken and not _recommends(status):
            raise BrokenError(f"it never comes to rest: {status.stage}, {status.message}")
        if world.value != champion and not taken:
            raise BrokenError(f"{world.value} serves at rest, and {champion} is champion")
        if wrong := wrongly_named(status, world.aliases):
            raise BrokenError(wrong)

    def _check_silence(self) -> None:
        for number, process in enumerate(self.world.processes):
            self.world.resync(process)
            before = self.status
            if writes := self.world.run(number):
                raise BrokenError(f"{writes} writes at rest, of which the status took {before != self.status}")


def _recommends(status: ModelOptimizationStatus) -> bool:
    """Whether a candidate waits for a person to take it."""
    return status.candidate is not None and status.rollout is None


_WEIGHED: dict[Callable[[History], None], int] = {
    History.passes: 6,
    History.passes_together: 6,
    History.is_told: 10,
    History.lists: 3,
    History.dies: 5,
    History.restarts: 1,
    History.clock_is_set: 1,
    History.time_passes: 4,
    History.job_ends: 8,
    History.job_is_lost: 1,
    History.goes_well: 3,
    History.pods_change: 4,
    History.canary_changes: 2,
    History.target_is_edited: 1,
    History.surroundings_change: 1,
    History.is_edited: 3,
    History.person_speaks: 2,
    History.field_is_set: 1,
}
HAPPENINGS, WEIGHTS = list(_WEIGHED), list(_WEIGHED.values())


def main(histories: int, kind: type[History] = History) -> int:
    """Play so many histories of a kind, and say what was broken; returns the exit code."""
    dice, began, broken = thrown(), time.monotonic(), 0
    for _ in range(histories):
        try:
            kind(dice.randrange(2**32)).play()
        except BrokenError as error:
            broken += 1
            print(error)
    minutes = (time.monotonic() - began) / 60
    print(f"{histories} histories in {minutes:.1f} min: {broken} broken")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
