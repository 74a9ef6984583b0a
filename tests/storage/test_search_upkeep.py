"""What a search does besides trials, on a volume and in buckets alike: leftovers, the quota, finished steps."""

import os
from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest

from optimizer_jobs.commands.search import kept
from optimizer_jobs.commands.search.kept import KeptInBucket
from optimizer_jobs.commands.search.leftovers import remove_leftovers
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.production.reference import of_bundle
from optimizer_jobs.quota import Room
from optimizer_jobs.seal import Seal, study_seal
from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.opening import is_bucket, open_store
from optimizer_jobs.stores.published import publish
from optimizer_jobs.techniques.steps import OUTCOME
from retune.contract.paths import QUOTA_VARIABLE, bundles, leftover_bundle, leftover_run
from retune.contract.requests import BundleRef, SearchRequest
from retune.contract.results import Reason
from tests import samples
from tests.storage import servers
from tests.storage.servers import Store as Server
from tests.unit.jobs.conftest import delivered, make, splits

pytest.importorskip("s3fs")
pytest.importorskip("gcsfs")

__all__ = ["delivered", "make", "splits"]

pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")  # gcsfs sends parts as bytes

RUN, NEWER = "digits-r1-1a2b3c4d", "digits-r9-1a2b3c4d"


@pytest.fixture(params=["file", "s3", "gs", "az"])
def uri(request: pytest.FixtureRequest, server_of: Callable[[str], Server], tmp_path: Path) -> str:
    """Address of an empty store of each kind."""
    if request.param == "file":
        return f"file://{tmp_path}/store/digits"
    server_of(request.param)
    return f"{request.param}://{servers.BUCKET}/{uuid4().hex}/digits"


@pytest.fixture
def store(uri: str) -> Store:
    """The store."""
    return open_store(uri)


@pytest.fixture
def stored(uri: str, store: Store, make: Callable[..., Bundle]) -> BundleRef:
    """A published bundle with its reference, and what Jobs leave of a run."""
    bundle = publish(make(), uri=bundles(uri))
    store.replace(of_bundle("", bundle.digest).lstrip("/"), b"rows")
    study = ["study/log/0000000000", "study/alive/0/abc"] if is_bucket(uri) else ["study.journal"]
    for name in (
        *study,
        "report.html",
        "report.json",
        "verdict.json",
        "data/test.npz",
        f"candidates/{'0' * 64}/bundle.json",
    ):
        store.replace(f"runs/{RUN}/{name}", b"x")
    return bundle


def asked(uri: str, *leftovers: str) -> SearchRequest:
    """Return a request to remove these."""
    return samples.search_request().model_copy(update={"store": uri, "run": NEWER, "leftovers": leftovers})


def keys(store: Store) -> set[str]:
    """List a store."""
    return {stat.key for stat in store.stats("")}


def test_a_bundle_goes_with_its_reference_and_a_run_with_all_of_it(uri: str, store: Store, stored: BundleRef) -> None:
    """What is not named stays; a second worker that finds nothing says the same."""
    store.replace("runs/digits-r2-1a2b3c4d/report.html", b"x")
    request = asked(uri, leftover_bundle(stored.digest), leftover_run(RUN))
    assert remove_leftovers(request) == leftover_run(RUN)
    assert keys(store) == {"runs/digits-r2-1a2b3c4d/report.html"}
    assert remove_leftovers(request) == leftover_run(RUN)


