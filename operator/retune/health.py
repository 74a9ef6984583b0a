"""Whether the process is alive and ready, served over HTTP beside its metrics.

Alive means that its own parts move: an API server that is away does not make the operator sick, and restarting it
would not help.
"""

import asyncio
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from retune.metrics import Freshness, Metrics
from retune.work_queue import Queue

LAG_LIMIT = 5.0
"""Seconds that the event loop may be late."""
STUCK_LIMIT = 300.0
"""Seconds that a due key may wait, and that a pass may take."""
_BEAT = 0.5


class Pulse:
    """Measures how late the event loop is."""

    def __init__(self) -> None:
        self.lag = 0.0
        """Seconds by which the last beat was late."""

    async def beat(self) -> None:
        """Beat until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            expected = loop.time() + _BEAT
            await asyncio.sleep(_BEAT)
            self.lag = max(0.0, loop.time() - expected)


class Health:
    """Judges the process by its parts.

    Args:
        queue: The work queue.
        freshness: When each watched kind was last heard of.
        pulse: How late the event loop is.
        silence_limit: Seconds without a word of a kind after which its watch counts as dead.
    """

    def __init__(self, *, queue: Queue, freshness: Freshness, pulse: Pulse, silence_limit: float) -> None:
        self._queue = queue
        self._freshness = freshness
        self._pulse = pulse
        self._silence_limit = silence_limit
        self.ready = False
        """Whether everything was listed once and is being watched."""
        self.standing_by = False
        """Whether another operator leads, and this one is ready to take its place."""

    def unready(self) -> list[str]:
        """Return why it is of no use yet, in a sentence; empty when it works or stands by."""
        return [] if self.ready or self.standing_by else ["the first sync is not complete"]

    def ailments(self) -> list[str]:
        """Return what is wrong, in sentences; empty when all is well."""
        ailments = []
        if self._pulse.lag > LAG_LIMIT:
            ailments.append(f"the event loop was {self._pulse.lag:.1f} s late")
        if self._queue.oldest_age > STUCK_LIMIT:
            ailments.append(f"a resource has waited {self._queue.oldest_age:.0f} s for a worker")
        if self._queue.longest_pass > STUCK_LIMIT:
            ailments.append(f"a pass has taken {self._queue.longest_pass:.0f} s")
        ages = self._freshness.ages()
        silent = [f"{kind} for {age:.0f} s" for kind, age in ages.items() if age > self._silence_limit]
        if silent:
            ailments.append(f"nothing was heard of {', '.join(silent)}")
        return ailments


async def serve(metrics: Metrics, health: Health, *, port: int) -> tuple[web.AppRunner, int]:
    """Serve /metrics, /healthz and /readyz on all addresses; returns the runner to clean up, and the port.

    Args:
        metrics: What /metrics shows.
        health: What /healthz and /readyz show.
        port: TCP port; 0 picks a free one.
    """
    app = web.Application()
    app.router.add_get("/metrics", _page(metrics.expose, content_type=CONTENT_TYPE_LATEST))
    app.router.add_get("/healthz", _verdict(health.ailments))
    app.router.add_get("/readyz", _verdict(health.unready))
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, port=port).start()
    # A free port differs between IPv4, whose addresses have 2 parts, and IPv6, whose addresses have 4.
    ports = {len(address): int(address[1]) for address in runner.addresses}
    return runner, ports.get(2) or ports[4]


def _page(
    content: Callable[[], bytes], *, content_type: str
) -> Callable[[web.Request], "asyncio.Future[web.Response]"]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=content(), headers={"Content-Type": content_type})

    return answer  # type: ignore[return-value]


def _verdict(ailments: Callable[[], list[str]]) -> Callable[[web.Request], "asyncio.Future[web.Response]"]:
    async def answer(_: web.Request) -> web.Response:
        sentences = ailments()
        return web.Response(status=503 if sentences else 200, text="\n".join(sentences) or "ok")

    return answer  # type: ignore[return-value]
