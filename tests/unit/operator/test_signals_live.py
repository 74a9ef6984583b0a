"""Windows of live numbers, from pods that are real HTTP servers and may come, go, restart and lie."""

import asyncio
import sys
import zlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from retune.api.objects import ModelOptimization
from retune.plan.observed import Live, LiveNumber, ServingPod
from retune.signals.live import SIZE_LIMIT, LiveReader
from tests import samples
from tests.unit.operator.test_queue import Clock
from tests.unit.operator.test_signals_exposition import Server
from tests.unit.operator.web import saying, serving

Json = dict[str, Any]
LENGTH = 60.0
INDEX = 1000
START, END = INDEX * LENGTH, (INDEX + 1) * LENGTH


class Pod:
    """A pod of MLServer's kind: its metrics, and the CPU and age of its process."""

    def __init__(self, *, started: float = 0.0) -> None:
        self.server = Server()
        self.cpu, self.started = 0.0, started

    async def answer(self, _: web.Request) -> web.Response:
        """Expose the metrics."""
        process = f"process_cpu_seconds_total {self.cpu}\nprocess_start_time_seconds {self.started}\n"
        return web.Response(text=self.server.text + process)

    def restart(self, at: float) -> None:
        """Begin again with empty counters."""
        self.server, self.cpu, self.started = Server(), 0.0, at


def watched(port: int, *, signal: Json | None = None) -> ModelOptimization:
    """A resource with windows of a minute, and a latency and an error rate of the pods' own or this signal."""
    signals: list[Json] = [
        {"name": "p95-latency", "kind": "Latency", "maxDegradation": "0.25"},
        {"name": "errors", "kind": "ErrorRate", "limit": "0.05"},
    ]
    performance: Json = {"pods": {"port": port}, "signals": [signal] if signal else signals}
    if signal:
        performance["prometheus"] = {"server": "main"}
    return samples.resource(monitoring={"window": "60s", "performance": performance})


@pytest.fixture
def clock() -> Clock:
    """A clock that stands at the beginning of the window."""
    clock = Clock()
    clock.now = START
    return clock


@asynccontextmanager
async def reading(clock: Clock) -> AsyncIterator[LiveReader]:
    """A reader without Prometheus servers."""
    reader = LiveReader({}, clock=clock)
    try:
        yield reader
    finally:
        await reader.close()


def local(uid: str = "a", limit: float | None = 0.5) -> ServingPod:
    """The pod at the port that is served."""
    return ServingPod(uid, "127.0.0.1", limit)


async def judged(reader: LiveReader, resource: ModelOptimization, pods: Sequence[ServingPod]) -> Live:
    """The window's numbers."""
    live = await reader.window(resource, pods, index=INDEX, start=START, end=END)
    assert live is not None
    return live


def ticks(clock: Clock, *, until: float = END, step: float = 5.0) -> Iterator[float]:
    """Let time pass."""
    while clock.now < until:
        clock.now += step
        yield clock.now


def by_name(live: Live) -> dict[str, LiveNumber]:
    """The numbers by their signals' names."""
    return {number.name: number for number in live.numbers}


async def test_a_window_is_what_was_counted_between_its_ends(clock: Clock) -> None:
    """Not what was counted before or after: the whole way over HTTP."""
    pod = Pod()
    pod.server.answer(9.0, times=500)
    async with serving(pod.answer) as port, reading(clock) as reader:
        resource = watched(port)
        await reader.observe(resource, [local()])
        for _ in ticks(clock):
            pod.server.answer(0.02, times=9)
            pod.server.answer(0.02, status=500)
            pod.cpu += 2.0
            await reader.observe(resource, [local()])
        live = await judged(reader, resource, [local()])
        pod.server.answer(9.0, times=500)
        assert await judged(reader, resource, [local()]) == live
    assert (live.window, live.requests) == (INDEX, 120)
    assert live.saturation == pytest.approx(24 / (0.5 * 60))
    assert by_name(live)["p95-latency"].value == pytest.approx(0.01 + 0.015 * 0.95)
    assert by_name(live)["errors"].value == pytest.approx(0.1)


