"""What a store says when its server does not do what it should: one sentence each, and nothing half written."""

import base64
import datetime as dt
import random
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from optimizer_jobs.errors import RETRY_EXIT
from optimizer_jobs.stores import base, objects
from optimizer_jobs.stores.base import AbsentError, Kind, Store, StoreError, probe, require_conditional
from optimizer_jobs.stores.journal import StoreJournal
from optimizer_jobs.stores.opening import open_store
from retune.contract.exits import Exit
from retune.contract.paths import PRIVATE_ADDRESSES_VARIABLE
from tests.storage import proxy, servers
from tests.storage.proxy import Answer, Cut, Proxy
from tests.storage.servers import Store as Server

pytest.importorskip("s3fs")
pytest.importorskip("gcsfs")

LARGE = random.Random(2).randbytes(40 << 20)
"""Uploaded in parts, and downloaded in blocks."""
NO_CONTAINERS = [
    "az://",
    "az://models@account.blob.core.windows.net/x",
    "az://account.blob.core.windows.net/models",
    "az://a--b/x",
]
MEDIUM = LARGE[: 12 << 20]
"""Uploaded at once, and downloaded in two blocks."""


SECOND_PART = {"s3": b"partNumber=2", "az": base64.b64encode(b"001")}
"""What is in the first line of a request that uploads the second part."""


@pytest.fixture(params=["s3", "az"])
def scheme(request: pytest.FixtureRequest) -> str:
    """Which server has the store."""
    return str(request.param)


@pytest.fixture
def directly(scheme: str, server_of: Callable[[str], Server]) -> Store:
    """The store without the proxy, for what others do to it."""
    server_of(scheme)
    store = open_store(f"{scheme}://{servers.BUCKET}/{uuid4().hex}")
    assert not list(store.stats(""))  # the library connects only now, and must not find the proxy
    return store


@pytest.fixture
def store(directly: Store, between: Proxy) -> Store:
    """The store on the server, behind the proxy."""
    assert between.port
    return open_store(directly.uri)


@pytest.fixture(autouse=True)
def _no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Retries of ours come at once; those of the libraries have pauses of their own."""
    monkeypatch.setattr(base, "_PAUSE_SECONDS", 0.01)


def fails(call: Callable[[], object], kind: Kind) -> StoreError:
    """Call what must fail so, and return why."""
    with pytest.raises(StoreError) as caught:
        call()
    assert caught.value.kind is kind, caught.value
    return caught.value


def times(count: int, fault: proxy.Fault, *, on: bytes) -> proxy.Plan:
    """Break the first requests whose first line has these bytes."""
    left = [count]

    def plan(head: bytes) -> proxy.Fault | None:
        if on not in head.partition(b"\r\n")[0] or not left[0]:
            return None
        left[0] -= 1
        return fault

    return plan


def test_a_server_that_asks_for_patience_gets_it(store: Store, between: Proxy) -> None:
    """503 SlowDown is tried again, and the object is written once."""
    between.plan = times(2, Answer(503, "SlowDown"), on=b"PUT ")
    assert store.create("one", b"one")
    assert store.read("one", limit=10) == b"one"
    assert sum(line.startswith(b"PUT ") for line in between.requests) == 3


def test_a_server_that_goes_on_asking_is_told(store: Store, between: Proxy) -> None:
    """Retries end, and the Job's own policy tries again later."""
    between.plan = lambda head: Answer(503, "SlowDown")
    error = fails(lambda: store.create("one", b"one"), Kind.THROTTLED)
    assert error.exit == RETRY_EXIT
    assert "fewer" in error.next_step
    assert len(between.requests) < 40


def test_an_upload_that_is_cut_is_repeated(store: Store, scheme: str, between: Proxy, tmp_path: Path) -> None:
    """In the middle of a part; nobody sees the object before it is whole."""
    (tmp_path / "large").write_bytes(LARGE)
    between.plan = times(1, Cut(sent=5 << 20), on=SECOND_PART[scheme])
    assert store.create("large", tmp_path / "large")
    assert store.fetch("large", tmp_path / "copy", limit=len(LARGE)) == len(LARGE)
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert sum(SECOND_PART[scheme] in line for line in between.requests) == 2


