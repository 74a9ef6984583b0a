"""What is heard of a version in its bake, from pods that are real HTTP servers."""

import math

import pytest
from aiohttp import web

from retune.api.objects import ModelOptimization
from retune.api.target import Injection
from retune.plan.observed import ServingPod
from retune.settings import Server as Allowed
from retune.signals.bake import LOOK_SECONDS
from retune.signals.live import LiveReader
from tests import samples
from tests.unit.operator.test_queue import Clock
from tests.unit.operator.test_signals_live import Pod, local, reading, watched
from tests.unit.operator.web import saying, serving

SINCE = 1000.0


@pytest.fixture
def clock() -> Clock:
    """A clock that stands in the middle of a bake."""
    clock = Clock()
    clock.now = SINCE + 60
    return clock


async def test_everything_that_the_new_pods_have_answered_counts(clock: Clock) -> None:
    """Nothing has to be remembered: their totals began with the version, and an operator that is new hears the same."""
    pod = Pod(started=SINCE - 20)
    pod.server.answer(0.02, times=2000)
    pod.server.answer(0.02, status=500, times=2000)
    pod.cpu = 30.0
    pods = [local("a"), local("b")]
    async with serving(pod.answer) as port, reading(clock) as reader:
        heard = await reader.bake.heard(watched(port), pods, since=SINCE)
        async with reading(clock) as another:
            assert await another.bake.heard(watched(port), pods, since=SINCE) == heard
    assert (heard.pods, heard.requests, heard.errors, heard.trouble) == (2, 8000, 4000, None)
    assert heard.buckets[math.inf] == 8000
    assert heard.saturation == pytest.approx(60 / (2 * 0.5 * 80))


async def test_many_passes_in_a_moment_ask_once(clock: Clock) -> None:
    """Another bake is another question."""
    asked = []

    async def answer(_: web.Request) -> web.Response:
        asked.append(clock.now)
        return web.Response(text="")

    async with serving(answer) as port, reading(clock) as reader:
        for _ in range(5):
            await reader.bake.heard(watched(port), [local()], since=SINCE)
        assert len(asked) == 1
        clock.now += LOOK_SECONDS
        await reader.bake.heard(watched(port), [local()], since=SINCE)
        await reader.bake.heard(watched(port), [local()], since=clock.now)
        assert len(asked) == 3


async def test_a_pod_that_cannot_be_read_is_told_and_the_others_count(clock: Clock) -> None:
    """What is not heard is no evidence, for or against."""
    pod = Pod(started=SINCE)
    pod.server.answer(0.02, times=10)
    async with serving(pod.answer) as port, reading(clock) as reader:
        silent = ServingPod("z", "127.0.0.2", 0.5)
        heard = await reader.bake.heard(watched(port), [local(), silent], since=SINCE)
    assert (heard.pods, heard.requests) == (1, 10)
    assert "127.0.0.2" in (heard.trouble or "")


async def test_without_pods_there_is_nothing_to_hear(clock: Clock) -> None:
    """And that is said."""
    async with reading(clock) as reader:
        heard = await reader.bake.heard(samples.resource(), [], since=SINCE)
    assert (heard.pods, heard.requests, heard.trouble) == (0, None, "it has no running pod")


async def test_a_query_is_asked_for_the_time_since_the_bake_began(clock: Clock) -> None:
    """Its window is as long as the bake has lasted, so that the version before does not count."""
    asked = []

    async def answer(request: web.Request) -> web.StreamResponse:
        if request.method == "GET":
            return await saying("")(request)
        asked.append((await request.post())["query"])
        value = {"status": "success", "data": {"resultType": "scalar", "result": [clock.now, "0.25"]}}
        return web.json_response(value)

    signal = {"name": "errors", "kind": "ErrorRate", "limit": "0.05", "query": 'rate(x{job="{{target}}"}[{{window}}])'}
    async with serving(answer) as port:
        servers = {"main": Allowed(f"http://127.0.0.1:{port}", namespaces=("*",))}
        reader = LiveReader(servers, clock=clock)
        heard = await reader.bake.heard(watched(port, signal=signal), [local()], since=SINCE)
        await reader.close()
    assert [number.value for number in heard.numbers] == [0.25]
    assert asked == [f'rate(x{{job="{samples.resource().spec.target.ref.name}"}}[60s])']


async def test_pods_that_run_on_count_from_the_bakes_first_look(clock: Clock) -> None:
    """What they answered for the champion is not the version's; an operator that is new counts from its own look."""
    pod = Pod(started=SINCE - 900)
    pod.server.answer(0.02, status=500, times=900)
    async with serving(pod.answer) as port, reading(clock) as reader:
        resource = following(port)
        before = await reader.bake.heard(resource, [local()], since=None)
        assert (before.requests, before.errors) == (900, 900)
        first = await reader.bake.heard(resource, [local()], since=SINCE)
        assert (first.pods, first.requests, first.errors) == (1, 0, 0)
        pod.server.answer(0.02, times=30)
        clock.now += LOOK_SECONDS
        later = await reader.bake.heard(resource, [local()], since=SINCE)
        assert (later.requests, later.errors, later.buckets[math.inf]) == (30, 0, 30)
        async with reading(clock) as another:
            assert (await another.bake.heard(resource, [local()], since=SINCE)).requests == 0
        clock.now += LOOK_SECONDS
        assert (await reader.bake.heard(resource, [local()], since=clock.now)).requests == 0


def following(port: int) -> ModelOptimization:
    """A resource whose agents follow a key of a ConfigMap, while its pods run on."""
    resource = watched(port)
    key = {"type": "ConfigMap", "configMap": {"name": "wanted", "key": "uri"}, "takeover": "Force"}
    target = resource.spec.target.model_copy(update={"injection": Injection.model_validate(key)})
    return resource.model_copy(update={"spec": resource.spec.model_copy(update={"target": target})})
