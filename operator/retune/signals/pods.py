"""Scrapes of the target's pods, added up by window: never more than a few totals a pod, however long it is watched.

Each scrape adds what a pod has counted since its last one to the window that holds the middle of that time. Pods that
come, go or restart within a window so count with what was seen of them, as in Prometheus.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from retune.api.monitoring import PodMetrics
from retune.plan.observed import ServingPod
from retune.signals.bounded import UnreadableError, Web
from retune.signals.exposition import Totals, added, increase, read
from retune.signals.numbers import Window

MAX_PODS = 64
"""Pods of a target that are asked; of more, the first by uid."""
SEEN_SHARE = 0.9
"""Share of a window that must lie between scrapes."""


@dataclass(slots=True)
class _Sum:
    """One window so far."""

    grown: Totals = field(default_factory=Totals)
    allowed: float = 0.0
    limited: bool = True
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Times between scrapes in which some pod was seen, merged."""


@dataclass(slots=True)
class Ledger:
    """What is known of one target's pods."""

    length: float
    """Length of a window in seconds."""
    metrics: PodMetrics
    since: float | None = None
    """When the pods were first scraped."""
    asked: float | None = None
    """When the pods were last scraped."""
    pods: int = 0
    """Pods there were at the last scrape."""
    trouble: str | None = None
    """Why a pod could not be read at the last scrape."""
    _last: dict[str, tuple[float, Totals]] = field(default_factory=dict)
    _sums: dict[int, _Sum] = field(default_factory=dict)

    def note(self, pod: ServingPod, totals: Totals, at: float) -> None:
        """Add one scrape of one pod."""
        since, before = self._base(pod, totals, at)
        self._last[pod.uid] = (at, totals)
        if since is None or not 0 <= at - since <= self.length:
            return
        index = int((since + at) / 2 // self.length)
        self._add(index, pod, increase(before, totals), since, at)

    def _base(self, pod: ServingPod, totals: Totals, at: float) -> tuple[float | None, Totals | None]:
        """Return since when a scrape counts, and from which totals on; of a pod that is new, since it started."""
        if pod.uid in self._last:
            return self._last[pod.uid]
        if self.asked is None or totals.started is None or totals.started < self.asked:
            return None, None
        return min(totals.started, at), None

    def _add(self, index: int, pod: ServingPod, grown: Totals, since: float, at: float) -> None:
        into = self._sums.setdefault(index, _Sum())
        into.grown = added(into.grown, grown)
        into.limited = into.limited and pod.cpu_limit is not None
        into.allowed += (pod.cpu_limit or 0.0) * (at - since)
        into.spans = _merged([*into.spans, (since, at)])
        for old in sorted(self._sums)[:-3]:
            del self._sums[old]

    def scraped(self, pods: Sequence[ServingPod], at: float, *, trouble: str | None) -> None:
        """Note that a scrape is complete, and forget the pods that are gone."""
        self.since = at if self.since is None else self.since
        self.asked, self.pods, self.trouble = at, len(pods), trouble
        alive = {pod.uid for pod in pods}
        self._last = {uid: last for uid, last in self._last.items() if uid in alive}

    def window(self, index: int) -> Window | None:
        """Return what was counted in a window; None where too little of it was seen."""
        found = self._sums.get(index)
        start, end = index * self.length, (index + 1) * self.length
        if found is None:
            return None
        seen = sum(max(0.0, min(to, end) - max(since, start)) for since, to in found.spans)
        if seen < SEEN_SHARE * self.length:
            return None
        seconds = sum(to - since for since, to in found.spans)
        return Window(found.grown, seconds, found.allowed if found.limited else None)


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans of time without overlaps, ascending."""
    found: list[tuple[float, float]] = []
    for since, to in sorted(spans):
        if found and since <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], to))
        else:
            found.append((since, to))
    return found


async def scrape(web: Web, pods: Sequence[ServingPod], metrics: PodMetrics) -> list[Totals | UnreadableError]:
    """Return what each pod has counted, or why it could not be read."""
    return await asyncio.gather(*(_one(web, pod, metrics) for pod in pods))


async def _one(web: Web, pod: ServingPod, metrics: PodMetrics) -> Totals | UnreadableError:
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    try:
        text = await web.text(f"http://{host}:{metrics.port}{metrics.path}")
        return await asyncio.to_thread(read, text, metrics)
    except UnreadableError as error:
        return error
