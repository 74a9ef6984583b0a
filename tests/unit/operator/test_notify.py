"""Notices reach real HTTP servers in the form that each wants, and addresses stay secret."""

import asyncio
import json
import logging
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from retune.notify import Notice, Notifier, SinksError, delivery, read_sinks
from retune.notify.forms import CLOUD_EVENTS, SLACK, body
from tests.unit.operator.web import serving

SECRET = "a-secret-in-the-path"
NOTICE = Notice(
    id="0d3f",
    namespace="ml",
    name="digits",
    reason="RolledBack",
    message="version 2 was rolled back: 9 of 90 requests failed",
    warning=True,
    time=datetime(2026, 11, 29, 8, 30, tzinfo=UTC),
)


class Receiver:
    """A server that answers with these status codes in turn, the last one for ever."""

    def __init__(self, *statuses: int, **headers: str) -> None:
        self.statuses, self.headers = statuses, {name.replace("_", "-"): value for name, value in headers.items()}
        self.requests: list[tuple[str, Any, Any]] = []

    async def answer(self, request: web.Request) -> web.Response:
        """Note the request and answer it."""
        status = self.statuses[min(len(self.requests), len(self.statuses) - 1)]
        self.requests.append((request.path, request.headers.copy(), await request.json()))
        return web.Response(status=status, headers=self.headers)


def sinks_file(folder: Path, *sinks: dict[str, Any], **more: Any) -> Path:
    """Write a file of receivers; one without a name is called `platform`."""
    path = folder / "sinks.yaml"
    path.write_text(yaml.safe_dump({"sinks": [{"name": "platform"} | sink for sink in sinks]} | more))
    return path


async def told(receiver: Receiver, folder: Path, *notices: Notice, **sink: Any) -> Counter[str]:
    """Tell a receiver, wait until each delivery has ended, and return how they ended."""
    ended: Counter[str] = Counter()
    async with serving(receiver.answer) as port:
        path = sinks_file(folder, {"url": f"http://127.0.0.1:{port}/{SECRET}"} | sink, cluster="eu-west-1")
        notifier = Notifier(path, count=lambda outcome: ended.update([outcome]), first_wait=0.001)
        for notice in notices:
            notifier.tell(notice)
        await asyncio.gather(*notifier._tasks)
        await notifier.close()
    return ended


async def test_a_cloud_event_says_what_has_happened_and_where(tmp_path: Path) -> None:
    """In structured mode, with the Event's UID, so that a receiver knows what comes twice."""
    receiver = Receiver(202)
    assert await told(receiver, tmp_path, NOTICE, headers={"Authorization": "Bearer t"}) == {"delivered": 1}
    ((path, headers, event),) = receiver.requests
    assert path == f"/{SECRET}"
    assert headers["Content-Type"] == "application/cloudevents+json; charset=utf-8"
    assert headers["Authorization"] == "Bearer t"
    assert event == {
        "specversion": "1.0",
        "id": "0d3f",
        "source": "//eu-west-1/apis/retune.dev/v1alpha1/namespaces/ml/modeloptimizations/digits",
        "type": "dev.retune.modeloptimization.RolledBack",
        "subject": "ml/digits",
        "time": "2026-11-29T08:30:00Z",
        "datacontenttype": "application/json",
        "data": {
            "cluster": "eu-west-1",
            "namespace": "ml",
            "name": "digits",
            "reason": "RolledBack",
            "message": NOTICE.message,
            "severity": "Warning",
        },
    }


async def test_a_chat_room_gets_a_text(tmp_path: Path) -> None:
    """One field, as incoming webhooks take it."""
    receiver = Receiver(200)
    await told(receiver, tmp_path, NOTICE, form=SLACK)
    ((_, _, document),) = receiver.requests
    assert document == {"text": f":warning: *ml/digits in eu-west-1* RolledBack: {NOTICE.message}"}


