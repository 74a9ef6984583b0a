"""Every store keeps the same promises: a folder, and buckets on servers that speak the real protocols."""

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from uuid import uuid4

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from optimizer_jobs.data.remote import open_system
from optimizer_jobs.stores.base import AbsentError, Kind, Store, StoreError, probe, require_conditional
from optimizer_jobs.stores.opening import open_store
from tests.storage import servers
from tests.storage.memory import MemoryStore
from tests.storage.servers import Store as Server

pytest.importorskip("s3fs")
pytest.importorskip("gcsfs")

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs sends parts as bytes

LIMIT = 64 << 20
SMALL, OTHER = b"one", b"another"
LARGE = random.Random(1).randbytes(37 << 20)
"""More than both libraries send in one request, and more than is asked for at once."""
LARGE_RACE = 33 << 20
"""Uploaded in parts by each of the libraries."""
WRITERS, ROUNDS = 8, 25
HOSTILE = [
    "",
    "/etc/passwd",
    "../up",
    "a/../b",
    "a//b",
    "a/",
    ".hidden",
    "a/.hidden",
    "-x",
    "a b",
    "a\n",
    "x" * 600,
    "a\\b",
]


@pytest.fixture(params=["folder", "memory", "s3", "gs", "az"])
def store(request: pytest.FixtureRequest, server_of: Callable[[str], Server], tmp_path: Path) -> Store:
    """An empty store of each kind."""
    if request.param == "memory":
        return MemoryStore()
    if request.param == "folder":
        return open_store(f"file://{tmp_path}/store")
    server_of(request.param)
    return open_store(f"{request.param}://{servers.BUCKET}/{uuid4().hex}/retune")


def keys(store: Store, prefix: str = "", after: str | None = None) -> list[str]:
    """List a store."""
    return [stat.key for stat in store.stats(prefix, after=after)]


def test_what_is_written_is_read(store: Store) -> None:
    """Content comes back as it was given, the empty one too, and an object may be replaced."""
    assert store.create("a/one", SMALL)
    store.replace("a/empty", b"")
    assert (store.read("a/one", limit=100), store.read("a/empty", limit=100)) == (SMALL, b"")
    store.replace("a/one", OTHER)
    assert store.read("a/one", limit=len(OTHER)) == OTHER


def test_the_second_create_is_refused(store: Store) -> None:
    """What was there stays, and the caller knows."""
    assert store.create("one", SMALL)
    assert not store.create("one", OTHER)
    assert store.read("one", limit=100) == SMALL


def test_of_many_creates_at_once_one_wins(store: Store) -> None:
    """Each of many keys has one winner among eight writers, and has what the winner wrote."""
    for number in range(ROUNDS):
        key = f"race/{number}"
        with ThreadPoolExecutor(WRITERS) as pool:
            won = list(pool.map(lambda writer, key=key: store.create(key, b"%d" % writer), range(WRITERS)))
        assert sum(won) == 1
        assert store.read(key, limit=10) == b"%d" % won.index(True)


def test_a_large_object_is_created_once_and_fetched_whole(store: Store, tmp_path: Path) -> None:
    """The condition holds for uploads in parts too, from a file and from memory."""
    (tmp_path / "large").write_bytes(LARGE)
    assert store.create("large", tmp_path / "large")
    assert not store.create("large", tmp_path / "large")
    assert not store.create("large", LARGE[::-1])
    assert store.fetch("large", tmp_path / "copy", limit=LIMIT) == len(LARGE)
    assert (tmp_path / "copy").read_bytes() == LARGE
    assert {path.name for path in tmp_path.iterdir()} <= {"large", "copy", "store"}


def test_of_many_large_creates_at_once_one_wins(store: Store, tmp_path: Path) -> None:
    """What is there is the winner's from end to end, and nothing of what others have uploaded meanwhile."""
    contents = [bytes([writer]) * LARGE_RACE for writer in range(3)]
    for number in range(2):
        with ThreadPoolExecutor(len(contents)) as pool:
            won = list(pool.map(lambda content, key=f"race/{number}": store.create(key, content), contents))
        assert sum(won) == 1
        store.fetch(f"race/{number}", tmp_path / "copy", limit=LIMIT)
        assert (tmp_path / "copy").read_bytes() == contents[won.index(True)]


def test_of_many_large_replacements_at_once_one_stays(store: Store, tmp_path: Path) -> None:
    """Whole, whichever it is, and nobody is told that his failed."""
    contents = [bytes([writer]) * LARGE_RACE for writer in range(2)]
    with ThreadPoolExecutor(len(contents)) as pool:
        list(pool.map(lambda content: store.replace("one", content), contents))
    store.fetch("one", tmp_path / "copy", limit=LIMIT)
    assert (tmp_path / "copy").read_bytes() in contents


