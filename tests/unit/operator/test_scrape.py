"""Progress of a search, from real HTTP answers of workers that may be anything."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from retune.contract.paths import METRIC_BEST, METRIC_TRIALS_DONE, METRIC_TRIALS_FAILED, METRIC_TRIALS_TOTAL
from retune.signals.bounded import UnreadableError
from retune.signals.scrape import SIZE_LIMIT, Progress, Scraper, parse, told, words

EXPOSITION = f"""
# HELP {METRIC_TRIALS_TOTAL} Trials the run may spend.
# TYPE {METRIC_TRIALS_TOTAL} gauge
{METRIC_TRIALS_TOTAL} 24
# TYPE {METRIC_TRIALS_DONE} gauge
{METRIC_TRIALS_DONE} 9
# TYPE {METRIC_TRIALS_FAILED} gauge
{METRIC_TRIALS_FAILED} 2
# TYPE {METRIC_BEST} gauge
{METRIC_BEST}{{metric="latency_p95_ms"}} 0.62
{METRIC_BEST}{{metric="size_bytes"}} 0.264
"""


@asynccontextmanager
async def a_worker(answer: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncIterator[int]:
    """An HTTP server on loopback; yields its port."""
    app = web.Application()
    app.router.add_get("/metrics", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


@asynccontextmanager
async def a_scraper(
    port: int, *, interval: float = 0.0, clock: Callable[[], float] | None = None
) -> AsyncIterator[Scraper]:
    """A scraper of that port."""
    more = {"clock": clock} if clock else {}
    scraper = Scraper(interval=interval, port=port, **more)
    try:
        yield scraper
    finally:
        await scraper.close()


async def in_good_order(_: web.Request) -> web.Response:
    """What a worker answers."""
    return web.Response(text=EXPOSITION)


def test_an_exposition_is_read_into_progress() -> None:
    """Counts and ratios come out as they went in."""
    best = (("latency_p95_ms", 0.62), ("size_bytes", 0.264))
    assert parse(EXPOSITION) == Progress(total=24, done=9, failed=2, best=best)


def test_a_metric_that_nobody_knows_is_left_out() -> None:
    """A worker of a foreign image cannot fill a status with words of its own."""
    unknown = f'{METRIC_BEST}{{metric="{"x" * 500}"}} 0.1\n'
    assert parse(EXPOSITION + unknown) == parse(EXPOSITION)


def test_a_search_that_has_not_begun_is_no_news() -> None:
    """Silence does not set progress back to zero."""
    assert told(Progress()) is None


@pytest.mark.parametrize(
    "text",
    [
        f'{METRIC_BEST}{{metric="{chr(92)}{chr(34)}' * 3000 + '"} 1\n',
        f'{METRIC_BEST}{{metric="size_bytes"}} 1\n' * 1000,
        f"{METRIC_TRIALS_DONE} nine\n",
        f"{METRIC_TRIALS_DONE}{{\n",
    ],
)
def test_what_a_worker_says_is_bounded(text: str) -> None:
    """One hostile worker must not keep the operator from the resources of others."""
    with pytest.raises(UnreadableError):
        parse(EXPOSITION + text)


def test_what_nobody_asked_for_is_not_read() -> None:
    """A quarter of a megabyte of other metrics, which may be malformed, costs a look at each line."""
    noise = 'a{b="' + "\\\\" * 500 + '"} 1\nnot { an exposition\n'
    assert parse(EXPOSITION + noise * 250) == parse(EXPOSITION)


async def test_workers_are_asked_in_their_turn() -> None:
    """They all tell of one study; one that is gone costs one interval."""
    async with a_worker(in_good_order) as port, a_scraper(port) as scraper:
        answers = [await scraper.trials("ml/a", ["127.0.0.1", "127.0.0.2"]) for _ in range(4)]
    assert [answer is not None for answer in answers] == [True, False, True, False]


async def test_of_many_workers_one_is_read_while_the_loop_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 34: however much 64 workers say and however long it takes to read, others are served meanwhile."""
    requests, loop = 0, asyncio.get_running_loop()
    reading, served = asyncio.Event(), threading.Event()

    async def counted(_: web.Request) -> web.Response:
        nonlocal requests
        requests += 1
        return web.Response(text=EXPOSITION)

    def reads_once_others_are_served(text: str) -> Progress:
        loop.call_soon_threadsafe(reading.set)
        assert served.wait(timeout=10), "nothing else runs while an answer is read"
        return parse(text)

    monkeypatch.setattr("retune.signals.scrape.parse", reads_once_others_are_served)
    async with a_worker(counted) as port, a_scraper(port) as scraper:
        asking = asyncio.create_task(scraper.trials("ml/a", ["127.0.0.1"] * 64))
        await reading.wait()
        served.set()
        assert await asking is not None
    assert requests == 1


