"""What a canary's pods have answered at a weight, and what the champion's have in the same time.

Both sides count from the first look at this weight, so that they speak of the same hour and the same share: added up
over weights, an hour that was bad for both would be held against the one that had more of its requests then. After a
restart both count from then on, which is shorter and as true. Pods that go, or are not read at once, keep what they had
counted, so that no count ever falls.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from retune.api.objects import ModelOptimization
from retune.plan.observed import Heard, ServingPod
from retune.plan.rollout.comparing import usual_seconds
from retune.plan.rollout.listening import ERRORS
from retune.signals.allowance import Allowance
from retune.signals.bake import LOOK_SECONDS, added_up
from retune.signals.bounded import Web
from retune.signals.grown import Grown
from retune.signals.pods import MAX_PODS, scrape


@dataclass(frozen=True)
class Beside:
    """What both sides of a canary have answered."""

    heard: Heard = field(default_factory=Heard)
    """The canary's pods, since they started."""
    held: Heard = field(default_factory=Heard)
    """The canary's pods, at this weight."""
    beside: Heard = field(default_factory=Heard)
    """The champion's pods, in the same time."""
    usual_seconds: float | None = None
    """How long nearly all of the champion's requests had taken at most before that time; None where not known."""


@dataclass
class _Trial:
    """What is remembered of one weight of a canary."""

    mark: str
    canary: Grown = field(default_factory=Grown)
    target: Grown = field(default_factory=Grown)
    usual_seconds: float | None = None
    at: float | None = None
    seen: Beside = field(default_factory=Beside)


class BesideReader:
    """Reads both sides of a canary.

    Args:
        web: How pods are asked.
        clock: Seconds since 1970.
    """

    def __init__(self, web: Web, *, clock: Callable[[], float] = time.time) -> None:
        self._web = web
        self._clock = clock
        self._trials: dict[str, _Trial] = {}
        self._allowance = Allowance(clock)

    async def heard(
        self, resource: ModelOptimization, canary: Sequence[ServingPod], target: Sequence[ServingPod], *, mark: str
    ) -> Beside:
        """Return what both have answered until now, or until the last look where that was just now.

        Args:
            resource: The resource whose canary it is.
            canary: The canary's running pods.
            target: The target's running pods of the champion.
            mark: What tells this weight from every other one, of this canary or another one of the resource.
        """
        trial, now = self._trials.get(resource.key), self._clock()
        if trial is None or trial.mark != mark:
            trial = self._trials[resource.key] = _Trial(mark)
        if trial.at is None or (not 0 <= now - trial.at < LOOK_SECONDS and not self._allowance.wait(resource.key)):
            trial.seen, cost = await self._look(resource, trial, canary, target, now)
            trial.at = now
            self._allowance.charge(resource.key, cost)
        return trial.seen

    async def _look(
        self,
        resource: ModelOptimization,
        trial: _Trial,
        canary: Sequence[ServingPod],
        target: Sequence[ServingPod],
        now: float,
    ) -> tuple[Beside, float]:
        """Return what both sides have answered, and the processor time that it took to read, in seconds."""
        performance = (resource.spec.monitoring.performance if resource.spec.monitoring else None) or ERRORS
        ours, theirs = (sorted(pods, key=lambda pod: pod.uid)[:MAX_PODS] for pods in (canary, target))
        answers = await scrape(self._web, [*ours, *theirs], performance.pods)
        own, others = answers[: len(ours)], answers[len(ours) :]
        trial.canary.note(ours, own)
        trial.target.note(theirs, others)
        heard, beside = added_up(ours, own, (), now=now), added_up(theirs, others, (), now=now)
        if trial.at is None:
            trial.usual_seconds = usual_seconds(beside)
        seen = Beside(heard, trial.canary.since(heard), trial.target.since(beside), trial.usual_seconds)
        return seen, sum(answer.cost for answer in answers)

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource."""
        self._trials.pop(key, None)
        self._allowance.forget(key)
