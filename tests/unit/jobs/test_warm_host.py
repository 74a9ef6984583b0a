"""The check host and the Job that asks it: whatever happens to the host, the Job has its verdict, and says why."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.data.volumes import CLAIM_ROOT_VARIABLE
from optimizer_jobs.run import main as alone
from optimizer_jobs.warm import messages
from optimizer_jobs.warm.admission import Admission, RefusedError
from optimizer_jobs.warm.ask import main
from retune.api.model import Dataset
from retune.api.own_code import CustomMetric
from retune.api.production import Production
from retune.contract.paths import QUOTA_VARIABLE
from retune.contract.requests import BundleRef, CheckRequest, Window, encode_request
from tests.unit.jobs.warm_host_for_tests import ROOT, Running, host, until

DIGEST = f"sha256:{'1' * 64}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The claims of a namespace: one, with a store."""
    root = tmp_path_factory.mktemp("claims")
    (root / "store").mkdir()
    return root


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    """A host for all tests that leave it alive."""
    with host(folder, "--memory", "256Mi", "--cpu-seconds", "1", "--children", "2") as found:
        yield found


@pytest.fixture(autouse=True)
def claims(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Job sees the same claims."""
    monkeypatch.setenv(CLAIM_ROOT_VARIABLE, str(folder))
    monkeypatch.delenv(QUOTA_VARIABLE, raising=False)


def asked(name: str, **changes: Any) -> CheckRequest:
    """A check of a resource that captures nothing, which needs no library."""
    fields: dict[str, Any] = {
        "resource": f"ml/{name}",
        "spec_hash": "0123456789abcdef",
        "window": Window(index=7, start=25200, end=28800),
        "champion": BundleRef(uri=f"pvc://store/{name}/bundles/{DIGEST[7:]}", digest=DIGEST),
        "reference": Dataset(uri="pvc://store/validation.npz"),
        "min_samples": 500,
        "max_samples": 20000,
        "store": f"pvc://store/{name}",
    }
    return CheckRequest(**(fields | changes))


def done(request: CheckRequest, port: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> tuple[bytes, str]:
    """Return the result of a Job that asks, once it is the result of a Job that does not; and why it was done there."""
    file, result, own = (folder / name for name in ("request.json", "result.json", "own.json"))
    file.write_text(encode_request(request))
    assert alone(["--request", str(file), "--result", str(own)]) == 0
    capsys.readouterr()
    assert main(["--host", "127.0.0.1", "--port", str(port), "--request", str(file), "--result", str(result)]) == 0
    assert result.read_bytes() == own.read_bytes()
    return result.read_bytes(), capsys.readouterr().out


def test_a_host_gives_the_result_of_the_job(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same bytes, and the Job's log has what the check said and the result as its last line."""
    result, said = done(asked("digits"), running.port, tmp_path, capsys)
    assert said.splitlines() == ["check for ml/digits", result.decode()]


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("deaf", "the check ended there by signal 9, without a result"),
        ("bombs", "the check ended there by exit code 1, without a result"),
        ("crashes", "the check ended there by signal 11, without a result"),
        ("babbles", "without a result"),
        ("spins", "the check ended there by signal 9, without a result"),
    ],
)
def test_what_goes_wrong_there_is_done_here(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, why: str
) -> None:
    """A check that dies or takes too much costs no verdict, leaves no process, and harms no other check."""
    said = done(asked(name), running.port, tmp_path, capsys)[1]
    assert said.startswith("checked here, not by host 127.0.0.1: "), said
    assert why in said.splitlines()[0]
    until(lambda: not running.children())
    assert done(asked("digits"), running.port, tmp_path, capsys)[1].startswith("check for ml/digits")