async def test_a_window_that_has_not_ended_is_no_news(clock: Clock) -> None:
    """And neither is one of a resource whose speed nobody watches."""
    async with reading(clock) as reader:
        assert await reader.window(watched(1), [], index=INDEX, start=START, end=END) is None
        clock.now = END
        assert await reader.window(samples.resource(), [], index=INDEX, start=START, end=END) is None
        assert reader.wait(samples.resource()) is None


async def test_pods_are_asked_at_boundaries_and_a_few_times_between(clock: Clock) -> None:
    """Many passes in a moment make one request, and the last one before a boundary does not stand for it."""
    asked = []

    async def answer(_: web.Request) -> web.Response:
        asked.append(clock.now)
        return web.Response(text="")

    async with serving(answer) as port, reading(clock) as reader:
        resource = watched(port)
        clock.now = END - 2
        assert reader.wait(resource) == 0
        await asyncio.gather(*(reader.observe(resource, [local()]) for _ in range(5)))
        assert reader.wait(resource) == 2
        clock.now = END
        await reader.observe(resource, [local()])
        assert reader.wait(resource) == 5
    assert asked == [END - 2, END]


async def test_the_window_of_a_restart_of_the_operator_is_unknown(clock: Clock) -> None:
    """An operator that came late has not seen its beginning, and guesses nothing; the next window is known."""
    pod = Pod()
    async with serving(pod.answer) as port, reading(clock) as reader:
        resource = watched(port)
        clock.now = START + 20
        for _ in ticks(clock):
            await reader.observe(resource, [local()])
        live = await judged(reader, resource, [local()])
        for _ in ticks(clock, until=END + LENGTH):
            pod.server.answer(0.02)
            await reader.observe(resource, [local()])
        after = await reader.window(resource, [local()], index=INDEX + 1, start=END, end=END + LENGTH)
    assert {number.reason for number in live.numbers} == {"Restarted"}
    assert (live.requests, live.saturation) == (None, None)
    assert after is not None
    assert after.requests == 12
    assert {number.reason for number in after.numbers} == {"Measured"}


async def test_a_pod_that_restarts_counts_with_what_is_known_of_it(clock: Clock) -> None:
    """Its counters begin at zero again; nothing becomes negative or is counted twice."""
    pod = Pod()
    async with serving(pod.answer) as port, reading(clock) as reader:
        resource = watched(port)
        await reader.observe(resource, [local()])
        for now in ticks(clock):
            if now == START + 30:
                pod.restart(now)
            pod.server.answer(0.02, times=10)
            await reader.observe(resource, [local()])
        live = await judged(reader, resource, [local()])
    assert live.requests == 120


async def test_pods_that_come_and_go_count_while_they_are_there(clock: Clock) -> None:
    """A new one since it started, an old one until it was last seen."""
    old, new = Pod(), Pod(started=START + 31)
    old.server.answer(0.02, times=7)

    async def answer(request: web.Request) -> web.Response:
        return await (old if request.host.startswith("127.0.0.1") else new).answer(request)

    async with serving(answer) as port, reading(clock) as reader:
        resource = watched(port)
        await reader.observe(resource, [local("old")])
        for now in ticks(clock):
            pod = old if now <= START + 30 else new
            pod.server.answer(0.02, times=10)
            await reader.observe(resource, [local("old") if now <= START + 30 else ServingPod("new", "localhost", 0.5)])
        live = await judged(reader, resource, [])
    assert live.requests == 120


async def test_a_pod_that_was_there_unseen_counts_only_from_now_on(clock: Clock) -> None:
    """What an old pod has counted before it was first asked belongs to no window."""
    first, late = Pod(), Pod(started=START - 5000)
    late.server.answer(9.0, times=1000)

    async def answer(request: web.Request) -> web.Response:
        return await (first if request.host.startswith("127.0.0.1") else late).answer(request)

    async with serving(answer) as port, reading(clock) as reader:
        resource, pods = watched(port), [local("first"), ServingPod("late", "localhost")]
        await reader.observe(resource, pods[:1])
        for now in ticks(clock):
            first.server.answer(0.02)
            await reader.observe(resource, pods if now > START + 30 else pods[:1])
        live = await judged(reader, resource, pods)
    assert live.requests == 12
    assert live.saturation is None


