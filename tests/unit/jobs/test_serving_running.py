"""What a running server of others is told and asked: names, versions, refusals, and answers that are hostile."""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineError, EngineOptions
from optimizer_jobs.models.golden import replay
from optimizer_jobs.serving.running import RunningServer, web
from optimizer_jobs.serving.running.ovms import OvmsServer, version_of
from optimizer_jobs.serving.running.session import ServedSession
from optimizer_jobs.serving.running.triton import TritonServer
from optimizer_jobs.serving.running.web import Answer, Web
from optimizer_jobs.serving.tensors import as_bytes, from_bytes
from optimizer_jobs.signature import TEXT
from retune.contract.results import Reason
from tests.unit.jobs.http_for_tests import served
from tests.unit.jobs.ovms_for_tests import PlayedOvms

NUMBERS = ["float16", "float32", "float64", "int8", "uint16", "int64", "bool"]


@pytest.fixture
def played(tmp_path: Path) -> Iterator[PlayedOvms]:
    """An OpenVINO Model Server that serves nothing yet."""
    folder = tmp_path / "models"
    folder.mkdir()
    server = PlayedOvms(folder)
    with served(server):
        yield server


def of(server: PlayedOvms) -> OvmsServer:
    """Return what talks to it."""
    return OvmsServer(server.address, server.models.config.parent, loading_seconds=10)


def asked(server: OvmsServer, bundle: Bundle, name: str) -> ServedSession:
    """Return a bundle's model behind a name of a server."""
    return ServedSession(server.web, server.endpoint(name=name), bundle.manifest.signature, seconds=5)


def test_two_bundles_are_served_side_by_side_and_told_apart(played: PlayedOvms, make: Callable[..., Bundle]) -> None:
    """Each answers its golden requests under its own name, and the server says which it has."""
    server: RunningServer = of(played)
    first, second = make(), make(folder="other", engine=EngineOptions(threads=2))
    server.load(first, name="champion")
    server.load(second, name="candidate")
    for bundle, name, other in ((first, "champion", second), (second, "candidate", first)):
        assert server.serves(bundle, name=name)
        assert not server.serves(other, name=name)
        with closing(asked(of(played), bundle, name)) as session:
            assert all(replay(session, request, golden=bundle.golden) is None for request in bundle.golden.requests)
    assert of(played).web.about == "OpenVINO Model Server 2026.1"


def test_a_name_gets_another_bundle_and_nothing_is_left_of_the_former(
    played: PlayedOvms, make: Callable[..., Bundle]
) -> None:
    """The server starts the new version before it retires the old one; unloading removes what was written."""
    server, folder = of(played), played.models.config.parent
    first, second = make(), make(folder="other", engine=EngineOptions(threads=2))
    server.load(first, name="digits")
    server.load(second, name="digits")
    assert (server.serves(first, name="digits"), server.serves(second, name="digits")) == (False, True)
    assert played.models.models["digits"][version_of(first)].state == "END"
    assert [path.name for path in (folder / "digits").iterdir()] == [second.digest.removeprefix("sha256:")]
    server.unload(name="digits")
    assert not server.serves(second, name="digits")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json"]
    server.unload(name="digits")


