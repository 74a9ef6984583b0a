"""What agents are believed: what the agent of retune-runtime tells, and nothing of what others may say in its place."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from optimizer_jobs.agent.following import Standing
from optimizer_jobs.agent.pages import told
from retune.contract.results import Reason
from retune.plan.told import Agent
from retune.signals import agents
from retune.signals.agents import SIZE_LIMIT, AgentReader, Asked, parse
from retune.signals.bounded import UnreadableError
from tests.unit.operator.web import Answer, saying, serving

URI = f"pvc://store/digits/bundles/{64 * 'a'}"
DIGEST = f"sha256:{64 * 'a'}"


@asynccontextmanager
async def asking() -> AsyncIterator[AgentReader]:
    """A reader that is closed in the end."""
    reader = AgentReader()
    try:
        yield reader
    finally:
        await reader.close()


async def answered(answer: Answer) -> Agent:
    """What is made of an answer."""
    async with serving(answer) as port, asking() as reader:
        (agent,) = await reader.told([Asked("x", f"http://127.0.0.1:{port}")])
        return agent


@pytest.mark.parametrize(
    ("standing", "agent"),
    [
        (Standing(), Agent("x", ready=True)),
        (Standing(wanted=URI), Agent("x", wanted=URI)),
        (Standing(wanted=URI, served=DIGEST), Agent("x", ready=True, wanted=URI, served=DIGEST)),
        (
            Standing(wanted=URI, served=f"sha256:{64 * 'b'}", fault="x: it is damaged.", reason=Reason.BUNDLE_CORRUPT),
            Agent("x", wanted=URI, served=f"sha256:{64 * 'b'}", fault="x: it is damaged", reason="BundleCorrupt"),
        ),
    ],
)
async def test_the_runtimes_own_agent_is_understood(standing: Standing, agent: Agent) -> None:
    """Its page and this reader are of one release, and agree."""
    assert await answered(saying(json.dumps(told(standing)))) == agent


async def test_only_the_page_of_versions_is_asked() -> None:
    """By one GET."""
    asked = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.method, request.path))
        return web.json_response({"ready": True})

    await answered(answer)
    assert asked == [("GET", "/version")]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (saying("no", status=404), "answers with 404"),
        (saying("", status=302), "answers with 302"),
        (saying("x" * (SIZE_LIMIT + 1)), f"more than {SIZE_LIMIT} bytes"),
        (saying("<html>"), "its /version is no JSON"),
        (saying("[" * 10_000), "its /version is no JSON"),
        (saying("[]"), "its /version is no JSON object"),
        (saying("null"), "its /version is no JSON object"),
    ],
)
async def test_what_is_no_page_of_an_agent_says_so(answer: Answer, words: str) -> None:
    """It is waited for like a pod that is not ready, and never believed."""
    agent = await answered(answer)
    assert agent == Agent("x", silent=agent.silent)
    assert words in (agent.silent or "")


async def test_an_agent_that_takes_its_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor does one of a crowd keep the others from being asked."""
    monkeypatch.setattr(agents, "_TURN_SECONDS", 0.3)

    async def answer(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        return web.Response()

    async with serving(answer) as slow, serving(saying('{"ready": true}')) as good, asking() as reader:
        pods = [Asked("slow", f"http://127.0.0.1:{slow}"), Asked("good", f"http://127.0.0.1:{good}")]
        first, second = await reader.told(pods)
    assert first.silent is not None
    assert second == Agent("good", ready=True)


@pytest.mark.parametrize(
    ("field", "value", "believed"),
    [
        ("ready", 1, False),
        ("ready", "true", False),
        ("wanted", ["x"], None),
        ("wanted", "x" * 1025, None),
        ("served", "sha256:short", None),
        ("served", {"a": 1}, None),
        ("reason", "lower", None),
        ("reason", "X" * 70, None),
        ("fault", "a\n\tb\u202e\x1b[31m c.", "a b[31m c"),
        ("fault", "x" * 5000, "x" * 400),
        ("fault", "", "it does not say what"),
        ("fault", {"a": 1}, "{'a': 1}"),
    ],
)
def test_each_word_is_bounded(field: str, value: Any, believed: object) -> None:
    """A fault that is no sentence is a fault all the same."""
    assert getattr(parse("x", json.dumps({field: value})), field) == believed


def test_text_that_is_no_object_is_refused() -> None:
    """Whoever parses gets an error with a sentence."""
    with pytest.raises(UnreadableError, match="no JSON object"):
        parse("x", "3")
