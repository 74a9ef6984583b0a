"""Bundles in a store: nobody takes half of one for a bundle, and a cache holds only what was verified."""

import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, Lineage
from optimizer_jobs.models.names import MANIFEST, MODEL
from optimizer_jobs.stores.base import Kind, StoreError
from optimizer_jobs.stores.bundles import Cache, publish_bundle
from optimizer_jobs.stores.folder import FolderStore
from retune.contract.results import Reason

Make = Callable[..., Bundle]
LIMIT = 64 << 20


class Watched(FolderStore):
    """A store that notes what is done, and breaks at the write that it is told."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.written: list[str] = []
        self.fetched: list[str] = []
        self.breaks_at = 0

    def create(self, key: str, content: bytes | Path) -> bool:
        """Create, note, or break."""
        if len(self.written) + 1 == self.breaks_at:
            raise StoreError(Kind.NETWORK, key, "it broke.", "Try again.")
        self.written.append(key.rpartition("/")[2])
        return super().create(key, content)

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """Fetch and note."""
        self.fetched.append(key.rpartition("/")[2])
        return super().fetch(key, path, limit=limit)


@pytest.fixture
def store(tmp_path: Path) -> Watched:
    """An empty store."""
    return Watched(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """An empty cache with room for all."""
    return Cache(tmp_path / "cache", budget_bytes=LIMIT)


def key(bundle: Bundle, name: str) -> str:
    """Return where a file of a bundle lies in a store."""
    return f"bundles/{bundle.digest.removeprefix('sha256:')}/{name}"


def names(folder: Path) -> list[str]:
    """Return the bundles in a cache."""
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def refused(cache: Cache, store: FolderStore, bundle: Bundle, limit: int = LIMIT) -> JobError:
    """Open a bundle that must not open."""
    with pytest.raises(JobError) as caught, cache.opened(store, bundle.digest, limit_bytes=limit):
        pass
    return caught.value


def test_a_server_imports_no_library_that_it_does_not_need() -> None:
    """To open bundles of a volume; those for servers of objects are imported when such a store is opened."""
    code = "import sys, optimizer_jobs.stores.published; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"aiohttp", "botocore", "gcsfs", "optuna", "s3fs", "sklearn", "torch"} & set(loaded)


def test_what_is_published_opens_as_it_was_made(store: Watched, cache: Cache, make: Make) -> None:
    """By its digest, from a copy of this machine's."""
    bundle = make()
    assert publish_bundle(bundle, store) == f"{store.uri}/{key(bundle, '')}".rstrip("/")
    with cache.opened(store, bundle.digest, limit_bytes=LIMIT) as opened:
        assert (opened.manifest, opened.digest) == (bundle.manifest, bundle.digest)
        assert opened.model.read_bytes() == bundle.model.read_bytes()
        assert opened.golden == bundle.golden


def test_the_manifest_is_written_last(store: Watched, make: Make) -> None:
    """And a bundle that is there is not written again."""
    bundle = make()
    publish_bundle(bundle, store)
    assert store.written[-1] == MANIFEST
    assert sorted(store.written) == sorted([MANIFEST, *bundle.manifest.files])
    publish_bundle(bundle, store)
    assert len(store.written) == 1 + len(bundle.manifest.files)


def test_a_half_published_bundle_is_none_until_somebody_goes_on(store: Watched, cache: Cache, make: Make) -> None:
    """Wherever its writer was stopped."""
    bundle = make()
    for stop in range(1, len(bundle.manifest.files) + 2):
        store.written, store.breaks_at = [], stop
        with pytest.raises(StoreError):
            publish_bundle(bundle, store)
        assert refused(cache, store, bundle).reason is Reason.BUNDLE_NOT_FOUND
    store.breaks_at = 0
    publish_bundle(bundle, store)
    with cache.opened(store, bundle.digest, limit_bytes=LIMIT) as opened:
        assert opened.digest == bundle.digest


def test_writers_of_one_digest_agree(store: Watched, cache: Cache, make: Make) -> None:
    """At once, and in different runs; the manifest of one of them is there as a whole."""
    lineage = Lineage(resource="ml/digits", original_model="sha256:0", run="r1", trial=1)
    found = [make(f"b{n}", lineage=lineage.model_copy(update={"trial": n})) for n in range(4)]
    with ThreadPoolExecutor(4) as pool:
        assert len(set(pool.map(lambda bundle: publish_bundle(bundle, store), found))) == 1
    with cache.opened(store, found[0].digest, limit_bytes=LIMIT) as opened:
        assert opened.manifest in [bundle.manifest for bundle in found]


