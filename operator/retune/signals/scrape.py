"""Progress of a running search, read from its workers' own metrics and put into words.

Only pods of a Job that Retune created are asked, on the one port of the contract, with bounds on time and size:
a worker that is slow, large or silent is left out, never waited for.
"""

import asyncio
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

from retune.api.objectives import Metric
from retune.api.status import Trials
from retune.contract.paths import (
    METRIC_BEST,
    METRIC_TRIALS_DONE,
    METRIC_TRIALS_FAILED,
    METRIC_TRIALS_TOTAL,
    METRICS_PORT,
)
from retune.signals.bounded import UnreadableError, Web

_METRICS = frozenset(Metric)
TIMEOUT_SECONDS = 2.0
SIZE_LIMIT = 256 * 1024
"""Bytes of one answer; a larger one is not read."""


@dataclass(frozen=True)
class Progress:
    """What one worker says of the study that all workers share."""

    total: int = 0
    done: int = 0
    failed: int = 0
    best: tuple[tuple[str, float], ...] = field(default=())
    """Metric and ratio to the champion, of the best feasible candidate."""


def parse(text: str) -> Progress:
    """Return the progress in a Prometheus exposition; raises ValueError when it is not one."""
    values: dict[str, float] = {}
    best: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name != METRIC_BEST:
                values[sample.name] = sample.value
            elif sample.labels.get("metric") in _METRICS:
                best[sample.labels["metric"]] = sample.value
    return Progress(
        total=_count(values.get(METRIC_TRIALS_TOTAL)),
        done=_count(values.get(METRIC_TRIALS_DONE)),
        failed=_count(values.get(METRIC_TRIALS_FAILED)),
        best=tuple(sorted(best.items())),
    )


def _count(value: float | None) -> int:
    """Return a count that is finite and not negative, whatever a worker claims."""
    return int(value) if value is not None and 0 <= value < 1e9 else 0


def combine(workers: Iterable[Progress]) -> Trials | None:
    """Return the study's progress, as the worker knows it that has seen most; None while none has begun."""
    seen = [each for each in workers if each.total]
    if not seen:
        return None
    best = max(seen, key=lambda each: (bool(each.best), each.done)).best
    return Trials(
        total=max(each.total for each in seen),
        done=max(each.done for each in seen),
        failed=max(each.failed for each in seen),
        best=words(best),
    )


def words(best: Iterable[tuple[str, float]]) -> str | None:
    """Return ratios to the champion as a sentence, such as `latency_p95_ms -38.0 %, size_bytes -73.6 %`."""
    parts = [f"{name} {100 * (ratio - 1):+.1f} %" for name, ratio in best if 0 <= ratio < 1e6]
    return f"{', '.join(parts)} against the champion" if parts else None


class Scraper:
    """Asks the workers of each search at most once an interval."""

    def __init__(
        self, *, interval: float, port: int = METRICS_PORT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = interval
        self._port = port
        self._clock = clock
        self._asked: dict[str, float] = {}
        self._web = Web(seconds=TIMEOUT_SECONDS, limit=SIZE_LIMIT)

    async def trials(self, key: str, addresses: Iterable[str]) -> Trials | None:
        """Return the progress of a resource's search; None when nobody answered or it was asked a moment ago."""
        found = list(addresses)
        if not found or self._clock() - self._asked.get(key, float("-inf")) < self.interval:
            return None
        self._asked[key] = self._clock()
        answers = await asyncio.gather(*(self._ask(address) for address in found))
        return combine(answer for answer in answers if answer is not None)

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource."""
        self._asked.pop(key, None)

    async def close(self) -> None:
        """Close connections."""
        await self._web.close()

    async def _ask(self, address: str) -> Progress | None:
        host = f"[{address}]" if ":" in address else address
        try:
            return parse(await self._web.text(f"http://{host}:{self._port}/metrics"))
        except (UnreadableError, ValueError):
            return None
