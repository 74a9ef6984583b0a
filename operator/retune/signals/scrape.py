"""Progress of a running search, read from its workers' own metrics and put into words.

Only pods of Jobs that Retune created are asked, on the port that the contract names, with bounds on time and size. All
workers tell of one study, so one is asked at a time, each in its turn. A worker that is slow, silent or says too much
is never waited for.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from retune.api.metrics import Metric
from retune.api.status import Trials
from retune.contract.paths import (
    METRIC_BEST,
    METRIC_TRIALS_DONE,
    METRIC_TRIALS_FAILED,
    METRIC_TRIALS_TOTAL,
    METRICS_PORT,
)
from retune.signals.bounded import UnreadableError, Web, aside
from retune.signals.exposition import samples_of

_METRICS = frozenset(Metric)
_NAMES = frozenset({METRIC_TRIALS_TOTAL, METRIC_TRIALS_DONE, METRIC_TRIALS_FAILED, METRIC_BEST})
_MOST_SAMPLES = 64
TIMEOUT_SECONDS = 2.0
"""Longest that a worker may take to answer."""
SIZE_LIMIT = 256 * 1024
"""Bytes of one answer; a larger one is not read."""


@dataclass(frozen=True)
class Progress:
    """What a worker says of the study that all workers share."""

    total: int = 0
    done: int = 0
    failed: int = 0
    best: tuple[tuple[str, float], ...] = field(default=())
    """Metrics of the best candidate, each with its value divided by the champion's."""


def parse(text: str) -> Progress:
    """Return the progress in a Prometheus exposition.

    Raises:
        UnreadableError: What it says of the study is malformed or too much.
    """
    values: dict[str, float] = {}
    best: dict[str, float] = {}
    for sample in samples_of(text, _NAMES, most=_MOST_SAMPLES):
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
    """Return a count that is finite and not negative, whatever a worker says."""
    return int(value) if value is not None and 0 <= value < 1e9 else 0


def told(progress: Progress) -> Trials | None:
    """Return progress as a status has it; None before the search has begun."""
    if not progress.total:
        return None
    return Trials(total=progress.total, done=progress.done, failed=progress.failed, best=words(progress.best))


def words(best: Iterable[tuple[str, float]]) -> str | None:
    """Return metrics and their ratios to the champion's in words, such as `size_bytes -73.6 % against the champion`."""
    parts = [f"{name} {100 * (ratio - 1):+.1f} %" for name, ratio in best if 0 <= ratio < 1e6]
    return f"{', '.join(parts)} against the champion" if parts else None


class Scraper:
    """Asks one worker of each search at most once an interval.

    Args:
        interval: Seconds between two scrapes of the same search.
        port: Port of the workers' metrics.
        clock: Seconds that never go back.
    """

    def __init__(
        self, *, interval: float, port: int = METRICS_PORT, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.interval = interval
        self._port = port
        self._clock = clock
        self._asked: dict[str, tuple[int, float]] = {}
        """How often each search was asked, and when last."""
        self._web = Web(seconds=TIMEOUT_SECONDS, limit=SIZE_LIMIT)

    async def trials(self, key: str, addresses: Sequence[str]) -> Trials | None:
        """Return the progress of a resource's search; None when nobody answered or the interval is not over.

        Args:
            key: `namespace/name` of the resource.
            addresses: IP addresses of the pods of its search.
        """
        turn, asked = self._asked.get(key, (0, float("-inf")))
        if not addresses or self._clock() - asked < self.interval:
            return None
        self._asked[key] = (turn + 1, self._clock())
        progress = await self._ask(addresses[turn % len(addresses)])
        return told(progress) if progress else None

    def forget(self, key: str) -> None:
        """Drop what is remembered of a resource."""
        self._asked.pop(key, None)

    async def close(self) -> None:
        """Close connections."""
        await self._web.close()

    async def _ask(self, address: str) -> Progress | None:
        host = f"[{address}]" if ":" in address else address
        try:
            return await aside(parse, await self._web.text(f"http://{host}:{self._port}/metrics"))
        except UnreadableError:
            return None
