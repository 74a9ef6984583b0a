"""What a canary's pods have answered, and what the champion's have in the same time.

The canary's pods count from nothing, so their totals are the version's own. The champion's are counted from when they
were first looked at beside this canary: after a restart from then on, which is shorter and as true.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from retune.api.objects import ModelOptimization
from retune.plan.observed import Heard, ServingPod
from retune.plan.rollout.listening import ERRORS
from retune.signals.allowance import Allowance
from retune.signals.bake import LOOK_SECONDS, added_up
from retune.signals.bounded import UnreadableError, Web
from retune.signals.exposition import Totals, increase
from retune.signals.pods import MAX_PODS, Answer, scrape


@dataclass
class _Trial:
    """What is remembered of one canary."""

    mark: str
    bases: dict[str, Totals] = field(default_factory=dict)
    """What the target's pods had counted when they were looked at first, by UID."""
    at: float | None = None
    heard: tuple[Heard, Heard] = (Heard(), Heard())


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
    ) -> tuple[Heard, Heard]:
        """Return what both have answered until now, or until the last look where that was just now.

        Args:
            resource: The resource whose canary it is.
            canary: The canary's running pods.
            target: The target's running pods of the champion.
            mark: What tells this canary from another one of the resource.
        """
        trial, now = self._trials.get(resource.key), self._clock()
        if trial is None or trial.mark != mark:
            trial = self._trials[resource.key] = _Trial(mark)
        if trial.at is None or (not 0 <= now - trial.at < LOOK_SECONDS and not self._allowance.wait(resource.key)):
            trial.heard, cost = await self._look(resource, trial, canary, target, now)
            trial.at = now
            self._allowance.charge(resource.key, cost)
        return trial.heard

    async def _look(
        self,
        resource: ModelOptimization,
        trial: _Trial,
        canary: Sequence[ServingPod],
        target: Sequence[ServingPod],
        now: float,
    ) -> tuple[tuple[Heard, Heard], float]:
        """Return what both sides have answered, and the processor time that it took to read, in seconds."""
        performance = (resource.spec.monitoring.performance if resource.spec.monitoring else None) or ERRORS
        ours, theirs = (sorted(pods, key=lambda pod: pod.uid)[:MAX_PODS] for pods in (canary, target))
        answers = await scrape(self._web, [*ours, *theirs], performance.pods)
        own, others = answers[: len(ours)], answers[len(ours) :]
        grown = [_since(trial.bases, pod, answer) for pod, answer in zip(theirs, others, strict=True)]
        heard = added_up(ours, own, (), now=now), added_up(theirs, grown, (), now=now)
        return heard, sum(answer.cost for answer in answers)

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource."""
        self._trials.pop(key, None)
        self._allowance.forget(key)


def _since(bases: dict[str, Totals], pod: ServingPod, answer: Answer) -> Answer:
    """Return what a pod has counted since it was looked at first."""
    if isinstance(answer.totals, UnreadableError):
        return answer
    return replace(answer, totals=increase(bases.setdefault(pod.uid, answer.totals), answer.totals))
