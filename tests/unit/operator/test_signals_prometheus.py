"""Numbers from a Prometheus server that may answer anything, asked over real HTTP."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from retune.plan.observed import LiveNumber
from retune.settings import Server
from retune.signals.prometheus import SIZE_LIMIT, BadQueryError, Prometheus, filled, parsed
from tests.unit.operator.web import Answer, saying, serving

VALUES = {"namespace": "ml", "target": "digits-server", "model": "digits", "window": "3600s"}
QUERY = 'sum(rate(http_requests_total{namespace="{{namespace}}",app="{{ target }}"}[{{window}}]))'


def answered(result: Any, kind: str = "vector") -> str:
    """A successful answer with that result."""
    return json.dumps({"status": "success", "data": {"resultType": kind, "result": result}})


def a_sample(value: str) -> dict[str, Any]:
    """One series of an instant vector."""
    return {"metric": {}, "value": [1764000000.0, value]}


async def ask(
    answer: Answer,
    *,
    query: str = QUERY,
    server: str = "main",
    token: str | None = None,
    seconds: float = 5.0,
    **scope: Any,
) -> LiveNumber:
    """Ask a server that answers so, and that anybody may ask unless told otherwise."""
    scope = scope or {"namespaces": ("*",)}
    async with serving(answer) as port:
        prometheus = Prometheus({"main": Server(f"http://127.0.0.1:{port}/prom", token, **scope)}, seconds=seconds)
        try:
            return await prometheus.number("rate", query, server=server, values=VALUES, at=1764000000.0)
        finally:
            await prometheus.close()


async def test_a_number_is_asked_for_the_windows_end_with_names_filled_in(tmp_path: Path) -> None:
    """The whole way: path, query, time, token, value."""
    seen: dict[str, str] = {}

    async def answer(request: web.Request) -> web.Response:
        seen.update({key: str(value) for key, value in (await request.post()).items()})
        seen.update(path=request.path, authorization=request.headers["Authorization"])
        return web.Response(text=answered([a_sample("0.25")]))

    (tmp_path / "token").write_text("sesame\n")
    number = await ask(answer, token=str(tmp_path / "token"))
    assert (number.value, number.reason) == (0.25, "Measured")
    assert seen["path"] == "/prom/api/v1/query"
    assert seen["query"] == 'sum(rate(http_requests_total{namespace="ml",app="digits-server"}[3600s]))'
    assert (seen["time"], seen["authorization"]) == ("1764000000.000", "Bearer sesame")


@pytest.mark.parametrize(
    "text, status, reason, words",
    [
        (answered([]), 200, "NoData", "no series"),
        (answered([a_sample("1"), a_sample("2")]), 200, "NoData", "2 series; sum or average them"),
        (answered([a_sample("NaN")]), 200, "NotANumber", "nan"),
        (answered([a_sample("+Inf")]), 200, "NotANumber", "inf"),
        (answered([a_sample("much")]), 200, "Unreachable", "something that is no answer"),
        (answered([], "matrix"), 200, "NoData", "must answer one number"),
        ('{"status":"error","error":"parse error: unexpected\\n }"}', 400, "NoData", "refuses the query: parse error"),
        ('{"status":"error","error":"query timed out"}', 503, "NoData", "query timed out"),
        ("<html>", 200, "Unreachable", "something that is no answer"),
        ("[" * 50_000, 200, "Unreachable", "something that is no answer"),
        ("null", 200, "Unreachable", "something that is no answer"),
        ("", 302, "Unreachable", "answers with 302"),
        ("", 500, "Unreachable", "answers with 500"),
        ("x" * (SIZE_LIMIT + 1), 200, "Unreachable", f"more than {SIZE_LIMIT} bytes"),
    ],
)
async def test_every_bad_answer_is_no_number_with_a_reason(text: str, status: int, reason: str, words: str) -> None:
    """No answer raises, and none is taken for a number that it is not."""
    number = await ask(saying(text, status=status))
    assert (number.value, number.reason) == (None, reason)
    assert words in number.message


async def test_a_scalar_is_a_number_too() -> None:
    """`scalar(...)` and plain numbers answer without a series."""
    assert (await ask(saying(answered([0, "3.5"], "scalar")))).value == 3.5


async def test_a_slow_server_is_not_waited_for() -> None:
    """The bound on time holds while the server holds the connection open."""
    over = asyncio.Event()

    async def never(_: web.Request) -> web.Response:
        await over.wait()
        return web.Response()

    number = await ask(never, seconds=0.1)
    over.set()
    assert (number.value, number.reason) == (None, "Unreachable")
    assert "did not answer within 0.1 s" in number.message


async def test_a_server_that_is_down_is_unreachable() -> None:
    """Nobody listens on the port."""
    async with serving(saying("")) as port:
        pass
    prometheus = Prometheus({"main": Server(f"http://127.0.0.1:{port}", namespaces=("*",))})
    number = await prometheus.number("rate", "up", server="main", values=VALUES, at=0.0)
    await prometheus.close()
    assert (number.value, number.reason) == (None, "Unreachable")


async def test_a_server_that_was_not_allowed_is_not_asked() -> None:
    """Not even where its name is an address."""
    number = await ask(saying(answered([a_sample("1")])), server="127.0.0.1:9090")
    assert (number.value, number.reason) == (None, "ServerNotAllowed")
    assert "allowed: main" in number.message
    assert "prometheus.servers" in number.message


@pytest.mark.parametrize("namespaces", [(), ("other",), ("ml-2",)])
async def test_a_server_is_not_asked_for_a_namespace_that_may_not(namespaces: tuple[str, ...]) -> None:
    """The administrator's token sees everybody's series; who may ask with it is his to say."""
    number = await ask(never_asked, namespaces=namespaces)
    assert (number.value, number.reason) == (None, "ServerNotAllowed")
    assert f"namespace {VALUES['namespace']}" in number.message


async def never_asked(_: web.Request) -> web.Response:
    """Fail: nobody may ask."""
    raise AssertionError("it was asked")


async def test_a_server_that_confines_answers_is_told_the_namespace() -> None:
    """Whatever the query names: prom-label-proxy holds every series of the answer to that namespace."""
    seen: dict[str, str] = {}

    async def answer(request: web.Request) -> web.Response:
        seen.update({key: str(value) for key, value in (await request.post()).items()})
        return web.Response(text=answered([a_sample("1")]))

    number = await ask(answer, query='sum(up{namespace="kube-system"})', parameter="namespace")
    assert number.reason == "Measured"
    assert seen["namespace"] == VALUES["namespace"]


@pytest.mark.parametrize("content", [None, "", "a\nb"])
async def test_a_token_that_cannot_be_used_is_said(tmp_path: Path, content: str | None) -> None:
    """Without its token a server is not asked as nobody."""
    if content is not None:
        (tmp_path / "token").write_text(content)
    number = await ask(saying(answered([a_sample("1")])), token=str(tmp_path / "token"))
    assert (number.value, number.reason) == (None, "Unreachable")
    assert "token" in number.message


@pytest.mark.parametrize("query", ["up{a='{{cluster}}'}", "{{}}", "{{namespace", "x}}", "{{{{namespace}}}}"])
def test_an_unknown_placeholder_is_refused(query: str) -> None:
    """A misspelt one would otherwise select nothing, or everything."""
    with pytest.raises(BadQueryError):
        filled(query, VALUES)


@given(st.text())
def test_no_value_ends_the_string_it_stands_in(value: str) -> None:
    """Whatever a name holds, it comes out as it is between its quotes, or not at all."""
    try:
        text = filled('up{n="{{model}}"}', VALUES | {"model": value})
    except BadQueryError:
        return
    assert text == f'up{{n="{value}"}}'
    assert not set(value) & set('"\\\n{}[]()=~|*+?')


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_json_is_survived(answer: Any) -> None:
    """A value only ever comes out of a proper answer."""
    text = json.dumps({"status": "success", "data": answer})
    assert parsed("n", text, server="main").value is None