def test_a_bundle_that_is_refused_leaves_the_former_in_its_place(
    played: PlayedOvms, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server's own words are passed on, and neither a file nor a line of the configuration is left of it."""
    server, config = of(played), played.models.config
    first, second = make(), make(folder="other", engine=EngineOptions(threads=2))
    server.load(first, name="digits")
    before = config.read_text()
    monkeypatch.setattr("tests.unit.jobs.ovms_for_tests.open_model", _refuse)
    with pytest.raises(JobError) as refused:
        server.load(second, name="digits")
    assert refused.value.reason is Reason.SERVER_REFUSED
    assert "Cannot load network: opset 99 is too new" in str(refused.value)
    assert server.serves(first, name="digits")
    assert json.loads(config.read_text()) == json.loads(before)
    assert [path.name for path in (config.parent / "digits").iterdir()] == [first.digest.removeprefix("sha256:")]


def _refuse(*_: object) -> None:
    raise EngineError("opset 99 is too new\n\x1b[31m")


@pytest.mark.parametrize("name", ["../digits", "", ".", "a/b", "-x"])
def test_a_name_that_is_no_folder_is_refused_before_anything_is_removed(name: str, tmp_path: Path) -> None:
    """Names come from a spec, and folders are removed by name."""
    (tmp_path / "digits").mkdir()
    (tmp_path / "models").mkdir()
    for server in (TritonServer("http://127.0.0.1:1", tmp_path / "models"), of_nobody(tmp_path / "models")):
        with pytest.raises(JobError) as refused:
            server.unload(name=name)
        assert refused.value.reason is Reason.REQUEST_INVALID
    assert (tmp_path / "digits").is_dir()


def of_nobody(folder: Path) -> OvmsServer:
    """Return what talks to a port on which nobody listens."""
    return OvmsServer("http://127.0.0.1:1", folder)


def test_a_server_that_is_not_there_is_named_with_what_to_do(tmp_path: Path) -> None:
    """It may be there a moment later, so the Job's policy may try again."""
    for server in (TritonServer("http://127.0.0.1:1", tmp_path), of_nobody(tmp_path)):
        assert not server.web.is_ready()
        with pytest.raises(JobError) as silent:
            server.web.get("/v2")
        assert (silent.value.reason, silent.value.exit) == (Reason.SERVER_UNREACHABLE, RETRY_EXIT)
        assert "http://127.0.0.1:1: it does not answer (ConnectionRefusedError" in str(silent.value)
        assert "See the log of the server's container" in str(silent.value)


@given(
    st.sampled_from(NUMBERS).flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(max_dims=3, max_side=4)))
)
def test_numbers_survive_the_way_to_bytes_and_back(values: "np.ndarray[Any, Any]") -> None:
    """Bit by bit, NaN included."""
    back = from_bytes(as_bytes(values, values.dtype.name), values.dtype.name)
    assert back.dtype == values.dtype
    assert back.tobytes() == np.ascontiguousarray(values).tobytes()


@given(st.lists(st.text(max_size=20), max_size=6))
def test_texts_survive_the_way_to_bytes_and_back(texts: list[str]) -> None:
    """Empty ones and any letter that UTF-8 has."""
    sound = [text.encode(errors="replace").decode() for text in texts]
    assert from_bytes(as_bytes(np.array(sound, dtype=object), TEXT), TEXT).tolist() == sound


@given(st.binary(max_size=40))
def test_any_bytes_are_texts_or_a_value_error(content: bytes) -> None:
    """Nothing hangs, and nothing but ValueError (UnicodeDecodeError is one) comes of it."""
    try:
        texts = from_bytes(content, TEXT)
    except ValueError:
        return
    assert as_bytes(texts, TEXT) == content


@given(st.binary(max_size=200))
def test_whatever_a_server_says_of_a_refusal_is_one_printable_line(content: bytes) -> None:
    """It ends up in a condition."""
    words = Answer(400, content).words
    assert words.isprintable()
    assert 0 < len(words) <= web.SHOWN


class Scripted(BaseHTTPRequestHandler):
    """Gives the same answer to every request, and then hangs up where it is told to."""

    protocol_version = "HTTP/1.1"
    content: ClassVar[bytes] = b"{}"
    headers_of: ClassVar[Mapping[str, str]] = {}
    status: ClassVar[int] = 200
    connections: ClassVar[set[Any]] = set()
    hangs_up: ClassVar[bool] = False

    def do_POST(self) -> None:
        """Answer."""
        self.rfile.read(int(self.headers["Content-Length"]))
        type(self).connections = self.connections | {self.client_address}
        self.send_response(self.status)
        for name, value in {"Content-Length": str(len(self.content)), **self.headers_of}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(self.content)
        self.close_connection = self.hangs_up

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its name in the base class
        """Say nothing."""