@pytest.mark.parametrize(
    "text, status, words",
    [
        ("x" * (SIZE_LIMIT + 1), 200, "more than"),
        ("", 404, "answers with 404"),
        ("rest_server_requests_total{ NaN", 200, "malformed"),
        ("rest_server_requests_total NaN", 200, "no total"),
    ],
)
async def test_pods_that_cannot_be_read_make_the_window_unknown(
    clock: Clock, text: str, status: int, words: str
) -> None:
    """With what is wrong, for people."""
    async with serving(saying(text, status=status)) as port, reading(clock) as reader:
        resource = watched(port)
        for _ in ticks(clock, step=30):
            await reader.observe(resource, [local()])
        live = await judged(reader, resource, [local()])
    assert {(number.value, number.reason) for number in live.numbers} == {(None, "Unreachable")}
    assert words in live.numbers[0].message


async def test_a_packed_answer_is_not_unpacked(clock: Clock) -> None:
    """A few bytes that would become a gigabyte stay a few bytes."""
    bomb = zlib.compress(bytes(64 * 1024 * 1024), wbits=31)

    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    async with serving(answer) as port, reading(clock) as reader:
        clock.now = END
        live = await judged(reader, watched(port), [local()])
    assert "no text" in live.numbers[0].message


async def test_a_target_without_pods_has_no_numbers(clock: Clock) -> None:
    """Scaled to zero is no fault of the model."""
    async with reading(clock) as reader:
        await reader.observe(watched(1), [])
        clock.now = END
        live = await judged(reader, watched(1), [])
    assert {number.reason for number in live.numbers} == {"NoData"}


async def test_a_query_goes_to_the_named_server_alone(clock: Clock) -> None:
    """A server that the administrator has not allowed is said, and the window's other facts stand."""
    pod = Pod()
    async with serving(pod.answer) as port, reading(clock) as reader:
        resource = watched(port, signal={"name": "slow", "kind": "Latency", "query": "up", "limit": "1"})
        await reader.observe(resource, [local()])
        for _ in ticks(clock):
            pod.server.answer(0.02)
            await reader.observe(resource, [local()])
        live = await judged(reader, resource, [local()])
    assert live.numbers[0].reason == "ServerNotAllowed"
    assert live.requests == 12


async def test_what_is_kept_does_not_grow(clock: Clock) -> None:
    """A hundred windows and pods that are replaced all the time leave as much in memory as three."""
    sizes = []
    pod = Pod()
    async with serving(pod.answer) as port, reading(clock) as reader:
        resource = watched(port)
        for number in range(100):
            for _ in ticks(clock, until=clock.now + LENGTH, step=20):
                pod.server.answer(0.02)
                await reader.observe(resource, [local(f"pod-{number}")])
            sizes.append(_size(reader))
        reader.forget(resource.key)
        assert _size(reader) < sizes[5] / 4
    assert sizes[-1] <= sizes[5] * 1.05
    assert sizes[-1] < 32 * 1024


def _size(thing: object, seen: set[int] | None = None) -> int:
    """Bytes of what a reader remembers."""
    seen = set() if seen is None else seen
    if id(thing) in seen:
        return 0
    seen.add(id(thing))
    parts: list[object] = []
    if isinstance(thing, LiveReader):
        parts = [thing._ledgers, thing._judged]
    elif isinstance(thing, dict):
        parts = [*thing.keys(), *thing.values()]
    elif isinstance(thing, list | tuple):
        parts = list(thing)
    elif hasattr(thing, "__slots__"):
        parts = [getattr(thing, name) for name in thing.__slots__]
    return sys.getsizeof(thing) + sum(_size(part, seen) for part in parts)
