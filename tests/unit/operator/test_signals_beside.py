"""What is heard of a canary and of the champion beside it, from pods that are real HTTP servers."""

from dataclasses import replace

import pytest

from retune.plan.observed import ServingPod
from retune.signals.beside import Beside, BesideReader
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


async def hear(reader: LiveReader, port: int, *, mark: str = "c-1") -> Beside:
    """Ask the canary's pod and the target's; they are the same server here, under two UIDs."""
    beside: BesideReader = reader.beside
    return await beside.heard(watched(port), [local("canary")], [local("target")], mark=mark)


async def test_both_sides_count_from_the_first_look_at_a_weight(clock: Clock) -> None:
    """They speak of the same time, though the champion's pods are older; the canary's own totals are told beside."""
    pod = Pod(started=STARTED)
    pod.server.answer(0.02, times=1000)
    async with serving(pod.answer) as port, reading(clock) as reader:
        first = await hear(reader, port)
        assert (first.heard.requests, first.held.requests, first.beside.requests) == (1000, 0, 0)
        pod.server.answer(0.02, times=25)
        pod.server.answer(0.02, status=400, times=5)
        pod.server.answer(0.02, status=500, times=10)
        clock.now += 60
        seen = await hear(reader, port)
    assert (seen.heard.requests, seen.heard.errors, seen.heard.refused) == (1040, 10, 5)
    assert (seen.held.requests, seen.held.errors, seen.held.refused) == (40, 10, 5)
    assert (seen.beside.requests, seen.beside.errors, seen.beside.refused) == (40, 10, 5)
    assert max(seen.held.buckets.values()) == 40


async def test_what_is_usual_is_what_the_champion_has_shown_before(clock: Clock) -> None:
    """By a thousand requests at least, as a bound of its histogram; what comes at the weight does not change it."""
    pod = Pod(started=STARTED)
    pod.server.answer(0.02, times=999)
    async with serving(pod.answer) as port, reading(clock) as reader:
        assert (await hear(reader, port)).usual_seconds is None
        pod.server.answer(0.02, times=1)
        clock.now += 60
        before = await hear(reader, port, mark="c-2")
        pod.server.answer(7.0, times=9000)
        clock.now += 60
        after = await hear(reader, port, mark="c-2")
    assert before.usual_seconds == after.usual_seconds
    assert before.usual_seconds is not None
    assert 0.02 <= before.usual_seconds < 7.0


async def test_another_weight_is_another_time(clock: Clock) -> None:
    """Nothing of the weight before counts, on either side."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        await hear(reader, port)
        pod.server.answer(0.02, times=30)
        clock.now += 60
        seen = await hear(reader, port, mark="c-2")
        assert (seen.held.requests, seen.beside.requests) == (0, 0)


async def test_an_operator_that_is_new_hears_both_from_then_on(clock: Clock) -> None:
    """What it has not seen of one side is not held against the other; the canary's own totals are all there."""
    pod = Pod(started=STARTED)
    pod.server.answer(0.02, times=30)
    async with serving(pod.answer) as port:
        async with reading(clock) as reader:
            await hear(reader, port)
        pod.server.answer(0.02, status=500, times=30)
        async with reading(clock) as another:
            seen = await hear(another, port)
    assert (seen.heard.errors, seen.held.errors, seen.beside.errors) == (30, 0, 0)


async def test_a_pod_that_goes_takes_nothing_of_what_was_counted_with_it(clock: Clock) -> None:
    """Counts of a weight never fall; a pod that comes counts from its first look."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        await hear(reader, port)
        pod.server.answer(0.02, times=30)
        clock.now += 60
        await hear(reader, port)
        clock.now += 60
        gone = await reader.beside.heard(watched(port), [local("canary")], [local("other")], mark="c-1")
        pod.server.answer(0.02, times=5)
        clock.now += 60
        after = await reader.beside.heard(watched(port), [local("canary")], [local("other")], mark="c-1")
    assert (gone.beside.requests, after.beside.requests) == (30, 35)


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
        seen = await hear(other, port)
    assert (seen.held.requests, seen.beside.requests) == (7, 7)


async def test_a_side_that_cannot_be_read_says_so(clock: Clock) -> None:
    """It is no evidence, and what was counted before is kept."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        silent = ServingPod("z", "127.0.0.2", 0.5)
        seen = await reader.beside.heard(watched(port), [silent], [local()], mark="c-1")
        assert (seen.held.pods, seen.held.requests, seen.beside.pods) == (0, None, 1)
        assert "127.0.0.2" in (seen.held.trouble or "")
        pod.server.answer(0.02, times=30)
        clock.now += 60
        await reader.beside.heard(watched(port), [silent], [local()], mark="c-1")
        clock.now += 60
        away = await reader.beside.heard(watched(port), [silent], [replace(silent, uid=local().uid)], mark="c-1")
    assert (away.beside.requests, away.beside.pods) == (30, 0)
    assert "127.0.0.2" in (away.beside.trouble or "")


async def test_a_resource_that_is_gone_is_forgotten(clock: Clock) -> None:
    """With all else that is remembered of it."""
    pod = Pod(started=STARTED)
    async with serving(pod.answer) as port, reading(clock) as reader:
        await hear(reader, port)
        reader.forget("ml/digits")
        assert reader.beside._trials == {}
