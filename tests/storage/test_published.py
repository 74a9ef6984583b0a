"""Bundles in a bucket by the calls that volumes have: published, opened, and refused with a sentence."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.names import GOLDEN, MANIFEST, MODEL
from optimizer_jobs.production.collector import described
from optimizer_jobs.stores import published as bundles_anywhere
from optimizer_jobs.stores.base import Store, StoreError, require_conditional
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.stores.published import CACHE_VARIABLE, manifest_of, open_bundle, publish, remove_bundles
from retune.contract.paths import SCRATCH_VARIABLE, bundles
from retune.contract.requests import BundleRef
from retune.contract.results import Reason
from tests.storage.proxy import Answer, Proxy
from tests.unit.jobs.conftest import delivered, make, splits

pytest.importorskip("s3fs")
pytest.importorskip("gcsfs")

__all__ = ["delivered", "make", "splits"]

PYTHONPATH = {"PYTHONPATH": f"{Path(__file__).parents[2]}:{Path(__file__).parents[2] / 'operator'}"}
Make = Callable[..., Bundle]


@pytest.fixture(autouse=True)
def _cache_of_this_test(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What earlier tests of this process have opened is not at hand."""
    monkeypatch.setattr(bundles_anywhere, "_scratch", lambda: tmp_path / "scratch")


@pytest.fixture
def store(bucket: str) -> Store:
    """An empty store on each server."""
    return open_store(f"{bucket}/{uuid4().hex}/digits")


@pytest.fixture
def published(store: Store, make: Make) -> BundleRef:
    """A bundle in the store."""
    return publish(make(), uri=bundles(store.uri))


@pytest.fixture
def directly(store: Store) -> Store:
    """The store without a proxy that a test asks for after it: the library connects now."""
    list(store.stats(""))
    return store


def refused(ref: BundleRef, **options: Path) -> JobError:
    """Open what must not open."""
    with pytest.raises(JobError) as caught:
        open_bundle(ref.uri, digest=ref.digest, **options)
    return caught.value


def key(ref: BundleRef, name: str) -> str:
    """Return where a file of a published bundle lies in its store."""
    return f"bundles/{ref.digest.removeprefix('sha256:')}/{name}"


def test_what_is_published_opens_as_it_was_made(store: Store, make: Make, tmp_path: Path) -> None:
    """In the cache, and as a private copy in the folder that is named; with and without a promised digest."""
    bundle = make()
    ref = publish(bundle, uri=bundles(store.uri))
    assert ref == BundleRef(uri=f"{store.uri}/{key(ref, '')}".rstrip("/"), digest=bundle.digest)
    opened, private = open_bundle(ref.uri, digest=ref.digest), open_bundle(ref.uri, into=tmp_path / "in")
    assert (opened.manifest, opened.golden) == (private.manifest, private.golden) == (bundle.manifest, bundle.golden)
    assert private.folder.parent == tmp_path / "in"
    assert opened.model.read_bytes() == private.model.read_bytes() == bundle.model.read_bytes()


def test_a_folder_of_candidates_has_bundles_too(store: Store, make: Make) -> None:
    """Whatever the folder is called, and at whatever depth."""
    ref = publish(make(), uri=f"{store.uri}/runs/r1/candidates")
    assert open_bundle(ref.uri, digest=ref.digest).digest == ref.digest
    assert {stat.key.rpartition("/")[0] for stat in store.stats("")} == {
        f"runs/r1/candidates/{ref.digest.removeprefix('sha256:')}"
    }


def test_a_copy_under_another_name_opens(store: Store, published: BundleRef, make: Make) -> None:
    """As on volumes; who promises no digest gets the one that the manifest has."""
    bundle = make("again")
    for name in (MANIFEST, *bundle.manifest.files):
        store.replace(f"mine/{name}", bundle.folder / name)
    assert open_bundle(f"{store.uri}/mine").digest == published.digest


def test_another_digest_than_the_promised_one_is_refused(published: BundleRef) -> None:
    """What is there is not what was asked for."""
    error = refused(published.model_copy(update={"digest": f"sha256:{'0' * 64}"}))
    assert (error.reason, error.object) == (Reason.BUNDLE_CORRUPT, published.uri)


def test_what_is_absent_is_told_from_what_is_half_written(store: Store, published: BundleRef) -> None:
    """Files without the manifest, which comes last, are no bundle."""
    absent = refused(published.model_copy(update={"uri": f"{store.uri}/bundles/{'0' * 64}"}))
    assert (absent.reason, absent.message) == (Reason.BUNDLE_NOT_FOUND, "there is no bundle.")
    store.delete([key(published, MANIFEST)])
    half = refused(published)
    assert (half.reason, half.object) == (Reason.BUNDLE_NOT_FOUND, published.uri)
    assert "half written" in half.message
    assert "Run again" in half.next_step


def test_what_is_damaged_names_the_file_and_is_mended_by_the_next_writer(
    store: Store, published: BundleRef, make: Make
) -> None:
    """A byte of the model, with the same size; a file that is gone."""
    content = bytearray(make("again").model.read_bytes())
    content[100] ^= 1
    store.replace(key(published, MODEL), bytes(content))
    assert (refused(published).reason, MODEL in refused(published).message) == (Reason.BUNDLE_CORRUPT, True)
    assert publish(make("once more"), uri=bundles(store.uri)) == published
    assert open_bundle(published.uri, digest=published.digest).digest == published.digest