def test_an_upload_that_never_gets_through_leaves_nothing(
    store: Store, scheme: str, between: Proxy, tmp_path: Path
) -> None:
    """The object is not there, and the parts that came are given up; Azure itself gives them up after a week."""
    (tmp_path / "large").write_bytes(LARGE)
    between.plan = times(1000, Cut(sent=1 << 20), on=SECOND_PART[scheme])
    assert fails(lambda: store.create("large", tmp_path / "large"), Kind.NETWORK).exit == RETRY_EXIT
    with pytest.raises(AbsentError):
        store.read("large", limit=10)
    given_up = any(line.startswith(b"DELETE ") and b"uploadId" in line for line in between.requests)
    assert given_up == (scheme == "s3")
    assert not list(store.stats(""))


def test_a_download_that_is_cut_goes_on_where_it_ended(store: Store, between: Proxy, tmp_path: Path) -> None:
    """Blocks that came are not asked for again, within a call."""
    store.replace("large", LARGE)
    between.requests.clear()
    between.plan = times(2, Cut(answered=3 << 20), on=b"GET ")
    assert store.fetch("large", tmp_path / "copy", limit=len(LARGE)) == len(LARGE)
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert sum(line.startswith(b"GET ") for line in between.requests) == 5 + 2


def test_a_download_that_breaks_off_is_resumed_by_the_next_call(
    store: Store, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody sees the half, and the other half alone is asked for."""
    monkeypatch.setattr(objects, "_TRIES", 1)
    store.replace("large", LARGE)
    between.requests.clear()

    def after_two(_: bytes) -> proxy.Fault | None:
        return Cut(answered=1000) if sum(line.startswith(b"GET ") for line in between.requests) > 2 else None

    between.plan = after_two
    fails(lambda: store.fetch("large", tmp_path / "copy", limit=len(LARGE)), Kind.NETWORK)
    assert not (tmp_path / "copy").exists()
    between.requests.clear()
    between.plan = lambda head: None
    store.fetch("large", tmp_path / "copy", limit=len(LARGE))
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert sum(line.startswith(b"GET ") for line in between.requests) == 3


def in_the_middle(between: Proxy, deed: Callable[[], object]) -> None:
    """Let something happen once, when the second block of an object is asked for."""

    def second(head: bytes) -> None:
        if head.startswith(b"GET ") and sum(line.startswith(b"GET ") for line in between.requests) == 2:
            between.plan = lambda head: None
            deed()

    between.requests.clear()
    between.plan = second


def test_an_object_that_is_replaced_meanwhile_is_not_mixed(
    store: Store, directly: Store, between: Proxy, tmp_path: Path
) -> None:
    """Half of the one and half of the other is neither."""
    store.replace("large", MEDIUM)

    in_the_middle(between, lambda: directly.replace("large", MEDIUM[::-1]))
    fails(lambda: store.fetch("large", tmp_path / "copy", limit=len(MEDIUM)), Kind.DAMAGED)
    assert not list(tmp_path.iterdir())


def test_an_object_that_is_deleted_meanwhile_is_absent(
    store: Store, directly: Store, between: Proxy, tmp_path: Path
) -> None:
    """Nothing of it stays."""
    store.replace("large", MEDIUM)

    in_the_middle(between, lambda: directly.delete(["large"]))
    with pytest.raises(AbsentError):
        store.fetch("large", tmp_path / "copy", limit=len(MEDIUM))
    assert not list(tmp_path.iterdir())


def test_an_answer_that_is_lost_is_a_refusal(store: Store, between: Proxy) -> None:
    """The server has written, and its answer never came: the repeated write is refused, as the interface says."""
    between.plan = times(1, Cut(answered=0), on=b"PUT ")
    assert not store.create("one", b"one")
    assert store.read("one", limit=10) == b"one"


def test_an_append_whose_answer_is_lost_is_there_once(store: Store, directly: Store, between: Proxy) -> None:
    """The token in it tells its writer that it is his."""
    journal = StoreJournal(store, "runs/r1/study")
    for number in range(3):
        between.plan = times(1, Cut(answered=0), on=b"PUT ")
        journal.append_logs([{"op_code": 2, "worker_id": "w", "n": number}])
    read = StoreJournal(directly, "runs/r1/study").read_logs(0)
    assert [log["n"] for log in read] == [0, 1, 2]
    assert len(list(directly.stats("runs/r1/study/log/"))) == 3
    assert sum(line.startswith(b"PUT ") for line in between.requests) == 6


@pytest.mark.parametrize(
    ("bucket", "noun"), [("s3", "bucket"), ("gs", "bucket"), ("az", "container")], indirect=["bucket"]
)
def test_a_bucket_that_is_missing_is_told(bucket: str, noun: str) -> None:
    """When it is read, listed and written, on each server."""
    missing = open_store(f"{bucket.partition('://')[0]}://elsewhere/retune")
    for call in (
        lambda: missing.read("one", limit=1),
        lambda: missing.create("one", b""),
        lambda: list(missing.stats("")),
    ):
        error = fails(call, Kind.BUCKET)
        assert (error.exit, f"Create the {noun}" in error.next_step) == (Exit.BAD_INPUT, True)


def test_what_is_forbidden_names_the_secret(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of the credentials is in the sentence."""
    assert store.uri
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong-value")
    monkeypatch.setenv("AZURE_STORAGE_KEY", "d3JvbmctdmFsdWU=")
    wrong = open_store(store.uri)
    for call in (lambda: wrong.read("one", limit=1), lambda: wrong.create("one", b"")):
        error = fails(call, Kind.FORBIDDEN)
        assert "spec.execution.credentials.secretName" in error.next_step
        assert not any(value in str(error) for value in ("wrong-value", "d3JvbmctdmFsdWU="))


def test_a_bucket_that_may_only_be_read_is_told_from_a_forbidden_one(store: Store, between: Proxy) -> None:
    """The credentials are right, and writing is refused."""
    between.plan = lambda head: Answer(403, "AccessDenied") if head.startswith(b"PUT ") else None
    assert "may not write" in fails(lambda: store.create("one", b""), Kind.READ_ONLY).message


@pytest.mark.parametrize("scheme", ["s3"], indirect=True)
def test_a_clock_that_is_wrong_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The server itself finds the signature an hour old."""

    class Late(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> "Late":
            return super().now(tz) - dt.timedelta(hours=1)

        @classmethod
        def utcnow(cls) -> "Late":
            return super().now(dt.UTC).replace(tzinfo=None) - dt.timedelta(hours=1)

    monkeypatch.setattr("botocore.compat.datetime.datetime", Late)
    error = fails(lambda: store.create("one", b""), Kind.SKEW)
    assert "clock" in error.message


@pytest.mark.parametrize("scheme", ["az"], indirect=True)
def test_a_clock_that_azure_finds_wrong_is_told(store: Store, between: Proxy) -> None:
    """In its words, because the emulator does not look at clocks."""
    between.plan = lambda head: Answer(403, "AuthenticationFailed", "Request date header too old: 'Mon, 30 Nov 2026'")
    assert "clock" in fails(lambda: store.create("one", b""), Kind.SKEW).message


@pytest.mark.parametrize("scheme", ["s3"], indirect=True)
def test_a_full_bucket_is_told(store: Store, between: Proxy) -> None:
    """As servers that have quotas say it."""
    between.plan = lambda head: Answer(403, "QuotaExceeded") if head.startswith(b"PUT ") else None
    assert "quota" in fails(lambda: store.create("one", b""), Kind.QUOTA).message


def test_a_server_that_is_gone_is_tried_again(store: Store, between: Proxy) -> None:
    """No connection is no fault of the spec's."""
    between.close()
    assert fails(lambda: store.read("one", limit=1), Kind.NETWORK).exit == RETRY_EXIT


def test_a_private_server_is_refused_unless_the_installation_allows_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store is held to the same rules as what is only read."""
    monkeypatch.setenv(PRIVATE_ADDRESSES_VARIABLE, "Refuse")
    assert "private address" in fails(lambda: open_store(store.uri), Kind.FORBIDDEN).message


@pytest.mark.parametrize(
    "uri", ["s3://", "s3://../x", "gs://models/../x", "s3://models/a b", "ftp://host/x", *NO_CONTAINERS]
)
def test_an_address_that_is_none_is_refused(uri: str) -> None:
    """Before any server is asked."""
    with pytest.raises(Exception, match=r"plain|bucket|scheme|container"):
        open_store(uri)


def test_a_server_that_ignores_the_condition_is_found_out(gcs_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real server that never hears of the condition replaces what is there; studies are refused then."""
    with proxy.before(gcs_server.port) as made:
        made.plan = lambda head: head.replace(b"ifGenerationMatch=0", b"ifGenerationTouch=0")
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{made.port}")
        store = open_store(f"gs://{servers.BUCKET}/{uuid4().hex}")
        found = probe(store)
        error = fails(lambda: require_conditional(store), Kind.CONDITION)
    assert not found.honoured
    assert "replaces an object that exists" in error.message
    assert "pvc://" in error.next_step
