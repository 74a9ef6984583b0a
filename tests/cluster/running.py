"""The whole operator with its watches, in the event loop of a test, and what a test waits for."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from kubernetes import client as official
from kubernetes import config as official_config

from retune.cluster.client import Connection, connection
from retune.runtime import Operator
from tests.cluster.harness import Bench, Spy
from tests.cluster.proxy import Proxy
from tools.localcluster.controlplane import ControlPlane

PATIENCE = 60.0


def login_of(plane: ControlPlane) -> Callable[[], Connection]:
    """The administrator's way to the API server, as kopf asks for it."""

    def login() -> Connection:
        found = official.Configuration()
        official_config.load_kube_config(config_file=str(plane.kubeconfig), client_configuration=found)
        return connection(found)

    return login


@asynccontextmanager
async def running(bench: Bench, *, proxy: Proxy | None = None, **settings: Any) -> AsyncIterator[Operator]:
    """An operator that watches, straight or by way of a proxy; but for watches it lists once an hour."""
    spy = Spy(proxy.transport()) if proxy else None
    login = proxy.login if proxy else login_of(bench.plane)
    operator = bench.operator(spy, **({"resync_seconds": 3600} | settings), login=login)
    task = asyncio.create_task(operator.run())
    try:
        await until(lambda: operator.health.ready, task)
        yield operator
    finally:
        operator.stop()
        await task


def open_sockets(loop: asyncio.AbstractEventLoop) -> Mapping[Any, Any]:
    """The sockets that a loop waits for."""
    sockets: Mapping[Any, Any] = loop._selector.get_map()  # type: ignore[attr-defined]
    return sockets


def idle(operator: Operator) -> bool:
    """Whether nothing is due and nothing runs."""
    return operator.queue.active == 0 and operator.queue.depth == 0


async def until(true: Callable[[], bool], *tasks: asyncio.Task[Any], seconds: float = PATIENCE) -> None:
    """Wait for a condition; a task that ends meanwhile fails the test with its own error."""
    async with asyncio.timeout(seconds):
        while not await asyncio.to_thread(true):
            for task in tasks:
                if task.done():
                    task.result()
            await asyncio.sleep(0.05)
