"""Live numbers of each watched resource, window by window: from its pods' own metrics or from a Prometheus server.

Nothing is stored: what an operator saw before it was restarted is gone, and the window that it was restarted in is
unknown, never guessed.
"""

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence

from retune.api.monitoring import LiveSignal, Performance, PodMetrics
from retune.api.objects import ModelOptimization
from retune.plan.observed import Live, LiveNumber, ServingPod
from retune.plan.watch import windows
from retune.settings import Server
from retune.signals.allowance import Allowance
from retune.signals.bake import BakeReader
from retune.signals.beside import BesideReader
from retune.signals.bounded import UnreadableError, Web
from retune.signals.live_numbers import no_number, number
from retune.signals.pods import MAX_PODS, Ledger, scrape
from retune.signals.prometheus import Prometheus
from retune.signals.queried import queried

TIMEOUT_SECONDS = 3.0
"""Longest that a pod may take to answer."""
SIZE_LIMIT = 1024 * 1024
"""Bytes of one pod's metrics; a larger exposition is not read."""
_PODS_AT_ONCE = 8
"""Pods that are read at once, whoever they belong to."""
_LONGEST, _SHORTEST = 300.0, 2.0
"""Bounds of the seconds between two scrapes."""
_SCRAPES = 12
"""Scrapes a window, within these bounds."""


class LiveReader:
    """Reads live numbers for the whole operator. Of a resource it keeps a few totals a pod.

    Args:
        servers: The Prometheus servers that the operator's settings allow, by name.
        clock: Seconds since 1970.
    """

    def __init__(self, servers: Mapping[str, Server], *, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._web = Web(seconds=TIMEOUT_SECONDS, limit=SIZE_LIMIT, at_once=_PODS_AT_ONCE)
        self._prometheus = Prometheus(servers)
        self._ledgers: dict[str, Ledger] = {}
        self._judged: dict[str, Live] = {}
        self._busy: dict[str, asyncio.Lock] = {}
        self._allowance = Allowance(clock)
        self.bake = BakeReader(self._web, self._prometheus, clock=clock)
        """Reads versions in their bake, over the same connections."""
        self.beside = BesideReader(self._web, clock=clock)
        """Reads versions that are tried beside the champion, over the same connections."""

    def wait(self, resource: ModelOptimization) -> float | None:
        """Return the seconds until the pods are to be observed again; None where live numbers are not watched."""
        if _performance(resource) is None:
            return None
        ledger = self._ledger(resource)
        if ledger.last_scrape is None:
            return 0.0
        boundary = (ledger.last_scrape // ledger.length + 1) * ledger.length
        due = min(ledger.last_scrape + _interval(ledger.length), boundary) - self._clock()
        return max(0.0, due, self._allowance.wait(resource.key))

    async def observe(self, resource: ModelOptimization, pods: Sequence[ServingPod]) -> None:
        """Scrape the target's pods, if it is time: at the boundaries of windows and several times between.

        Args:
            resource: The resource whose target is watched.
            pods: Every running pod of the target, ready or not; list them only when `wait` returns 0.
        """
        async with self._busy.setdefault(resource.key, asyncio.Lock()):
            if self.wait(resource) == 0.0:
                self._allowance.charge(resource.key, await self._scrape(self._ledger(resource), pods))

    async def window(
        self, resource: ModelOptimization, pods: Sequence[ServingPod], *, index: int, start: float, end: float
    ) -> Live | None:
        """Return the numbers of a window that has ended; None before that, or where live numbers are not watched.

        A second call for the same window returns the same and asks nobody.

        Args:
            resource: The resource whose target is watched.
            pods: Every running pod of the target, ready or not.
            index: Number of the window.
            start: Begin of the window, in seconds since 1970.
            end: End of the window, in seconds since 1970.
        """
        performance = _performance(resource)
        if performance is None or self._clock() < end:
            return None
        await self.observe(resource, pods)
        ledger = self._ledger(resource)
        live = self._judged.get(resource.key)
        if live is None or live.window != index:
            live = await self._numbers(resource, performance, ledger, index=index, start=start, end=end)
            self._judged[resource.key] = live
        return live

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource."""
        for memory in (self._ledgers, self._judged, self._busy):
            memory.pop(key, None)
        self._allowance.forget(key)
        self.bake.forget(key)
        self.beside.forget(key)

    async def close(self) -> None:
        """Close connections."""
        await self._web.close()
        await self._prometheus.close()

    def _ledger(self, resource: ModelOptimization) -> Ledger:
        """Return the resource's ledger; a new one where the window or the place of the metrics has changed."""
        length, metrics = _length(resource), _metrics(resource)
        ledger = self._ledgers.get(resource.key)
        if ledger is None or (ledger.length, ledger.metrics) != (length, metrics):
            ledger = self._ledgers[resource.key] = Ledger(length, metrics)
            self._judged.pop(resource.key, None)
        return ledger

    async def _scrape(self, ledger: Ledger, pods: Sequence[ServingPod]) -> float:
        """Return the processor time that it took, in seconds."""
        chosen = sorted(pods, key=lambda pod: pod.uid)[:MAX_PODS]
        answers = await scrape(self._web, chosen, ledger.metrics)
        now = self._clock()
        troubles = []
        for pod, answer in zip(chosen, answers, strict=True):
            if isinstance(answer.totals, UnreadableError):
                troubles.append(str(answer.totals))
            else:
                ledger.note(pod, answer.totals, now)
        ledger.scraped(chosen, now, trouble=troubles[0] if troubles else None)
        return sum(answer.cost for answer in answers)

    async def _numbers(
        self,
        resource: ModelOptimization,
        performance: Performance,
        ledger: Ledger,
        *,
        index: int,
        start: float,
        end: float,
    ) -> Live:
        seen = ledger.window(index)
        numbers = [
            await queried(self._prometheus, resource, signal, seconds=_length(resource), at=end)
            if signal.query
            else number(signal, seen, ledger.metrics)
            if seen
            else _unseen(signal, ledger, start=start)
            for signal in performance.signals
        ]
        return Live(
            window=index,
            numbers=tuple(numbers),
            requests=seen.grown.requests if seen else None,
            saturation=seen.saturation if seen else None,
        )


def _performance(resource: ModelOptimization) -> Performance | None:
    return resource.spec.monitoring.performance if resource.spec.monitoring else None


def _metrics(resource: ModelOptimization) -> PodMetrics:
    performance = _performance(resource)
    return performance.pods if performance else PodMetrics()


def _length(resource: ModelOptimization) -> int:
    return windows.length_of(resource.spec.monitoring.window) if resource.spec.monitoring else 3600


def _interval(length: float) -> float:
    """Return the seconds between two scrapes of a window of this length."""
    return min(_LONGEST, max(_SHORTEST, length / _SCRAPES))


def _unseen(signal: LiveSignal, ledger: Ledger, *, start: float) -> LiveNumber:
    """Return why the pods were not seen for enough of a window that began at `start`."""
    if ledger.trouble is not None:
        return no_number(signal, "Unreachable", f"The pods' metrics cannot be read: {ledger.trouble}.")
    if not ledger.pods:
        return no_number(signal, "NoData", "The target had no running pod.")
    if ledger.first_scrape is None or ledger.first_scrape > start:
        return no_number(signal, "Restarted", "The operator has not watched this window from its beginning.")
    return no_number(signal, "NoData", "The pods were seen for too little of the window.")