@given(st.text(max_size=50))
def test_no_message_mentions_people_or_forges_a_link(text: str) -> None:
    """Slack takes <!channel>, <@U1> and <https://..|label> for commands; what a Job has said must stay text."""
    notice = Notice("1", "ml", "digits", "Failed", text, warning=False, time=NOTICE.time)
    said = json.loads(body(notice, form=SLACK, cluster=None))["text"]
    assert not set("<>") & set(said)
    assert json.loads(body(notice, form=CLOUD_EVENTS, cluster=None))["data"]["message"] == text


@pytest.mark.parametrize("statuses", [(503, 500, 200), (429, 204), (408, 200)])
async def test_a_receiver_in_trouble_is_tried_again(tmp_path: Path, statuses: tuple[int, ...]) -> None:
    """Until it takes the notice, which has the same id each time."""
    receiver = Receiver(*statuses)
    assert await told(receiver, tmp_path, NOTICE) == {"delivered": 1}
    assert [event["id"] for _, _, event in receiver.requests] == [NOTICE.id] * len(statuses)


@pytest.mark.parametrize("status", [400, 404, 410, 302])
async def test_a_receiver_that_refuses_is_left_alone(tmp_path: Path, status: int) -> None:
    """No redirect is followed: the headers would go where the administrator sent nothing."""
    receiver = Receiver(status, Location="/elsewhere")
    assert await told(receiver, tmp_path, NOTICE) == {"refused": 1}
    assert len(receiver.requests) == 1


async def test_tries_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that never comes back costs a bounded number of tries."""
    monkeypatch.setattr(delivery, "_LONGEST", 0.002)
    receiver = Receiver(503, Retry_After="Wed, 21 Oct 2015 07:28:00 GMT")
    assert await told(receiver, tmp_path, NOTICE) == {"given_up": 1}
    assert len(receiver.requests) == delivery._TRIES


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("7", 7.0),
        ("86400", 300.0),
        ("Sun, 29 Nov 2026 08:30:09 GMT", 9.0),
        ("Sun, 29 Nov 2026 08:29:00 GMT", 0.0),
        ("soon", 0.0),
        ("", 0.0),
    ],
)
def test_a_receiver_may_ask_for_time(tmp_path: Path, header: str, seconds: float) -> None:
    """In seconds or as a date by its own clock, but not for more than the longest wait."""
    notifier = Notifier(sinks_file(tmp_path, {"url": "https://example.org"}), count=lambda _: None, first_wait=0.0)
    wish = delivery.asked({"Retry-After": header, "Date": "Sun, 29 Nov 2026 08:30:00 GMT"})
    assert notifier._wait(3, wish) == seconds


async def test_one_that_hangs_delays_nobody(tmp_path: Path) -> None:
    """Each delivery waits for itself alone; what is not delivered when the operator ends is given up."""
    hung, quick = asyncio.Event(), Receiver(200)

    async def hang(_: web.Request) -> web.Response:
        hung.set()
        await asyncio.Event().wait()
        return web.Response()

    delivered = asyncio.Event()
    async with serving(hang) as slow, serving(quick.answer) as fast:
        urls = {"slow": f"http://127.0.0.1:{slow}/", "fast": f"http://127.0.0.1:{fast}/"}
        path = sinks_file(tmp_path, *({"name": name, "url": url} for name, url in urls.items()))
        notifier = Notifier(path, count=lambda _: delivered.set())
        notifier.tell(NOTICE)
        await asyncio.wait_for(hung.wait(), 10)
        await asyncio.wait_for(delivered.wait(), 10)
        await notifier.close()
    assert len(quick.requests) == 1


async def test_what_waits_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A receiver that is away cannot fill the operator's memory; what is dropped is counted."""
    monkeypatch.setattr(delivery, "MOST_WAITING", 3)
    ended: Counter[str] = Counter()
    notifier = Notifier(
        sinks_file(tmp_path, {"url": "http://127.0.0.1:9/"}), count=lambda outcome: ended.update([outcome])
    )
    for _ in range(5):
        notifier.tell(NOTICE)
    await notifier.close()
    assert ended == {"dropped": 2}