def test_a_file_that_is_gone_is_named(store: Store, published: BundleRef, make: Make) -> None:
    """Somebody has deleted it, and the manifest is still there; who wants the manifest alone is told, too."""
    assert manifest_of(published.uri, digest=published.digest) == make("again").manifest
    store.delete([key(published, GOLDEN)])
    error = refused(published)
    assert (error.reason, error.object.endswith(GOLDEN)) == (Reason.BUNDLE_CORRUPT, True)
    with pytest.raises(JobError, match=rf"{GOLDEN} is missing"):
        manifest_of(published.uri, digest=published.digest)


def test_candidates_are_removed_but_the_one_that_is_kept(store: Store, make: Make) -> None:
    """Nothing else in the store goes, and a folder that is not there is no error."""
    folder = f"{store.uri}/runs/r1/candidates"
    first, second = (publish(make(name, techniques=(name,)), uri=folder) for name in ("first", "second"))
    store.replace("runs/r1/report.html", b"page")
    remove_bundles(folder, but=second.digest)
    assert open_bundle(second.uri, digest=second.digest).digest == second.digest
    assert refused(first).reason is Reason.BUNDLE_NOT_FOUND
    for _ in range(2):
        remove_bundles(folder)
    assert [stat.key for stat in store.stats("")] == ["runs/r1/report.html"]


def test_a_collector_is_told_what_a_bundle_in_a_bucket_answers(published: BundleRef, make: Make) -> None:
    """By the bundle's address, as on a volume."""
    assert described(published.uri) == (make("again").manifest.signature, published.digest)


@pytest.mark.parametrize("bucket", ["s3", "az"], indirect=True)
def test_rights_to_delete_are_not_needed(
    published: BundleRef, between: Proxy, capsys: pytest.CaptureFixture[str]
) -> None:
    """A search begins, and what cannot be tidied up stays, with a word in the log."""
    between.plan = lambda head: Answer(403, "AccessDenied") if b"delete" in head.partition(b"\r\n")[0].lower() else None
    store = open_store(published.uri.rpartition("/bundles/")[0])
    require_conditional(store)
    remove_bundles(f"{store.uri}/bundles")
    assert "is not tidied up" in capsys.readouterr().out
    assert manifest_of(published.uri, digest=published.digest).files


def test_a_bundle_larger_than_the_scratch_folder_is_refused(
    published: BundleRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before the pod is evicted; what lies in the folder already takes its room."""
    size = sum(path.stat().st_size for path in open_bundle(published.uri, into=tmp_path / "whole").folder.iterdir())
    monkeypatch.setenv(SCRATCH_VARIABLE, str(size + 1000))
    assert open_bundle(published.uri, into=tmp_path / "fits").digest == published.digest
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "other").write_bytes(b"x" * 1001)
    error = refused(published, into=tmp_path / "full")
    assert (error.reason, "spec.execution.scratchSize" in error.next_step) == (Reason.MODEL_TOO_LARGE, True)


@pytest.mark.parametrize("bucket", ["s3", "az"], indirect=True)
def test_a_kept_cache_asks_for_a_bundle_once(
    published: BundleRef, between: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second process finds it there, and what it loads is a private copy that it has verified."""
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "kept"))
    code = (
        "import sys; from pathlib import Path; from optimizer_jobs.stores.published import open_bundle;"
        "print(open_bundle(sys.argv[1], digest=sys.argv[2], into=Path(sys.argv[3])).folder)"
    )
    for number in range(2):
        between.requests.clear()
        command = [sys.executable, "-c", code, published.uri, published.digest, str(tmp_path / f"in{number}")]
        ran = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | PYTHONPATH)
        assert ran.stdout.strip().startswith(str(tmp_path / f"in{number}"))
    assert between.requests == []


@pytest.mark.parametrize("bucket", ["s3", "az"], indirect=True)
def test_a_file_that_is_deleted_meanwhile_is_named(published: BundleRef, directly: Store, between: Proxy) -> None:
    """After the manifest was read; nothing of the bundle opens."""

    def asked(head: bytes) -> None:
        if MODEL.encode() in head.partition(b"\r\n")[0]:
            between.plan = lambda head: None
            directly.delete([key(published, MODEL)])

    between.plan = asked
    error = refused(published)
    assert (error.reason, error.object.endswith(MODEL)) == (Reason.BUNDLE_CORRUPT, True)


@pytest.mark.parametrize("bucket", ["s3", "az"], indirect=True)
def test_what_is_forbidden_and_what_is_throttled(published: BundleRef, between: Proxy, make: Make) -> None:
    """Reason, sentence and exit code of each, when a bundle is read and when it is written."""
    between.plan = lambda head: Answer(403, "AccessDenied")
    error = refused(published)
    assert (error.reason, error.object) == (Reason.BUNDLE_FORBIDDEN, published.uri)
    between.plan = lambda head: Answer(403, "AccessDenied") if head.startswith(b"PUT ") else None
    with pytest.raises(StoreError, match="may not write") as caught:
        publish(make("other", techniques=("other",)), uri=published.uri.rpartition("/")[0])
    assert caught.value.reason is Reason.STORE_NOT_WRITABLE
    between.plan = lambda head: Answer(503, "SlowDown")
    error = refused(published)
    assert (error.reason, error.exit) == (Reason.SOURCE_UNREACHABLE, RETRY_EXIT)
