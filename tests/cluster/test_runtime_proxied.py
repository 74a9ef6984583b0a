"""A whole operator behind a proxy that delays its watches, ends them, and refuses its requests."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.cluster.harness import Bench, env_of
from tests.cluster.proxy import Proxy, Refusal
from tests.cluster.running import idle, running, until
from tests.faults.stagehand import Stagehand

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("hung_up")]
Json = dict[str, Any]
BATCH = "/apis/batch/v1"
KINDS = 5


@pytest.fixture
async def proxy(bench: Bench) -> AsyncIterator[Proxy]:
    """A proxy in front of the API server."""
    async with Proxy(bench.plane.kubeconfig).serving() as serving:
        yield serving


async def test_a_watch_that_is_too_old_is_listed_anew_and_costs_no_write(bench: Bench, proxy: Proxy) -> None:
    """Fault 9: all watches end with code 410 and begin again with a list; nothing has changed, nothing is written."""
    bench.deploy()
    async with running(bench, proxy=proxy) as operator:
        bench.declare(execution={})
        await until(lambda: bool(bench.jobs) and len(set(asked(proxy.watches))) == KINDS and idle(operator))
        written = list(bench.spy.writes)
        begun, listed = len(proxy.watches), len(proxy.lists)
        proxy.expire()
        await until(lambda: len(set(asked(proxy.watches[begun:]))) == KINDS and idle(operator))
        assert asked(proxy.lists[listed:]).count("jobs") == 1
        assert bench.spy.writes == written


async def test_what_a_watch_lost_before_it_ended_is_told_by_the_list(bench: Bench, proxy: Proxy) -> None:
    """Fault 9: events that were still under way when the server forgot them are made up for, without a resync."""
    bench.deploy()
    bench.deploy("other")
    async with running(bench, proxy=proxy) as operator:
        bench.declare(execution={})
        await until(lambda: bool(bench.jobs) and idle(operator))
        proxy.hold()
        bench.declare("second", target="other", execution={})
        bench.patch(bench.path("modeloptimizations", "digits"), {"spec": {"suspend": True}})
        proxy.expire()
        proxy.release()
        await until(lambda: len(bench.jobs) == 2)
        await until(
            lambda: all(job["spec"].get("suspend") for job in bench.jobs if "digits" in job["metadata"]["name"])
        )


async def test_writes_on_an_old_memory_are_decided_anew(bench: Bench, proxy: Proxy) -> None:
    """Fault 3: an edit whose event is held back is met by the write, kept, and obeyed; late events change nothing."""
    bench.deploy()
    async with running(bench, proxy=proxy) as operator:
        key = bench.declare(execution={})
        await until(lambda: bool(bench.jobs) and idle(operator))
        (first,) = bench.jobs
        proxy.hold()
        bench.patch(bench.path("modeloptimizations", "digits"), {"spec": {"model": {"uri": "pvc://store/new.onnx"}}})
        Stagehand(bench.api).finish(first)
        operator.queue.add(key)
        await until(lambda: idle(operator))
        proxy.release()
        await until(lambda: {job["metadata"]["name"] for job in bench.jobs} > {first["metadata"]["name"]})
        await until(lambda: idle(operator))
        resource = bench.resource()
        assert resource["spec"]["model"]["uri"] == "pvc://store/new.onnx"
        assert resource["status"]["observedGeneration"] == resource["metadata"]["generation"] == 2
        assert resource["status"].get("champion") is None
        written = len(bench.spy.writes)
        operator.queue.add(key)
        await until(lambda: idle(operator))
        assert len(bench.spy.writes) == written


async def test_every_event_late_a_whole_pass_makes_everything_once(bench: Bench, proxy: Proxy) -> None:
    """Fault 3: half a second behind in all that it sees, the operator still promotes, and makes no Job twice."""
    proxy.lag = 0.5
    await promote_behind(proxy, bench)


async def test_a_server_that_asks_for_time_in_the_middle_gets_it(bench: Bench, proxy: Proxy) -> None:
    """Fault 6: each write is refused with 429 when it is sent first; the promotion comes, and no condition tells."""
    refused: set[str] = set()

    def busy(method: str, path: str) -> Refusal | None:
        request = f"{method} {path.partition('?')[0]}{' watch' * ('watch=true' in path)}"
        reads = method == "GET" and "/pods" not in path
        starts = len(set(asked(proxy.watches))) < KINDS  # the first list has a wait of its own
        if starts or reads or request in refused:
            return None
        refused.add(request)
        return 429, {"Retry-After": "1"}

    proxy.refuse = busy
    await promote_behind(proxy, bench)
    kinds = {request.partition(f"/namespaces/{bench.namespace}/")[2].partition("/")[0] for request in refused}
    assert {"POST", "PATCH", "GET"} <= {request.partition(" ")[0] for request in refused}
    assert {"leases", "jobs", "optimizationruns", "modeloptimizations", "deployments"} <= kinds


async def test_two_operators_make_one_rollout(bench: Bench, proxy: Proxy) -> None:
    """Fault 30: both work from the first Job to the promotion, one of them late; the target changes once."""
    proxy.lag = 0.3
    async with running(bench) as other:
        await promote_behind(proxy, bench)
        await until(lambda: idle(other))


def asked(paths: list[str]) -> list[str]:
    """Return what is listed or watched by each request, such as `jobs`."""
    return [path.partition("?")[0].rpartition("/")[2] for path in paths]


async def promote_behind(proxy: Proxy, bench: Bench) -> None:
    """Let an operator behind the proxy take a resource to its champion, and check what it made on the way."""
    bench.deploy(replicas=1)
    seen: set[str] = set()
    with Stagehand(bench.api, namespace=bench.namespace) as stagehand:
        async with running(bench, proxy=proxy) as operator:
            bench.declare(execution={}, rollout={"bakeTime": "0s"})
            await until(lambda: _is_over(bench, seen))
            await until(lambda: idle(operator))
    assert [len(uids) for uids in stagehand.jobs_seen.values()] == [1] * len(stagehand.jobs_seen)
    assert [len(values) for values in stagehand.values_seen.values()] == [2]
    assert bench.resource()["status"]["lastRun"]["outcome"] == "Promoted"
    assert env_of(bench)[0]["value"] == bench.resource()["status"]["champion"]["injectedValue"]
    assert not seen & {"ApiServerBusy", "TooManyRequests", "Failed", "NameConflict", "Unreachable"}


def _is_over(bench: Bench, seen: set[str]) -> bool:
    """Note the reasons of all conditions, and return whether the first run is over and nothing is left to undo."""
    resource = bench.resource()
    status = resource.get("status", {})
    seen |= {condition["reason"] for condition in status.get("conditions", ())}
    return "lastRun" in status and not resource["metadata"].get("finalizers")


async def test_a_long_wait_that_the_server_asks_for_is_kept(bench: Bench, proxy: Proxy) -> None:
    """Fault 6: the refused write is sent again no sooner than asked, whatever events come in between."""
    bench.deploy()
    loop = asyncio.get_running_loop()
    posts: list[float] = []

    def refuse_first(method: str, path: str) -> Refusal | None:
        if method != "POST" or not path.endswith("/jobs"):
            return None
        posts.append(loop.time())
        return (429, {"Retry-After": "3"}) if len(posts) == 1 else None

    proxy.refuse = refuse_first
    async with running(bench, proxy=proxy) as operator:
        bench.declare(execution={})
        await until(lambda: bool(posts))
        before = bench.resource()["status"]["conditions"]
        bench.patch(bench.path("modeloptimizations", "digits"), {"metadata": {"labels": {"touched": "yes"}}})
        await until(lambda: bool(bench.jobs) and idle(operator))
    assert len(posts) == 2
    assert posts[1] - posts[0] >= 3
    assert bench.resource()["status"]["conditions"] == before
