"""Of several operators one works: whatever is cut off, lost or delayed, no two may write at the same time."""

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from retune.cluster.client import Client, Request, Response
from retune.cluster.errors import Transient
from retune.cluster.leadership import LEASE_SECONDS, WRITE_SECONDS, Leadership, LostLeadership

Json = dict[str, Any]
LEASE = ("retune-system", "retune")


@dataclass
class Clock:
    """A clock that a test moves."""

    now: float = 1000.0

    def __call__(self) -> float:
        """Return the moment."""
        return self.now


@dataclass
class Server:
    """An API server with one Lease."""

    lease: Json | None = None
    version: int = 0
    writes: list[str] = field(default_factory=list)
    """Holders, in the order of their writes."""

    def __call__(self, request: Request) -> Response:
        """Answer a request as the real one would."""
        if request.method == "GET":
            return _answer(200, self.lease) if self.lease else _answer(404, {"reason": "NotFound"})
        body: Json = dict(request.body or {})
        if request.method == "POST" and self.lease:
            return _answer(409, {"reason": "AlreadyExists"})
        if request.method == "PUT" and (not self.lease or self._is_stale(body)):
            return _answer(409, {"reason": "Conflict"})
        self.version += 1
        self.lease = body | {"metadata": body["metadata"] | {"resourceVersion": str(self.version)}}
        self.writes.append(body["spec"]["holderIdentity"])
        return _answer(200, self.lease)

    def _is_stale(self, body: Json) -> bool:
        return bool(body["metadata"].get("resourceVersion") != str(self.version))


def _answer(status: int, body: Json) -> Response:
    return Response(status, json.dumps(body).encode())


@dataclass
class Wire:
    """What one operator has between itself and the server."""

    server: Server
    clock: Clock
    cut: bool = False
    """Whether nothing gets through."""
    deaf: bool = False
    """Whether requests arrive and answers do not."""
    slow: float = 0.0
    """Seconds that an answer takes."""

    def __call__(self, request: Request) -> Response:
        """Send one request."""
        if self.cut:
            raise TimeoutError
        answer = self.server(request)
        self.clock.now += self.slow
        if self.deaf:
            raise TimeoutError
        return answer


class Group:
    """Some operators that share a server and a clock."""

    def __init__(self, size: int = 2) -> None:
        self.server, self.clock = Server(), Clock()
        self.wires = [Wire(self.server, self.clock) for _ in range(size)]
        self.members = [
            Leadership(wire, LEASE, identity=f"operator-{index}", clock=self.clock)
            for index, wire in enumerate(self.wires)
        ]

    def stand(self, index: int) -> bool:
        """Let one of them take or renew the Lease."""
        return asyncio.run(self.members[index].stand())

    @property
    def writers(self) -> list[int]:
        """Who may write now."""
        return [index for index, member in enumerate(self.members) if member.seconds_left() > 0]


@pytest.fixture
def group() -> Group:
    """Two operators."""
    return Group()


def test_the_first_leads_and_the_second_waits(group: Group) -> None:
    """For as long as the first renews, the second never leads."""
    assert group.stand(0)
    for _ in range(60):
        assert not group.stand(1)
        group.clock.now += 1
        assert group.stand(0)
    assert group.writers == [0]


def test_a_dead_leader_is_replaced_after_the_lease_and_not_before(group: Group) -> None:
    """The second counts from when it saw the last renewal."""
    group.stand(0)
    group.stand(1)
    group.clock.now += LEASE_SECONDS - 0.1
    assert not group.stand(1)
    group.clock.now += 0.1
    assert group.stand(1)
    assert group.writers == [1]


def test_a_leader_that_ends_in_good_order_is_replaced_at_once(group: Group) -> None:
    """It gives the Lease up, and writes nothing after that."""
    group.stand(0)
    group.stand(1)
    asyncio.run(group.members[0].release())
    assert group.writers == []
    assert group.stand(1)


