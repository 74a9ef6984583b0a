"""What the pods of a version in its bake have answered: their own counters, and queries for the time of the bake.

Pods of a new version count from nothing, so their totals are the version's own, and nothing has to be remembered: an
operator that was restarted reads the same. Pods that run on while their agents give them a version have counted for
others before: of them only what they count from the first look at the bake on is the version's.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from retune.api.monitoring import Performance
from retune.api.objects import ModelOptimization
from retune.plan.observed import Heard, LiveNumber, ServingPod
from retune.plan.rollout.listening import ERRORS
from retune.signals.allowance import Allowance
from retune.signals.bounded import UnreadableError, Web
from retune.signals.exposition import Totals, added
from retune.signals.grown import Grown
from retune.signals.live_numbers import Window
from retune.signals.pods import MAX_PODS, Answer, scrape
from retune.signals.prometheus import Prometheus
from retune.signals.queried import queried

LOOK_SECONDS = 5.0
"""Least seconds between two looks at the same bake."""


@dataclass(frozen=True)
class _Look:
    """What was heard of one bake when it was looked at last."""

    since: float | None
    at: float
    heard: Heard
    grown: Grown | None
    """What pods that run on have counted since the bake began; None where pods count from nothing."""


class BakeReader:
    """Reads the pods of versions in their bake.

    Args:
        web: How pods are asked.
        prometheus: The servers that queries go to.
        clock: Seconds since 1970.
    """

    def __init__(self, web: Web, prometheus: Prometheus, *, clock: Callable[[], float] = time.time) -> None:
        self._web = web
        self._prometheus = prometheus
        self._clock = clock
        self._looks: dict[str, _Look] = {}
        self._allowance = Allowance(clock)

    async def heard(self, resource: ModelOptimization, pods: Sequence[ServingPod], *, since: float | None) -> Heard:
        """Return what the version has answered until now, or until the last look where that was just now.

        Args:
            resource: The resource whose version is in its bake.
            pods: The running pods of that version.
            since: When the bake began, in seconds since 1970; None before one, when no query is asked.
        """
        look, now = self._looks.get(resource.key), self._clock()
        if look is not None and look.since == since and not self._is_due(resource.key, look, now):
            return look.heard
        performance = (resource.spec.monitoring.performance if resource.spec.monitoring else None) or ERRORS
        chosen = sorted(pods, key=lambda pod: pod.uid)[:MAX_PODS]
        answers = await scrape(self._web, chosen, performance.pods)
        self._allowance.charge(resource.key, sum(answer.cost for answer in answers))
        numbers = () if since is None else await self._asked(resource, performance, since=since, now=now)
        heard, grown = added_up(chosen, answers, numbers, now=now), _grown(resource, look, since)
        if grown is not None:
            grown.note(chosen, answers)
            heard = grown.since(heard)
        self._looks[resource.key] = _Look(since, now, heard, grown)
        return heard

    def _is_due(self, key: str, look: _Look, now: float) -> bool:
        return not 0 <= now - look.at < LOOK_SECONDS and not self._allowance.wait(key)

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource."""
        self._looks.pop(key, None)
        self._allowance.forget(key)

    async def _asked(
        self, resource: ModelOptimization, performance: Performance, *, since: float, now: float
    ) -> tuple[LiveNumber, ...]:
        seconds, signals = max(1, int(now - since)), [signal for signal in performance.signals if signal.query]
        return tuple([await queried(self._prometheus, resource, signal, seconds=seconds, at=now) for signal in signals])


def _grown(resource: ModelOptimization, look: _Look | None, since: float | None) -> Grown | None:
    """Return what is remembered of this bake, where the pods of the champion go on as those of the version."""
    if since is None or resource.spec.target.injection.config_map is None:
        return None
    return look.grown if look is not None and look.since == since else Grown()


def added_up(
    pods: Sequence[ServingPod], answers: Sequence[Answer], numbers: tuple[LiveNumber, ...], *, now: float
) -> Heard:
    """Return the sum of what the pods have counted since each of them started."""
    total, allowed, limited, trouble, read = Totals(), 0.0, True, None, 0
    for pod, answer in zip(pods, answers, strict=True):
        if isinstance(answer.totals, UnreadableError):
            trouble = trouble or str(answer.totals)
            continue
        read += 1
        total = added(total, answer.totals)
        limited = limited and pod.cpu_limit is not None and answer.totals.started is not None
        allowed += (pod.cpu_limit or 0.0) * max(0.0, now - (answer.totals.started or now))
    window = Window(total, 0.0, allowed if limited and read else None)
    return Heard(
        pods=read,
        requests=total.requests,
        errors=total.errors,
        refused=total.refused,
        buckets=total.buckets,
        saturation=window.saturation,
        numbers=numbers,
        trouble=trouble if pods else "it has no running pod",
    )