@pytest.mark.parametrize(
    ("sink", "wants"),
    [
        ({}, True),
        ({"reasons": ["RolledBack", "Drift"]}, True),
        ({"reasons": ["Drift"]}, False),
        ({"namespaces": ["ml"]}, True),
        ({"namespaces": ["shop"]}, False),
        ({"warningsOnly": True}, True),
    ],
)
def test_a_receiver_hears_of_what_it_asked_for(tmp_path: Path, sink: dict[str, Any], wants: bool) -> None:  # noqa: FBT001 - a column of the table
    """By reason, by namespace, and by how bad it is."""
    (read,) = read_sinks(sinks_file(tmp_path, {"url": "https://example.org/"} | sink)).sinks
    assert read.wants(NOTICE) is wants


async def test_addresses_that_change_are_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A Secret is changed under a running operator; one that cannot be read leaves the receivers as they were."""
    first, second = Receiver(200), Receiver(200)
    async with serving(first.answer) as one, serving(second.answer) as other:
        path = sinks_file(tmp_path, {"url": f"http://127.0.0.1:{one}/"})
        notifier = Notifier(path, count=lambda _: None)
        notifier.tell(NOTICE)
        await asyncio.gather(*notifier._tasks)
        sinks_file(tmp_path, {"url": f"http://127.0.0.1:{other}/"})
        notifier.tell(NOTICE)
        await asyncio.gather(*notifier._tasks)
        path.write_text(f"sinks: [{{url: 'ftp://{SECRET}'}}]")
        notifier.tell(NOTICE)
        await asyncio.gather(*notifier._tasks)
        await notifier.close()
    assert (len(first.requests), len(second.requests)) == (1, 2)
    assert "the receivers from before are told" in caplog.text
    assert SECRET not in caplog.text


async def test_no_log_tells_an_address(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An address of a webhook lets anyone who reads it write into the room."""
    caplog.set_level(logging.DEBUG, logger="retune")
    for receiver in (Receiver(503, 404), Receiver(403)):
        await told(receiver, tmp_path, NOTICE)
    assert "platform" in caplog.text
    assert SECRET not in caplog.text


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "absent": (Path.unlink, "it cannot be read: No such file or directory"),
    "no YAML": (lambda path: path.write_text("sinks: [\n}"), "it is no YAML: see line 2"),
    "no address": (
        lambda path: path.write_text(f"sinks: [{{name: a, url: 'https://me:{SECRET}@host/'}}]"),
        "sinks.0.url: Value error, give https://HOST/PATH, with credentials in headers",
    ),
    "unknown field": (
        lambda path: path.write_text(f"sinks: [{{name: a, url: 'https://host/{SECRET}', from: x}}]"),
        "sinks.0.from: Extra inputs are not permitted",
    ),
    "no mapping": (lambda path: path.write_text(SECRET), "the file: Input should be a valid dictionary"),
    "twice": (
        lambda path: path.write_text("sinks: [{name: a, url: 'https://a'}, {name: a, url: 'https://b'}]"),
        "two sinks have the same name",
    ),
    "too large": (lambda path: path.write_text("#" * 100_000), "it has more than 65536 bytes"),
}


@pytest.mark.parametrize("fault", WRONG)
def test_a_file_that_is_wrong_is_a_sentence_without_its_values(tmp_path: Path, fault: str) -> None:
    """The operator says it when it starts, where an administrator looks."""
    path = sinks_file(tmp_path, {"url": "https://example.org/"})
    spoil, words = WRONG[fault]
    spoil(path)
    with pytest.raises(SinksError) as raised:
        read_sinks(path)
    assert words in str(raised.value)
    assert SECRET not in str(raised.value)


def test_an_empty_file_tells_nobody(tmp_path: Path) -> None:
    """A Secret that is prepared and not filled in yet is no fault."""
    path = tmp_path / "sinks.yaml"
    path.write_text("")
    assert read_sinks(path).sinks == ()