@pytest.mark.slow
def test_a_check_that_hangs_has_an_end(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """After the time that a check may take there, its process is killed, and the Job works alone."""
    with host(folder, "--wall-seconds", "2") as found:
        said = done(asked("hangs"), found.port, tmp_path, capsys)[1]
        assert "the check took over 2 s there" in said.splitlines()[0]
        until(lambda: not found.children())


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"resource": "other/digits"}, "it is the host of namespace ml"),
        ({"reference": Dataset(uri="pvc://elsewhere/v.npz")}, "claim elsewhere is not mounted in it"),
        ({"reference": Dataset(uri="https://data.example/v.npz")}, "is not among its places"),
        ({"store": "pvc://store/others"}, "the store is not the resource's own folder"),
        ({"custom_metric": CustomMetric(entry_point="own.code:metric")}, "a custom metric is measured beside the Job"),
    ],
    ids=["namespace", "claim", "server", "store", "metric"],
)
def test_what_it_may_not_or_cannot_do_is_refused(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], changes: dict[str, Any], why: str
) -> None:
    """A host takes only what the Job would do with the same files and rights."""
    said = done(asked("digits", **changes), running.port, tmp_path, capsys)[1]
    assert why in said.splitlines()[0]


@pytest.mark.parametrize(
    ("captured", "retention", "allowed"),
    [
        ("s3://models/retune/ml/digits/captured", "1h", True),
        ("s3://captured/digits", "1h", True),
        ("s3://models/retune/ml/captured", "1h", True),
        ("s3://models/retune/prod/digits/captured", "1h", False),
        ("s3://models/retune/prod/digits/captured", None, True),
        ("pvc://store/other/captured", "1h", True),  # the store is elsewhere
    ],
)
def test_what_it_removes_from_a_bucket_is_its_namespaces_own(
    captured: str, retention: str | None, *, allowed: bool
) -> None:
    """Not beside the namespace's folder in the bucket of the store."""
    store, production = "s3://models/retune/ml/digits", Production(uri=captured, retention=retention)
    champion = BundleRef(uri=f"{store}/bundles/{DIGEST[7:]}", digest=DIGEST)
    request = asked("digits", store=store, champion=champion, production=production)
    admission = Admission("ml", places=("s3://models/retune", "s3://captured"))
    if allowed:
        assert admission.require(request, json.dumps(messages.settings())) is request
        return
    with pytest.raises(RefusedError, match="outside of the own folder"):
        admission.require(request, json.dumps(messages.settings()))