@given(st.lists(st.tuples(st.sampled_from(["accuracy", "size_bytes"]), st.floats())))
def test_any_ratio_a_worker_claims_can_be_put_into_words(best: list[tuple[str, float]]) -> None:
    """Infinity and not-a-number are left out rather than shown."""
    text = words(best) or ""
    assert "nan" not in text
    assert "inf" not in text
    assert len(text) < 1024 or len(best) > 20


async def test_a_running_worker_is_asked_over_http() -> None:
    """The whole way: request, answer, parse, words."""
    async with a_worker(in_good_order) as port, a_scraper(port) as scraper:
        trials = await scraper.trials("ml/a", ["127.0.0.1"])
    assert trials is not None
    assert (trials.total, trials.done, trials.failed) == (24, 9, 2)
    assert trials.best == "latency_p95_ms -38.0 %, size_bytes -73.6 % against the champion"


async def test_a_search_is_asked_once_an_interval() -> None:
    """Many events in a moment make one request."""
    now = 0.0
    async with a_worker(in_good_order) as port, a_scraper(port, interval=5, clock=lambda: now) as scraper:
        assert await scraper.trials("ml/a", ["127.0.0.1"]) is not None
        now = 4.9
        assert await scraper.trials("ml/a", ["127.0.0.1"]) is None
        assert await scraper.trials("ml/b", ["127.0.0.1"]) is not None
        now = 5.0
        assert await scraper.trials("ml/a", ["127.0.0.1"]) is not None


async def test_an_answer_without_end_is_cut_off() -> None:
    """A worker cannot fill the operator's memory."""
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while sent < 100 * SIZE_LIMIT:
            await response.write(b"x 1\n" * 4096)
            sent += 4 * 4096
        return response

    async with a_worker(endless) as port, a_scraper(port) as scraper:
        assert await scraper.trials("ml/a", ["127.0.0.1"]) is None
    assert sent < 100 * SIZE_LIMIT


async def test_a_silent_worker_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The others' progress is shown, and the pass goes on."""
    monkeypatch.setattr("retune.signals.scrape.TIMEOUT_SECONDS", 0.2)
    over = asyncio.Event()

    async def silent(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    async with a_worker(silent) as port, a_scraper(port) as scraper:
        assert await scraper.trials("ml/a", ["127.0.0.1"]) is None
        over.set()


@pytest.mark.parametrize("status,text", [(500, EXPOSITION), (302, ""), (200, "not { an exposition"), (200, "\xff\x00")])
async def test_nonsense_is_no_news(status: int, text: str) -> None:
    """Whatever a pod answers, a pass survives it; a redirect is not followed."""

    async def nonsense(_: web.Request) -> web.Response:
        return web.Response(status=status, body=text.encode("latin-1"), headers={"Location": "http://127.0.0.1:1/"})

    async with a_worker(nonsense) as port, a_scraper(port) as scraper:
        assert await scraper.trials("ml/a", ["127.0.0.1"]) is None


async def test_nobody_there_is_no_news() -> None:
    """A pod that has just gone is no failure."""
    async with a_scraper(1) as scraper:
        assert await scraper.trials("ml/a", ["127.0.0.1"]) is None