@pytest.mark.parametrize("name", [MODEL, MANIFEST])
def test_what_was_damaged_in_the_store_is_written_anew(store: Watched, cache: Cache, make: Make, name: str) -> None:
    """The digest says what a file must be, and the next writer of the bundle puts it there."""
    bundle = make()
    publish_bundle(bundle, store)
    store.replace(key(bundle, name), b"another content")
    assert refused(cache, store, bundle).reason is Reason.BUNDLE_CORRUPT
    publish_bundle(bundle, store)
    with cache.opened(store, bundle.digest, limit_bytes=LIMIT) as opened:
        assert opened.digest == bundle.digest


def test_a_damaged_bundle_leaves_nothing_in_the_cache(store: Watched, tmp_path: Path, make: Make) -> None:
    """Same size, another byte; the sentence names the file and the store."""
    bundle, cache = make(), Cache(tmp_path / "cache", budget_bytes=LIMIT)
    publish_bundle(bundle, store)
    content = bytearray(bundle.model.read_bytes())
    content[100] ^= 1
    store.replace(key(bundle, MODEL), bytes(content))
    error = refused(cache, store, bundle)
    assert (error.reason, MODEL in error.message, error.object.startswith(store.uri)) == (
        Reason.BUNDLE_CORRUPT,
        True,
        True,
    )
    assert names(tmp_path / "cache") == []


@pytest.mark.parametrize("written", [b"", b"{}", b"[]", b'{"lineage": 1}', b"[" * 100_000])
def test_a_manifest_that_is_none_is_refused(store: Watched, cache: Cache, make: Make, written: bytes) -> None:
    """Whatever others put there."""
    bundle = make()
    publish_bundle(bundle, store)
    store.replace(key(bundle, MANIFEST), written)
    assert refused(cache, store, bundle).reason is Reason.BUNDLE_CORRUPT


def test_a_bundle_that_is_too_large_is_refused(store: Watched, tmp_path: Path, make: Make) -> None:
    """All files count together."""
    bundle = make()
    publish_bundle(bundle, store)
    size = sum(stat.size for stat in store.stats(key(bundle, "")))
    error = refused(Cache(tmp_path / "cache", budget_bytes=LIMIT), store, bundle, limit=size - 1)
    assert isinstance(error, StoreError)
    assert error.kind is Kind.TOO_LARGE
    assert names(tmp_path / "cache") == []


def test_readers_at_once_bring_it_once(store: Watched, cache: Cache, make: Make) -> None:
    """And all of them see the whole."""
    bundle = make()
    publish_bundle(bundle, store)
    together = threading.Barrier(4)

    def read(_: int) -> bytes:
        together.wait(10)
        with cache.opened(store, bundle.digest, limit_bytes=LIMIT) as opened:
            return opened.model.read_bytes()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(read, range(4))) == {bundle.model.read_bytes()}
    assert sorted(store.fetched) == sorted(bundle.manifest.files)


def test_what_was_damaged_in_the_cache_is_brought_again(store: Watched, tmp_path: Path, make: Make) -> None:
    """A cache is verified at every opening."""
    bundle, cache = make(), Cache(tmp_path / "cache", budget_bytes=LIMIT)
    publish_bundle(bundle, store)
    with cache.opened(store, bundle.digest, limit_bytes=LIMIT) as opened:
        opened.model.write_bytes(b"another")
    with cache.opened(store, bundle.digest, limit_bytes=LIMIT) as opened:
        assert opened.model.read_bytes() == bundle.model.read_bytes()


def test_the_longest_unused_goes_first(store: Watched, tmp_path: Path, make: Make) -> None:
    """When the cache holds more than its budget; what is open stays, whatever its age."""
    found = [make(f"b{n}", techniques=(f"t{n}",)) for n in range(4)]
    for bundle in found:
        publish_bundle(bundle, store)
    size = sum(path.stat().st_size for path in found[0].folder.iterdir())
    cache = Cache(tmp_path / "cache", budget_bytes=int(2.5 * size))
    digests = [bundle.digest.removeprefix("sha256:") for bundle in found]
    for number in (0, 1, 0, 2):
        with cache.opened(store, found[number].digest, limit_bytes=LIMIT):
            pass
    assert names(tmp_path / "cache") == sorted([digests[0], digests[2]])
    with ExitStack() as stack:
        stack.enter_context(cache.opened(store, found[0].digest, limit_bytes=LIMIT))
        stack.enter_context(cache.opened(store, found[2].digest, limit_bytes=LIMIT))
        opened = stack.enter_context(cache.opened(store, found[3].digest, limit_bytes=LIMIT))
        assert opened.model.exists()
        assert names(tmp_path / "cache") == sorted([digests[0], digests[2], digests[3]])
