"""What the watches and the resync make of objects that cannot be read, and of an API server that is away."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from retune.cluster.cache import Cache
from retune.cluster.client import Client
from retune.cluster.errors import Transient
from retune.cluster.kinds import JOBS, MODEL_OPTIMIZATIONS, Kind, watched
from retune.metrics import Freshness, Metrics
from retune.watch import Intake, Resync
from retune.work_queue import Queue
from tests import samples

Json = dict[str, Any]


def stored(name: str, **spec: Any) -> Json:
    """Return a ModelOptimization as the API server gives it."""
    document = samples.manifest(**spec)
    document["metadata"] |= {"name": name, "namespace": "ml", "uid": f"uid-{name}", "resourceVersion": "5"}
    return document


class Listing:
    """A client that lists these ModelOptimizations and nothing else, after failing so many times."""

    def __init__(self, *items: Json, failures: int = 0, retry_after: float | None = None) -> None:
        self.items = items
        self.failures, self.retry_after = failures, retry_after
        self.lists = 0

    async def pages(self, kind: Kind, namespace: str | None, **_: Any) -> AsyncIterator[Json]:
        """Yield one page."""
        self.lists += 1
        if self.failures:
            self.failures -= 1
            raise Transient("the server is away", retry_after=self.retry_after)
        yield {"metadata": {"resourceVersion": "7"}, "items": self.items if kind is MODEL_OPTIMIZATIONS else ()}


class Station:
    """Memory, queue and the parts that fill them."""

    def __init__(self, listing: Listing) -> None:
        self.cache, self.queue, self.metrics, freshness = Cache(), Queue(), Metrics(), Freshness()
        self.intake = Intake(self.cache, self.queue, freshness)
        self.resync = Resync(
            client=cast("Client", listing),
            cache=self.cache,
            queue=self.queue,
            intake=self.intake,
            freshness=freshness,
            metrics=self.metrics,
            namespaces=(),
            kinds=watched(["Deployment"]),
        )


BROKEN: list[Json] = [
    {"spec": {"model": "a word"}},
    {"spec": None},
    {"metadata": {"name": "broken", "namespace": "ml", "uid": "u", "resourceVersion": "not a number"}},
    {"metadata": {"name": "broken", "namespace": "ml", "uid": "u"}},
]


@pytest.mark.parametrize("wrong", BROKEN, ids=["invalid", "no spec", "odd version", "no version"])
def test_an_object_that_cannot_be_read_is_left_alone_and_named(wrong: Json, caplog: pytest.LogCaptureFixture) -> None:
    """Fault 32: one that another version of the API admitted stops nobody else's watch."""
    station = Station(Listing())
    station.intake.seen(MODEL_OPTIMIZATIONS, stored("broken") | wrong)
    assert "ModelOptimization ml/broken cannot be read" in caplog.text
    assert station.cache.resource_keys() == []
    assert station.intake.seen(MODEL_OPTIMIZATIONS, stored("digits"))
    assert station.cache.resource_keys() == ["ml/digits"]


async def test_a_list_with_an_object_that_cannot_be_read_brings_the_others() -> None:
    """And every resource that can be read is looked at."""
    station = Station(Listing(stored("broken") | BROKEN[0], stored("digits")))
    await station.resync.once()
    assert station.cache.resource_keys() == ["ml/digits"]
    assert {await station.queue.take(), await station.queue.take()} == {"ml/broken", "ml/digits"}
    assert list(station.cache.unreadable) == ["ml/broken"]


def test_what_was_read_before_does_not_count_once_a_resource_cannot_be_read() -> None:
    """Fault 32: a newer spec may suspend what the older one let run."""
    station = Station(Listing())
    station.intake.seen(MODEL_OPTIMIZATIONS, stored("digits"))
    newer = stored("digits", suspend=True, techniques=[{"name": "x", "type": "FromTheFuture"}])
    newer["metadata"] |= {"resourceVersion": "6", "generation": 2}
    assert station.intake.seen(MODEL_OPTIMIZATIONS, newer)
    assert station.cache.resource("ml/digits") is None
    assert "techniques.0.type" in station.cache.unreadable["ml/digits"].sentence
    older = stored("digits", suspend=True)
    older["metadata"] |= {"resourceVersion": "7", "generation": 3}
    assert station.intake.seen(MODEL_OPTIMIZATIONS, older)
    assert station.cache.resource("ml/digits") is not None
    assert not station.cache.unreadable


def test_an_unreadable_object_of_another_kind_says_which(caplog: pytest.LogCaptureFixture) -> None:
    """A Job without a specification, say."""
    station = Station(Listing())
    assert not station.intake.seen(JOBS, {"metadata": {"name": "x", "namespace": "ml", "uid": "u"}})
    assert "Job ml/x cannot be read" in caplog.text


async def test_the_first_sync_is_tried_until_it_is_complete(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is decided on a part of what there is; the waits grow, and why is told."""
    waits: list[float] = []

    async def slept(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("retune.watch.asyncio.sleep", slept)
    station = Station(Listing(stored("digits"), failures=3))
    with caplog.at_level(logging.WARNING, logger="retune"):
        await station.resync.first()
    assert waits == sorted(set(waits))
    assert len(waits) == 3
    assert caplog.text.count("the server is away") == 3
    assert station.cache.resource_keys() == ["ml/digits"]


async def test_the_first_sync_waits_for_as_long_as_the_server_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fault 6: a server that is overloaded is not asked for everything again before that."""
    waits: list[float] = []

    async def slept(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr("retune.watch.asyncio.sleep", slept)
    await Station(Listing(stored("digits"), failures=2, retry_after=30.0)).resync.first()
    assert waits == [30.0, 30.0]


async def test_a_resync_that_fails_is_made_up_for_by_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on until it is cancelled."""
    listing = Listing(stored("digits"), failures=1)
    station, waits = Station(listing), list[float]()

    async def slept(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) > 2:
            raise asyncio.CancelledError

    monkeypatch.setattr("retune.watch.asyncio.sleep", slept)
    with pytest.raises(asyncio.CancelledError):
        await station.resync.forever(every=100)
    assert station.cache.resource_keys() == ["ml/digits"]
    assert all(90 <= wait <= 110 for wait in waits)
