"""What one hostile tenant costs all others: `python -m tests.bench.noisy [SECONDS]` prints a table.

In one event loop, as in the operator, passes over an honest resource are due every 20 ms, and are timed from the moment
they are due. Beside them nothing happens; or the searches and the targets of 64 resources are read, each as often as
the operator may read it, whose pods answer with the costliest metrics that fit the bounds. The two situations take
turns. The hostile pods are a server in a process of its own: what it needs is not the operator's.
"""

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from multiprocessing import Process

import numpy as np
from aiohttp import web
from rich.console import Console
from rich.table import Table

from retune.__main__ import SWITCH_SECONDS
from retune.api.monitoring import PodMetrics
from retune.api.objects import ModelOptimization
from retune.contract.paths import METRIC_BEST
from retune.plan.observed import ServingPod
from retune.signals.bounded import Web
from retune.signals.live import SIZE_LIMIT, LiveReader
from retune.signals.scrape import Scraper
from tests.samples import resource
from tests.unit.plan.world import World
from tools.localcluster.controlplane import free_ports

TENANTS, PODS = 64, 4
EVERY_SECONDS, READ_SECONDS = 0.02, 2.0
"""Between two honest passes, and between two looks at a hostile resource: the shortest interval that a spec allows."""
ROUNDS = 4
_ESCAPED = chr(92) + chr(34)
_LINE = f'{METRIC_BEST}{{metric="{_ESCAPED * 480}"}} 1\n'
_SERVED = PodMetrics().requests
_POD_LINE = f'{_SERVED}{{path="/{_ESCAPED * 400}/infer"}} 1\n'


def main(seconds: float) -> None:
    """Measure both situations in turns and print the table."""
    sys.setswitchinterval(SWITCH_SECONDS)
    (port,) = free_ports(1)
    server = Process(target=_serve, args=(port,), daemon=True)
    server.start()
    try:
        print(f"[noisy] {2 * ROUNDS} spells of {seconds:g} s, half of them beside {TENANTS} hostile resources")
        asyncio.run(_compare(port, seconds))
    finally:
        server.terminate()
        server.join()


async def _compare(port: int, seconds: float) -> None:
    await _until_served(port)
    delays: dict[str, list[float]] = {"alone": [], "beside hostile resources": []}
    for _ in range(ROUNDS):
        delays["alone"] += await _passes(seconds)
        async with _noise(port):
            delays["beside hostile resources"] += await _passes(seconds)
    _print(delays)


async def _passes(seconds: float) -> list[float]:
    """Return for each honest pass the seconds from when it was due to its end."""
    world, delays = World(), []
    began = time.monotonic()
    for number in range(int(seconds / EVERY_SECONDS)):
        due = began + number * EVERY_SECONDS
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        world.reconcile()
        delays.append(time.monotonic() - due)
    return delays


@asynccontextmanager
async def _noise(port: int) -> AsyncIterator[None]:
    """Read the hostile resources until the block ends."""
    scraper, live = Scraper(interval=READ_SECONDS, port=port), LiveReader({})
    tasks = [asyncio.create_task(_read(resource, scraper, live)) for resource in _hostile(port)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*tasks)
        await scraper.close()
        await live.close()


def _hostile(port: int) -> list[ModelOptimization]:
    performance = {"pods": {"port": port, "path": "/pod"}}
    kind = resource(monitoring={"window": "30s", "performance": performance})
    names = [f"evil-{number}" for number in range(TENANTS)]
    return [kind.model_copy(update={"metadata": kind.metadata.model_copy(update={"name": name})}) for name in names]


async def _read(hostile: ModelOptimization, scraper: Scraper, live: LiveReader) -> None:
    """Read a resource's search and pods whenever the operator would."""
    pods = [ServingPod(uid=str(number), address="127.0.0.1") for number in range(PODS)]
    while True:
        await scraper.trials(hostile.key, ["127.0.0.1"])
        await live.observe(hostile, pods)
        await asyncio.sleep(min(READ_SECONDS, max(0.1, live.wait(hostile) or 0.0)))


async def _until_served(port: int) -> None:
    page, deadline = Web(seconds=1.0, limit=SIZE_LIMIT), time.monotonic() + 30
    while time.monotonic() < deadline:
        with suppress(Exception):
            await page.text(f"http://127.0.0.1:{port}/metrics")
            await page.close()
            return
        await asyncio.sleep(0.1)
    raise TimeoutError("the hostile server did not start")


def _serve(port: int) -> None:
    app = web.Application()
    app.router.add_get("/metrics", _saying(_LINE * (256 * 1024 // len(_LINE) - 1)))
    app.router.add_get("/pod", _saying(_POD_LINE * (SIZE_LIMIT // len(_POD_LINE) - 1)))
    web.run_app(app, host="127.0.0.1", port=port, print=None)


def _saying(text: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text)

    return answer


def _print(delays: dict[str, list[float]]) -> None:
    table = Table(title="Passes of other resources, from due to done (ms)")
    for name in ("situation", "passes", "p50", "p95", "p99", "worst"):
        table.add_column(name, justify="left" if name == "situation" else "right")
    for name, samples in delays.items():
        quantiles = [*np.percentile(samples, (50, 95, 99)), max(samples)]
        table.add_row(name, str(len(samples)), *(f"{1000 * value:.1f}" for value in quantiles))
    Console(width=100).print(table)


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10.0)
