"""The parts put together: memory, queue, workers, watches, resync and health, started and stopped in good order."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any

import kopf

from retune.cluster.cache import Cache
from retune.cluster.client import Client, Connection, Transport, configuration, connection, official_transport
from retune.cluster.kinds import watched
from retune.cluster.leadership import Leadership
from retune.cluster.reads import Reader
from retune.cluster.server_clock import ServerClock
from retune.cluster.writes import Writer
from retune.health import Health, Pulse, serve
from retune.metrics import Conditions, Freshness, Gauges, Metrics
from retune.named_metrics import NamedResources
from retune.notify import Notifier
from retune.reconcile import Reconciler, Worker
from retune.settings import Settings
from retune.signals.live import LiveReader
from retune.signals.scrape import Scraper
from retune.steady import SteadyClock
from retune.watch import Intake, Resync, kopf_settings, registry
from retune.work_queue import Queue, work

log = logging.getLogger("retune")

DRAIN_SECONDS = 8.0
"""How long passes under way may take to finish their writes when the process is asked to stop."""
_SILENT_RESYNCS = 3.0
"""Resync periods without a word of a kind after which its watch counts as dead."""


class Operator:
    """One operator in one event loop."""

    def __init__(
        self, settings: Settings, *, transport: Transport | None = None, login: Callable[[], Connection] | None = None
    ) -> None:
        self.settings = settings
        self.kinds = watched(settings.defaults.target_kinds)
        self.metrics = Metrics(self.kinds)
        self.cache = Cache()
        self.queue = Queue()
        self.freshness = Freshness(self.kinds)
        self.pulse = Pulse()
        self.clock = SteadyClock()
        self.port: int | None = None
        """Port of the metrics, once served."""
        self._login = login or (lambda: connection(configuration(context=settings.kubecontext)))
        send = transport or _transport(settings)
        self.server_clock = ServerClock()
        self.leadership = Leadership(send, settings.lease) if settings.lease else None
        write_seconds = self.leadership.seconds_left if self.leadership else None
        self.client = Client(
            send,
            threads=settings.api_threads,
            count=self.metrics.request,
            write_seconds=write_seconds,
            clock=self.server_clock,
        )
        self.scraper = Scraper(interval=settings.scrape_seconds)
        self.health = self._make_health()
        self.intake = Intake(self.cache, self.queue, self.freshness)
        self.resync = self._make_resync()
        self.live = LiveReader(settings.servers)
        self.reader = self._make_reader()
        self.notifier = self._make_notifier()
        tell = self.notifier.tell if self.notifier else None
        self.writer = Writer(self.client, self.cache, settings, instance=socket.gethostname(), tell=tell)
        self.reconciler = self._make_reconciler()
        self._stopping = asyncio.Event()
        self.metrics.registry.register(self._make_gauges())
        self.metrics.registry.register(Conditions(self.cache.resources.values))
        self.metrics.registry.register(NamedResources(self.cache.resources.values, limit=settings.named_resources))

    def _make_gauges(self) -> Gauges:
        return Gauges(
            queue=self.queue,
            freshness=self.freshness,
            stages=lambda: (resource.status.stage for resource in self.cache.resources.values()),
            lag=lambda: self.pulse.lag,
            jump=lambda: self.clock.jump,
            skew=lambda: self.server_clock.ahead,
            leads=lambda: self.leadership is None or self.leadership.leads,
            workers=self.settings.workers,
        )

    def stop(self) -> None:
        """Ask the operator to stop in good order."""
        self._stopping.set()

    async def run(self) -> None:
        """Run until stopped; raises when a part fails, so that the process is restarted whole."""
        async with AsyncExitStack() as stack:
            runner, self.port = await serve(self.metrics, self.health, port=self.settings.metrics_port)
            stack.push_async_callback(runner.cleanup)
            if self.leadership is not None:
                stack.push_async_callback(asyncio.to_thread, self.leadership.close)
                stack.push_async_callback(self.leadership.release)  # after the last write: the client is closed before
            stack.push_async_callback(asyncio.to_thread, self.client.close)
            stack.push_async_callback(self.scraper.close)
            stack.push_async_callback(self.live.close)
            stack.push_async_callback(self.reader.close)
            if self.notifier is not None:
                stack.push_async_callback(self.notifier.close)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self.stop)
            await self._run_parts(stack)

    async def _run_parts(self, stack: AsyncExitStack) -> None:
        def begin(part: Coroutine[Any, Any, Any], name: str) -> "asyncio.Task[Any]":
            task = asyncio.create_task(part, name=name)
            stack.push_async_callback(_cancelled, task)
            return task

        stopping, beat = begin(self._stopping.wait(), "stop"), begin(self.pulse.beat(), "pulse")
        if self.leadership is not None:
            self.health.standing_by = True
            log.info("standing by for Lease %s, metrics on port %s", self.settings.leader_lease, self.port)
            self.freshness.rest()
            await _first_of(begin(self.leadership.acquire(), "election"), stopping)
            self.freshness.begin()
            self.health.standing_by = False
        background = {begin(self.leadership.keep(), "leadership")} if self.leadership else set()
        if not self._stopping.is_set():
            await _first_of(begin(self.resync.first(), "first sync"), stopping, *background)
        if not self._stopping.is_set():
            again = begin(self.resync.forever(every=self.settings.resync_seconds), "resync")
            await self._work_and_watch(stopping, {beat, again, *background})

    async def _work_and_watch(self, stopping: "asyncio.Task[bool]", background: set["asyncio.Task[None]"]) -> None:
        """Work and watch until asked to stop, then let passes finish before the watches end."""
        ready, stop_watching = asyncio.Event(), asyncio.Event()
        worker = Worker(self.queue, self.reconciler, self.metrics)
        workers = asyncio.create_task(work(self.queue, worker, workers=self.settings.workers), name="workers")
        marker = asyncio.create_task(self._mark_ready(ready), name="ready")
        watches = asyncio.create_task(self._watch(ready, stop_watching), name="watches")
        parts = {workers, watches, *background}
        done, _ = await asyncio.wait({stopping, *parts}, return_when=asyncio.FIRST_COMPLETED)
        self.health.ready = False
        self.queue.close()
        await asyncio.wait({workers}, timeout=DRAIN_SECONDS)
        stop_watching.set()
        await asyncio.wait({watches})
        await _cancelled(marker)
        await _cancelled(workers)
        for ended in done - {stopping}:
            ended.result()
        log.info("stopped")

    async def _mark_ready(self, ready: asyncio.Event) -> None:
        await ready.wait()
        for number in (signal.SIGTERM, signal.SIGINT):  # kopf has just taken them: it would cut passes off
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        self.health.ready = True
        log.info("ready: %d resources, metrics on port %s", len(self.cache.resources), self.port)

    async def _watch(self, ready: asyncio.Event, stop: asyncio.Event) -> None:
        namespaces = self.settings.namespaces
        options: dict[str, Any] = {"namespaces": namespaces} if namespaces else {"clusterwide": True}
        options["identity"] = socket.gethostname()  # else kopf looks for a user's name, and the pod's UID has none
        await kopf.operator(
            registry=registry(self.intake, self.kinds, login=self._login),
            settings=kopf_settings(self.kinds),
            ready_flag=ready,
            stop_flag=stop,
            **options,
        )

    def _make_health(self) -> Health:
        return Health(
            queue=self.queue,
            freshness=self.freshness,
            pulse=self.pulse,
            silence_limit=_SILENT_RESYNCS * self.settings.resync_seconds,
        )

    def _make_notifier(self) -> Notifier | None:
        file = self.settings.notifications
        return Notifier(Path(file), count=self.metrics.notice) if file else None

    def _make_reader(self) -> Reader:
        return Reader(
            self.client,
            self.cache,
            self.scraper,
            live=self.live,
            defaults=self.settings.defaults,
            clock=self.clock.now,
        )

    def _make_reconciler(self) -> Reconciler:
        return Reconciler(
            cache=self.cache,
            reader=self.reader,
            writer=self.writer,
            metrics=self.metrics,
            clock=self.clock.now,
            scrape_seconds=self.settings.scrape_seconds,
        )

    def _make_resync(self) -> Resync:
        return Resync(
            client=self.client,
            cache=self.cache,
            queue=self.queue,
            intake=self.intake,
            freshness=self.freshness,
            metrics=self.metrics,
            namespaces=self.settings.namespaces,
            kinds=self.kinds,
        )


def _transport(settings: Settings) -> Transport:
    return official_transport(configuration(context=settings.kubecontext), threads=settings.api_threads)


async def _first_of(*tasks: "asyncio.Task[Any]") -> None:
    """Wait until one of the tasks has ended; raises what it raised."""
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        task.result()


async def _cancelled(task: "asyncio.Task[object]") -> None:
    """Cancel a task and wait for its end."""
    task.cancel()
    with suppress(asyncio.CancelledError, Exception):
        await task
