"""What is heard of a canary and of the champion beside it, from pods that are real HTTP servers."""

import pytest

from retune.plan.observed import Heard, ServingPod
from retune.signals.beside import BesideReader
from retune.signals.live import LiveReader
from tests.unit.operator.test_queue import Clock
from tests.unit.operator.test_signals_live import Pod, local, reading, watched
from tests.unit.operator.web import serving

STARTED = 1000.0


@pytest.fixture
def clock() -> Clock:
    """A clock that stands in the middle of a trial."""
    clock = Clock()
    clock.now = STARTED + 60
    return clock


async def hear(reader: LiveReader, port: int, *, mark: str = "c-1") -> tuple[Heard, Heard]:
    """Ask the canary's pod and the target's; they are the same server here, under two UIDs."""
    beside: BesideReader = reader.beside
    return await beside.heard(watched(port), [local("canary")], [local("target")], mark=mark)


async def test_a_canary_counts_from_nothing_and_the_champion_from_the_first_look(clock: Clock) -> None:
    """Both sides speak of the same time, though the champion's pods are older."""
    pod = Pod(started=STARTED)
    pod.server.answer(0.02, times=1000)
    async with serving(pod.answer) as port, reading(clock) as reader:
        canary, champion = await hear(reader, port)
        assert (canary.requests, champion.requests) == (1000, 0)
        pod.server.answer(0.02, times=30)
        pod.server.answer(0.02, status=500, times=10)
        clock.now += 60
        canary, champion = await hear(reader, port)
    assert (canary.requests, canary.errors) == (1040, 10)
    assert (champion.requests, champion.errors) == (40, 10)


async def test_another_canary_is_another_time(clock: Clock) -> None:
    """Nothing of the trial before counts."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        await hear(reader, port)
        pod.server.answer(0.02, times=30)
        clock.now += 60
        _, champion = await hear(reader, port, mark="c-2")
        assert champion.requests == 0


async def test_an_operator_that_is_new_hears_the_champion_from_then_on(clock: Clock) -> None:
    """What it has not seen is not guessed; the canary's own totals are all there."""
    pod = Pod(started=STARTED)
    pod.server.answer(0.02, times=30)
    async with serving(pod.answer) as port:
        async with reading(clock) as reader:
            await hear(reader, port)
        pod.server.answer(0.02, times=30)
        async with reading(clock) as another:
            canary, champion = await hear(another, port)
    assert (canary.requests, champion.requests) == (60, 0)


async def test_many_passes_in_a_moment_ask_once(clock: Clock) -> None:
    """Both pods are asked together."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        first = await hear(reader, port)
        pod.server.answer(0.02, times=30)
        assert await hear(reader, port) == first
        clock.now += 6
        assert await hear(reader, port) != first


async def test_a_champion_that_restarts_counts_what_it_has_answered_since(clock: Clock) -> None:
    """As everywhere, a counter that fell has begun again."""
    pod = Pod(started=STARTED)
    pod.server.answer(0.02, times=1000)
    async with serving(pod.answer) as port, reading(clock) as reader:
        await hear(reader, port)
    again = Pod(started=STARTED + 90)
    again.server.answer(0.02, times=7)
    async with serving(again.answer) as port, reading(clock) as other:
        trial = reader.beside._trials["ml/digits"]
        other.beside._trials["ml/digits"] = trial
        clock.now += 60
        _, champion = await hear(other, port)
    assert champion.requests == 7


async def test_a_side_that_cannot_be_read_says_so(clock: Clock) -> None:
    """It is no evidence."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        silent = ServingPod("z", "127.0.0.2", 0.5)
        canary, champion = await reader.beside.heard(watched(port), [silent], [local()], mark="c-1")
    assert (canary.pods, canary.requests, champion.pods) == (0, None, 1)
    assert "127.0.0.2" in (canary.trouble or "")


async def test_a_resource_that_is_gone_is_forgotten(clock: Clock) -> None:
    """With all else that is remembered of it."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        await hear(reader, port)
        reader.forget("ml/digits")
        assert reader.beside._trials == {}