def test_a_leader_that_is_cut_off_stops_before_the_other_begins(group: Group) -> None:
    """Nobody writes in between."""
    group.stand(0)
    group.stand(1)
    group.wires[0].cut = True
    group.clock.now += WRITE_SECONDS
    assert not group.stand(0)
    assert group.writers == []
    assert not group.stand(1)
    group.clock.now += LEASE_SECONDS - WRITE_SECONDS
    assert group.stand(1)
    group.wires[0].cut = False
    assert not group.stand(0)
    assert group.writers == [1]


def test_a_leader_whose_answers_are_lost_for_a_moment_goes_on(group: Group) -> None:
    """Its renewal was committed without its knowing; the Lease itself says that it still leads."""
    group.stand(0)
    group.wires[0].deaf = True
    group.clock.now += 1
    assert not group.stand(0)
    group.wires[0].deaf = False
    group.clock.now += 1
    assert group.stand(0)
    assert group.writers == [0]


def test_what_is_renewed_counts_from_when_it_was_sent(group: Group) -> None:
    """A slow answer leaves less time: whoever waits has seen the renewal meanwhile."""
    group.wires[0].slow = 3.0
    group.stand(0)
    assert group.members[0].seconds_left() == pytest.approx(WRITE_SECONDS - 3.0)


async def test_a_leader_that_cannot_renew_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has to end, whatever it is doing."""
    group = Group()
    await group.members[0].stand()
    group.wires[0].cut = True

    async def pass_time(seconds: float) -> None:
        group.clock.now += seconds

    monkeypatch.setattr("retune.cluster.leadership.asyncio.sleep", pass_time)
    with pytest.raises(LostLeadership, match="retune-system/retune"):
        await group.members[0].keep()
    assert group.clock.now <= 1000.0 + WRITE_SECONDS + 2


def test_two_that_find_the_lease_free_do_not_both_lead(group: Group) -> None:
    """The server takes one of two writes that are based on the same version."""
    group.stand(0)
    group.stand(1)
    group.clock.now += LEASE_SECONDS
    first, second = group.stand(0), group.stand(1)
    assert (first, second) == (True, False)


def test_writes_end_with_the_leadership(group: Group) -> None:
    """A write has no more time than is left, and is not begun with less than a second; reads are free."""
    sent: list[Request] = []

    def send(request: Request) -> Response:
        sent.append(request)
        return _answer(200, {})

    client = Client(send, threads=1, write_seconds=group.members[0].seconds_left)
    write = Request("PATCH", "/apis/batch/v1/namespaces/ml/jobs/x", body={})
    with pytest.raises(Transient, match="does not lead"):
        asyncio.run(client.call(write))
    assert not sent
    group.stand(0)
    group.clock.now += 6
    asyncio.run(client.call(write))
    assert sum(sent[0].timeout) <= WRITE_SECONDS - 6
    group.clock.now += 3
    with pytest.raises(Transient, match="does not lead"):
        asyncio.run(client.call(write))
    asyncio.run(client.call(Request("GET", "/version")))
    assert [request.method for request in sent] == ["PATCH", "GET"]
    client.close()


steps = st.lists(
    st.tuples(st.integers(0, 2), st.sampled_from(["stand", "cut", "deaf", "well", "release", "slow"]), st.floats(0, 4)),
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(steps=steps)
def test_no_two_may_write_at_the_same_time(steps: list[tuple[int, str, float]]) -> None:
    """Whatever happens to three operators and their networks, in whatever order."""
    group = Group(3)
    for index, what, seconds in steps:
        wire = group.wires[index]
        if what == "release":
            asyncio.run(group.members[index].release())
        elif what == "stand":
            group.stand(index)
        else:
            wire.cut, wire.deaf, wire.slow = what == "cut", what == "deaf", 3.0 * (what == "slow")
        assert len(group.writers) <= 1
        group.clock.now += seconds
        assert len(group.writers) <= 1