@contextmanager
def answering(bundle: Bundle, **settings: Any) -> Iterator[tuple[ServedSession, type[Scripted]]]:
    """Serve one answer to all requests, and return a session that asks for it."""
    handler = type("Handler", (Scripted,), {"connections": set(), **settings})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    with served(server):
        site = Web("Triton", f"http://127.0.0.1:{server.server_address[1]}")
        session = ServedSession(site, f"{site.address}/v2/models/digits", bundle.manifest.signature, seconds=5)
        with closing(session):
            yield session, handler


def rows(bundle: Bundle) -> dict[str, "np.ndarray[Any, Any]"]:
    """Return one row of zeros."""
    return {spec.name: np.zeros((1, *spec.shape[1:]), spec.dtype) for spec in bundle.manifest.signature.inputs}


def json_answer(bundle: Bundle) -> bytes:
    """Return an answer to one row in JSON throughout, which servers may give though binary tensors were asked for."""
    outputs = [
        {"name": spec.name, "shape": [1, *spec.shape[1:]], "data": [0] * spec.row_size}
        for spec in bundle.manifest.signature.outputs
    ]
    return json.dumps({"outputs": outputs}).encode()


def test_an_answer_in_json_is_read_too_and_the_connection_stays_open(make: Callable[..., Bundle]) -> None:
    """Two calls, one connection: what is measured is the server and no handshake."""
    bundle = make()
    with answering(bundle, content=json_answer(bundle)) as (session, handler):
        session.run(rows(bundle))
        outputs = session.run(rows(bundle))
        assert {name: values.dtype.name for name, values in outputs.items()} == {
            spec.name: spec.dtype for spec in bundle.manifest.signature.outputs
        }
        assert len(handler.connections) == 1


def test_a_connection_that_the_server_has_closed_meanwhile_is_opened_again(make: Callable[..., Bundle]) -> None:
    """An idle connection may be closed at any time; that is no fault of the server."""
    bundle = make()
    with answering(bundle, content=json_answer(bundle), hangs_up=True) as (session, handler):
        for _ in range(3):
            session.run(rows(bundle))
        assert len(handler.connections) == 3


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", {}),
        (b"[]", {}),
        (b'{"outputs": []}', {}),
        (b'{"outputs": [{"name": 1}]}', {}),
        (b'{"outputs": 7}', {}),
        (b"\xff\x00", {}),
        (b'{"outputs": []}', {"Inference-Header-Content-Length": "4"}),
    ],
)
def test_an_answer_that_is_none_of_the_protocol_is_an_engine_error(
    content: bytes, headers: dict[str, str], make: Callable[..., Bundle]
) -> None:
    """With what was wrong in it, in printable words."""
    bundle = make()
    with (
        answering(bundle, content=content, headers_of=headers) as (session, _),
        pytest.raises(EngineError, match="not one of the Open Inference Protocol v2"),
    ):
        session.run(rows(bundle))


def test_a_refused_request_is_an_engine_error_in_the_servers_words(make: Callable[..., Bundle]) -> None:
    """Such as a shape that it does not take."""
    bundle = make()
    refusal = b'{"error": "unexpected shape"}'
    with (
        answering(bundle, status=400, content=refusal) as (session, _),
        pytest.raises(EngineError, match="unexpected shape"),
    ):
        session.run(rows(bundle))


def test_a_server_that_ends_in_the_middle_of_an_answer_is_unreachable(make: Callable[..., Bundle]) -> None:
    """Half an answer is none."""
    bundle = make()
    half = {"content": b"{", "headers_of": {"Content-Length": "100"}, "hangs_up": True}
    with answering(bundle, **half) as (session, _), pytest.raises(JobError) as silent:
        session.run(rows(bundle))
    assert silent.value.reason is Reason.SERVER_UNREACHABLE
    assert "its answer ends 99 bytes too early" in str(silent.value)


def test_an_endless_answer_is_cut_off(make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's answers are hostile input."""
    monkeypatch.setattr(web, "ANSWER_LIMIT_BYTES", 1000)
    bundle = make()
    with answering(bundle, content=b" " * 2000) as (session, _), pytest.raises(JobError) as silent:
        session.run(rows(bundle))
    assert "its answer is longer than 1000 bytes" in str(silent.value)