def test_what_anybody_else_has_put_there_stays_with_all_around_it(
    uri: str, store: Store, stored: BundleRef, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in a bundle, a notebook in a run."""
    store.replace(f"{leftover_bundle(stored.digest)}/notes.txt", b"mine")
    store.replace(f"runs/{RUN}/notes.ipynb", b"mine")
    before = keys(store)
    assert remove_leftovers(asked(uri, leftover_bundle(stored.digest), leftover_run(RUN))) == leftover_run(RUN)
    assert keys(store) == before
    assert capsys.readouterr().out.count("holds what Retune has not written") == 2


def test_where_another_resource_has_worked_too_no_bundle_goes(
    uri: str, store: Store, stored: BundleRef, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the same name in another cluster may serve it; runs of one's own go."""
    store.replace("runs/digits-r1-99999999/report.html", b"x")
    assert remove_leftovers(asked(uri, leftover_bundle(stored.digest), leftover_run(RUN))) is None
    left = keys(store)
    assert f"{leftover_bundle(stored.digest)}/{MANIFEST}" in left
    assert not any(key.startswith(f"runs/{RUN}/") for key in left)
    assert f"{uri}/runs/digits-r1-99999999 is of another resource" in capsys.readouterr().out


@pytest.mark.parametrize("content", [b"{}", b"[" * 100_000, b"x" * (2 << 20)])
def test_what_is_not_the_bundle_of_its_name_stays(uri: str, store: Store, stored: BundleRef, content: bytes) -> None:
    """A manifest that is none, or larger than any."""
    store.replace(f"{leftover_bundle(stored.digest)}/{MANIFEST}", content)
    before = keys(store)
    remove_leftovers(asked(uri, leftover_bundle(stored.digest)))
    assert keys(store) == before


def test_a_removal_that_was_killed_after_the_manifest_is_finished(uri: str, store: Store, stored: BundleRef) -> None:
    """In a bucket there is no folder that loses its name, so the manifest goes first, and nobody opens the rest."""
    store.delete([f"{leftover_bundle(stored.digest)}/{MANIFEST}"])
    remove_leftovers(asked(uri, leftover_bundle(stored.digest)))
    left = any(key.startswith("bundles/") for key in keys(store))
    assert left == (not is_bucket(uri))  # on a volume it is nobody's half, because there the folder goes at once


def test_a_resource_at_its_quota_is_told_what_it_holds(uri: str, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What all its objects take together; other resources' are not counted."""
    store.replace("one", bytes(2 << 20))
    store.replace("runs/r1/two", bytes(1 << 20))
    open_store(uri.rpartition("/")[0]).replace("other/three", bytes(2 << 20))
    monkeypatch.setenv(QUOTA_VARIABLE, "4Mi")
    Room(uri).require()
    monkeypatch.setenv(QUOTA_VARIABLE, "3Mi")
    with pytest.raises(JobError) as caught:
        Room(uri).require()
    assert (caught.value.reason, caught.value.object) == (Reason.STORE_FULL, uri)
    assert "it holds 3.0Mi of files, and the administrator's quota for one resource is 3Mi." in str(caught.value)


def test_a_bucket_is_listed_each_time_only_when_it_is_nearly_full(
    uri: str, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing costs a request for a thousand objects; a volume is asked each time."""
    monkeypatch.setenv(QUOTA_VARIABLE, "1Mi")
    now = [0.0]
    room = Room(uri, clock=lambda: now[0])
    room.require()
    store.replace("one", bytes(1 << 20))
    if is_bucket(uri):
        now[0] = 599.0
        room.require()
        now[0] = 601.0
    with pytest.raises(JobError):
        room.require()
    store.replace("one", bytes(950 << 10))
    room.require()
    store.replace("one", bytes(1 << 20))
    with pytest.raises(JobError):
        room.require()


@pytest.fixture
def entry(tmp_path: Path) -> Path:
    """A finished step of this worker."""
    folder = tmp_path / "own" / ("a" * 64)
    folder.mkdir(parents=True)
    (folder / "model.onnx").write_bytes(b"model")
    (folder / OUTCOME).write_bytes(study_seal().sealed({"entry": folder.name, "digests": {"model.onnx": "any"}}))
    return folder


def files(folder: Path) -> dict[str, bytes]:
    """Read a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_finished_step_that_took_long_reaches_other_workers(store: Store, entry: Path, tmp_path: Path) -> None:
    """One that took little does not; the end of a search removes all of them."""
    mine = KeptInBucket(store, f"runs/{RUN}/steps", entry.parent)
    theirs = KeptInBucket(store, f"runs/{RUN}/steps", tmp_path / "theirs")
    copy = tmp_path / "theirs" / entry.name
    mine.give(entry, seconds=kept.SHARED_SECONDS / 2)
    theirs.bring(copy)
    assert not copy.exists()
    mine.give(entry, seconds=kept.SHARED_SECONDS)
    theirs.bring(copy)
    assert files(copy) == files(entry)
    mine.forget()
    assert keys(store) == set()


def test_what_no_worker_of_the_run_has_sealed_is_not_brought(store: Store, entry: Path, tmp_path: Path) -> None:
    """Nor is half a result; nothing of either is left in the folder."""
    steps = KeptInBucket(store, f"runs/{RUN}/steps", entry.parent)
    steps.give(entry, seconds=kept.SHARED_SECONDS)
    foreign = Seal("another key").sealed({"entry": entry.name, "digests": {"model.onnx": "any"}})
    store.replace(f"runs/{RUN}/steps/{entry.name}/{OUTCOME}", foreign)
    steps.bring(tmp_path / "theirs" / entry.name)
    assert list((tmp_path / "theirs").iterdir()) == []
    steps.give(entry, seconds=kept.SHARED_SECONDS)
    store.delete([f"runs/{RUN}/steps/{entry.name}/model.onnx"])
    steps.bring(tmp_path / "theirs" / entry.name)
    assert list((tmp_path / "theirs").iterdir()) == []


def test_own_results_do_not_fill_the_scratch_folder(
    entry: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The oldest go first, when they take more than a quarter of it."""
    younger = entry.with_name("b" * 64)
    younger.mkdir()
    (younger / "model.onnx").write_bytes(bytes(100))
    monkeypatch.setenv("RETUNE_SCRATCH_BYTES", str(4 * 150))
    store = open_store(f"file://{tmp_path}/none")
    os.utime(entry, (1, 1))
    KeptInBucket(store, "steps", entry.parent).make_room()
    assert {path.name for path in entry.parent.iterdir()} == {younger.name}
