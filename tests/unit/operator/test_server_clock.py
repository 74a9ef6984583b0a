"""How far this machine's clock is from the API server's, by what the server's answers say."""

import logging
from email.utils import formatdate

import pytest

from retune.cluster.client import Client, Request, Response
from retune.cluster.server_clock import ServerClock

NOON = 1_764_331_200.0


def heard(own: float, server: float, *, took: float = 0.0) -> ServerClock:
    """A clock that heard an answer which took so long; the server's time is cut to whole seconds."""
    clock = ServerClock(wall=lambda: own + took)
    clock.heard(formatdate(int(server), usegmt=True), sent=own)
    return clock


@pytest.mark.parametrize(
    "own,server,took,ahead",
    [
        (NOON, NOON, 0.0, 0.0),
        (NOON + 0.9, NOON, 0.0, 0.0),
        (NOON, NOON + 0.9, 0.0, 0.0),
        (NOON, NOON + 20.0, 30.0, 0.0),
        (NOON + 61.0, NOON, 0.0, 60.0),
        (NOON - 60.0, NOON, 0.0, -60.0),
        (NOON - 60.0, NOON, 8.0, -52.0),
    ],
)
def test_only_what_is_certain_counts(own: float, server: float, took: float, ahead: float) -> None:
    """The header has no fractions, and the answer was on its way: the least difference that explains it is told."""
    assert heard(own, server, took=took).ahead == pytest.approx(ahead)


@pytest.mark.parametrize("date", [None, "", "yesterday"])
def test_an_answer_without_a_time_says_nothing(date: str | None) -> None:
    """What was known stays."""
    clock = heard(NOON + 61.0, NOON)
    clock.heard(date, sent=NOON)
    assert clock.ahead == pytest.approx(60.0)


def test_a_difference_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """It goes on for days, and every answer shows it."""
    clock = ServerClock(wall=lambda: NOON + 61.0)
    with caplog.at_level(logging.WARNING, logger="retune"):
        for _ in range(3):
            clock.heard(formatdate(NOON, usegmt=True), sent=NOON + 61.0)
    assert [record.message for record in caplog.records] == [
        "this machine's clock is 60 s ahead of the API server's: set it"
    ]


async def test_every_answer_is_heard() -> None:
    """The client passes the header on."""
    clock = ServerClock(wall=lambda: NOON)
    headers = {"Date": formatdate(NOON + 60, usegmt=True)}
    client = Client(lambda _: Response(200, b"{}", headers), threads=1, clock=clock)
    await client.call(Request("GET", "/version"))
    client.close()
    assert clock.ahead == pytest.approx(-60.0)
