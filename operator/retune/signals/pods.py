"""Scrapes of the target's pods, added up by window. However long a target is watched, a few totals a pod are kept.

Each scrape adds what a pod has counted since its last scrape to the window that holds the middle of that time. Pods
that come, go or restart within a window count with what was seen of them, as in Prometheus.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from retune.api.monitoring import PodMetrics
from retune.plan.observed import ServingPod
from retune.signals.bounded import UnreadableError, Web, aside
from retune.signals.exposition import Totals, added, increase, read
from retune.signals.live_numbers import Window

MAX_PODS = 64
"""Most pods of a target that are scraped; of more, the first by uid."""
TURN_SECONDS = 5.0
"""Longest that asking one pod may take, with the wait for its turn."""
_RECEIVING_SECONDS = 1e-8
"""Processor time that it takes the event loop to receive one character."""
SEEN_SHARE = 0.9
"""Share of a window in which some pod must have been seen."""


@dataclass(slots=True)
class _Sum:
    """What was counted in one window so far."""

    grown: Totals = field(default_factory=Totals)
    """By how much the totals of all pods grew."""
    allowed: float = 0.0
    """Seconds of CPU that the pods might have used at most."""
    limited: bool = True
    """Whether all pods have a CPU limit."""
    spans: list[tuple[float, float]] = field(default_factory=list)
    """Times between scrapes in which some pod was seen, in seconds since 1970, ascending and without overlaps."""


@dataclass(slots=True)
class Ledger:
    """What is known of one target's pods. All times are in seconds since 1970."""

    length: float
    """Length of a window in seconds."""
    metrics: PodMetrics
    """Where the pods serve their metrics, and what they are called."""
    first_scrape: float | None = None
    """When the pods were first scraped."""
    last_scrape: float | None = None
    """When the pods were last scraped."""
    pods: int = 0
    """Pods there were at the last scrape."""
    trouble: str | None = None
    """Why a pod could not be read at the last scrape."""
    _last: dict[str, tuple[float, Totals]] = field(default_factory=dict)
    _sums: dict[int, _Sum] = field(default_factory=dict)

    def note(self, pod: ServingPod, totals: Totals, at: float) -> None:
        """Add what one pod had counted at the time `at`."""
        since, before = self._base(pod, totals, at)
        self._last[pod.uid] = (at, totals)
        if since is None or not 0 <= at - since <= self.length:
            return
        index = int((since + at) / 2 // self.length)
        self._add(index, pod, increase(before, totals), since, at)

    def _base(self, pod: ServingPod, totals: Totals, at: float) -> tuple[float | None, Totals | None]:
        """Return time and totals that a scrape is compared with: of a pod that is new, those of its start."""
        if pod.uid in self._last:
            return self._last[pod.uid]
        if self.last_scrape is None or totals.started is None or totals.started < self.last_scrape:
            return None, None
        return min(totals.started, at), None

    def _add(self, index: int, pod: ServingPod, grown: Totals, since: float, at: float) -> None:
        window = self._sums.setdefault(index, _Sum())
        window.grown = added(window.grown, grown)
        window.limited = window.limited and pod.cpu_limit is not None
        window.allowed += (pod.cpu_limit or 0.0) * (at - since)
        window.spans = _merged([*window.spans, (since, at)])
        for old in sorted(self._sums)[:-3]:
            del self._sums[old]

    def scraped(self, pods: Sequence[ServingPod], at: float, *, trouble: str | None) -> None:
        """Note that all pods were scraped, and forget those that are gone.

        Args:
            pods: The pods there are.
            at: Time of the scrape.
            trouble: Why one of them could not be read, if that is so.
        """
        self.first_scrape = at if self.first_scrape is None else self.first_scrape
        self.last_scrape, self.pods, self.trouble = at, len(pods), trouble
        alive = {pod.uid for pod in pods}
        self._last = {uid: last for uid, last in self._last.items() if uid in alive}

    def window(self, index: int) -> Window | None:
        """Return what was counted in the window with this number; None where too little of it was seen."""
        window = self._sums.get(index)
        start, end = index * self.length, (index + 1) * self.length
        if window is None:
            return None
        seen = sum(max(0.0, min(to, end) - max(since, start)) for since, to in window.spans)
        if seen < SEEN_SHARE * self.length:
            return None
        seconds = sum(to - since for since, to in window.spans)
        return Window(window.grown, seconds, window.allowed if window.limited else None)


def _merged(spans: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Return spans of time without overlaps, ascending."""
    merged: list[tuple[float, float]] = []
    for since, to in sorted(spans):
        if merged and since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], to))
        else:
            merged.append((since, to))
    return merged


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of asking one pod."""

    totals: Totals | UnreadableError
    """What it has counted, or why it could not be read."""
    cost: float
    """About how many seconds of processor time it took to read."""


async def scrape(web: Web, pods: Sequence[ServingPod], metrics: PodMetrics) -> list[Answer]:
    """Return what each pod has counted, or why it could not be read, in the order of the pods."""
    return await asyncio.gather(*(_in_turn(web, pod, metrics) for pod in pods))


async def _in_turn(web: Web, pod: ServingPod, metrics: PodMetrics) -> Answer:
    """Ask a pod when few others are being asked; waiting for that counts as time of the answer."""
    try:
        async with asyncio.timeout(TURN_SECONDS), web.turns:
            return await _asked(web, pod, metrics)
    except TimeoutError:
        return Answer(UnreadableError(f"pod {pod.address} was not read within {TURN_SECONDS:g} s"), 0.0)


async def _asked(web: Web, pod: ServingPod, metrics: PodMetrics) -> Answer:
    host = f"[{pod.address}]" if ":" in pod.address else pod.address
    try:
        text = await web.text(f"http://{host}:{metrics.port}{metrics.path}")
    except UnreadableError as error:
        return Answer(error, 0.0)
    return await aside(_timed, text, metrics)


def _timed(text: str, metrics: PodMetrics) -> Answer:
    began, received = time.thread_time(), _RECEIVING_SECONDS * len(text)
    try:
        totals: Totals | UnreadableError = read(text, metrics)
    except UnreadableError as error:
        totals = error
    return Answer(totals, time.thread_time() - began + received)