def test_what_is_absent_is_told(store: Store, tmp_path: Path) -> None:
    """An object that is not there is no fault of the store, and leaves no file."""
    with pytest.raises(AbsentError):
        store.read("none", limit=1)
    with pytest.raises(AbsentError):
        store.fetch("none", tmp_path / "copy", limit=1)
    store.delete(["none"])
    assert not list(tmp_path.glob("*copy*"))


def test_a_limit_is_held(store: Store, tmp_path: Path) -> None:
    """Nobody fills a reader's memory or disk."""
    store.replace("one", SMALL)
    for read in (lambda: store.read("one", limit=2), lambda: store.fetch("one", tmp_path / "copy", limit=2)):
        with pytest.raises(StoreError) as caught:
            read()
        assert caught.value.kind is Kind.TOO_LARGE
    assert not list(tmp_path.glob("*copy*"))


def test_listings_are_in_order_and_go_on_after_a_key(store: Store) -> None:
    """By the bytes of the whole key, with sizes, whatever is a folder on a volume."""
    written = ["a-b/x", "a/x", "a/y/z", "a.b", "a0", "b"]
    for key in written:
        store.replace(key, SMALL)
    assert keys(store) == sorted(written)
    assert keys(store, "a/") == ["a/x", "a/y/z"]
    assert keys(store, "a", after="a-b/x") == ["a.b", "a/x", "a/y/z", "a0"]
    assert keys(store, "none/") == []
    assert {stat.size for stat in store.stats("")} == {len(SMALL)}


def test_a_listing_has_more_than_one_page(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand are a page of S3's, and five of Azure's."""
    if store.uri.startswith("gs"):
        pytest.skip("this server has no pages")
    if store.uri.startswith("az"):
        monkeypatch.setattr("optimizer_jobs.stores.containers._LISTED_AT_ONCE", 1000)
    names = [f"n/{number:05d}" for number in range(1005)]
    with ThreadPoolExecutor(WRITERS) as pool:
        list(pool.map(lambda name: store.create(name, b""), names))
    assert keys(store, "n/") == names
    store.delete(names)
    assert keys(store, "n/") == []


def test_deleted_objects_are_gone(store: Store) -> None:
    """A key is free again."""
    for key in ("a/one", "a/two"):
        store.create(key, SMALL)
    store.delete(["a/one", "a/none"])
    assert keys(store) == ["a/two"]
    assert store.create("a/one", OTHER)


@pytest.mark.parametrize("key", HOSTILE)
def test_a_key_that_is_not_plain_is_refused(store: Store, tmp_path: Path, key: str) -> None:
    """By every method, before anything is asked."""
    calls: list[Callable[[], object]] = [
        lambda: store.read(key, limit=1),
        lambda: store.fetch(key, tmp_path / "copy", limit=1),
        lambda: store.create(key, b""),
        lambda: store.replace(key, b""),
        lambda: store.delete([key]),
    ]
    for call in calls:
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.kind is Kind.KEY


def test_conditions_are_honoured(store: Store) -> None:
    """The probe finds them honoured, and leaves nothing behind."""
    assert probe(store).honoured
    require_conditional(store)
    assert keys(store) == []


@pytest.mark.parametrize(("writes", "rights"), [(False, "read_only"), (True, "read_write")])
def test_only_a_store_may_write(monkeypatch: pytest.MonkeyPatch, *, writes: bool, rights: str) -> None:
    """Google's tokens are asked for with as few rights as they are used with."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
    account = {"type": "service_account", "client_email": "a@b", "private_key": pem, "token_uri": "https://elsewhere"}
    monkeypatch.setenv("GOOGLE_CREDENTIALS", json.dumps(account))
    system = open_system("gs", servers.BUCKET, writes=writes)
    assert system.credentials.credentials.scopes == [f"https://www.googleapis.com/auth/devstorage.{rights}"]


def test_a_link_in_a_folder_leads_nowhere(tmp_path: Path) -> None:
    """Whoever may write to the volume cannot have a Job read or write elsewhere."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "secret").write_bytes(b"s3cret")
    (tmp_path / "store").mkdir()
    (tmp_path / "store" / "folder").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "store" / "file").symlink_to(tmp_path / "elsewhere" / "secret")
    store = open_store(f"file://{tmp_path}/store")
    for call in (
        lambda: store.read("folder/secret", limit=10),
        lambda: store.read("file", limit=10),
        lambda: store.replace("folder/secret", b""),
    ):
        with pytest.raises(StoreError) as caught:
            call()
        assert caught.value.kind is Kind.KEY
    assert keys(store) == []
    assert (tmp_path / "elsewhere" / "secret").read_bytes() == b"s3cret"