def test_other_settings_of_the_job_are_no_matter_of_the_host(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Job with another quota than the host's works by its own."""
    monkeypatch.setenv(QUOTA_VARIABLE, "1Gi")
    said = done(asked("digits"), running.port, tmp_path, capsys)[1]
    assert f"different settings: {QUOTA_VARIABLE}" in said.splitlines()[0]


def test_another_release_is_refused(
    running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two releases may judge differently, so neither does the other's work."""
    monkeypatch.setattr(messages, "__version__", "9.9.9")
    said = done(asked("digits"), running.port, tmp_path, capsys)[1]
    assert "it has release 0." in said
    assert "and the Job 9.9.9+" in said


def test_where_there_is_no_host_the_job_works_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody listens: the Job says so."""
    assert "Connection refused" in done(asked("digits"), 9, tmp_path, capsys)[1].splitlines()[0]


@pytest.mark.slow
def test_a_host_that_is_killed_in_the_middle_costs_no_verdict(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The Job notices at once and works alone; the host's child ends with it."""
    with host(folder) as found:
        found.started.unlink(missing_ok=True)
        children: list[int] = []

        def kill() -> None:
            until(found.started.exists)
            children.extend(found.children())
            found.process.kill()

        thread = threading.Thread(target=kill)
        thread.start()
        said = done(asked("hangs"), found.port, tmp_path, capsys)[1]
        thread.join()
        assert "it broke off" in said or "Connection reset" in said, said
        assert children
        until(lambda: not any(Path(f"/proc/{child}/exe").exists() for child in children))


@pytest.mark.slow
def test_a_host_that_is_busy_says_so_in_time(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A check waits for its turn no longer than it may, and where too many wait it does not wait at all."""
    with host(folder, "--wait-seconds", "0.5", "--waiting", "0") as found:
        found.started.unlink(missing_ok=True)
        connection = _posted(found.port, encode_request(asked("hangs")).encode())
        until(found.started.exists)
        assert "it was busy for 0.5 s" in done(asked("digits"), found.port, tmp_path, capsys)[1].splitlines()[0]
        connection.close()
        until(lambda: not found.children())
        assert done(asked("digits"), found.port, tmp_path, capsys)[1].startswith("check for")


def _posted(port: int, body: bytes, **headers: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=100)
    known = {messages.RELEASE_HEADER: messages.release(), messages.SETTINGS_HEADER: json.dumps(messages.settings())}
    connection.request("POST", messages.CHECK_PATH, body, known | headers)
    return connection


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * (messages.REQUEST_BYTES + 1), {}, 413),
        (b"{}", {"Content-Length": "-1"}, 411),
        (b"{}", {"Retune-More": "x" * 40_000}, 431),
        (b"[" * 100_000, {}, 422),
        (b'{"command": "survey", "resource": "ml/digits"}', {}, 422),
        (encode_request(asked("digits")).encode(), {messages.SETTINGS_HEADER: "[]"}, 422),
    ],
    ids=["large", "length", "head", "deep", "command", "settings"],
)
def test_hostile_requests_get_an_answer_and_nothing_else(
    running: Running, body: bytes, headers: dict[str, str], status: int
) -> None:
    """Each is refused, and the host lives."""
    try:
        response = _posted(running.port, body, **headers).getresponse()
        assert response.status == status
        assert "refused" in json.loads(response.read())
    except (BrokenPipeError, ConnectionResetError):
        assert status in {413, 431}  # the rest of what is too long is not read
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=100)
    connection.request("GET", messages.HEALTH_PATH)
    assert connection.getresponse().status == 200


@pytest.mark.parametrize("change", [{"window": 8}, {"specHash": "f"}, {"kind": "Judge"}, {"more": "x" * 4096}], ids=str)
def test_a_result_of_something_else_is_not_believed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, change: dict[str, Any]
) -> None:
    """What claims to be a host may answer what it likes: the Job takes the result of its own check alone."""
    right = {"kind": "Check", "specHash": "0123456789abcdef", "window": 7, "championDigest": DIGEST}
    answer = json.dumps({"result": json.dumps(right | change)}).encode()
    monkeypatch.setattr("optimizer_jobs.warm.ask._answer", lambda *_: (200, answer))
    said = done(asked("digits"), 9, tmp_path, capsys)[1]
    assert "its result is not one of this check" in said.splitlines()[0]


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"", "it broke off"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "it broke off"),
        (b"\r\n\r\n{}", "it broke off"),
        ("HTTP/1.1 \u00b2 OK\r\n\r\n{}".encode(), "it broke off"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", "its answer is no JSON"),
        (b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n{}", "it answers with status 302"),
        (b"HTTP/1.1 200 OK\r\n\r\n" + b"[" * (4 * messages.ANSWER_BYTES), "its answer is no JSON"),
    ],
    ids=["nothing", "ssh", "blank", "digit", "short", "elsewhere", "endless"],
)
def test_what_is_no_answer_is_none(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: bytes, told: str
) -> None:
    """Whoever listens at the port may send what he likes: the Job says what it was and works alone."""
    with closing(socket.create_server(("127.0.0.1", 0))) as server:

        def send() -> None:
            with server.accept()[0] as connection, suppress(OSError):
                connection.recv(1 << 20)
                connection.sendall(answer)

        thread = threading.Thread(target=send)
        thread.start()
        said = done(asked("digits"), server.getsockname()[1], tmp_path, capsys)[1]
        thread.join()
    assert told in said.splitlines()[0]


@pytest.mark.slow
def test_a_host_that_is_told_to_end_finishes_what_it_has_begun(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGTERM closes the door and ends the process by itself."""
    with host(folder) as found:
        done(asked("digits"), found.port, tmp_path, capsys)
        found.process.send_signal(signal.SIGTERM)
        assert found.process.wait(30) == 0


def test_asking_imports_next_to_nothing() -> None:
    """What a Job that only asks imports is the standard library and constants."""
    heavy = ("pydantic", "numpy", "asyncio", "http", "email", "ssl", "optimizer_jobs.run")
    program = f"import sys, optimizer_jobs.warm.ask; print([name for name in {heavy} if name in sys.modules])"
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    found = subprocess.check_output([sys.executable, "-c", program], cwd=ROOT, env=environment, text=True)
    assert found.strip() == "[]"
