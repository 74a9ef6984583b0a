"""Removing what nobody needs any more from the store: all of it, and nothing that others have put there."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from optimizer_jobs.commands.search.leftovers import remove_leftovers
from optimizer_jobs.errors import scratch_error
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.production.reference import of_bundle
from retune.contract.paths import bundles, leftover_bundle, leftover_run
from retune.contract.requests import BundleRef, SearchRequest
from tests import samples
from tests.unit.jobs.conftest import Claims
from tests.unit.jobs.faults import mounted_tmpfs

RUN = "digits-r1-1a2b3c4d"
STORE = "pvc://retune-artifacts/digits"


@pytest.fixture
def stored(claims: Claims, make: Callable[..., Bundle]) -> BundleRef:
    """A published bundle with its reference, and the folder of a run, in the store."""
    bundle = publish(make(), uri=bundles(STORE))
    reference = claims.path(of_bundle(STORE, bundle.digest))
    reference.parent.mkdir(parents=True)
    reference.write_bytes(b"rows")
    folder = claims.path(f"{STORE}/runs/{RUN}")
    (folder / "data").mkdir(parents=True)
    for name in ("study.journal", "study.journal.lock", "report.html", "report.json", "verdict.json"):
        (folder / name).write_text("x")
    return bundle


def asked(*leftovers: str) -> SearchRequest:
    """Return a request to remove these."""
    changes = {"store": STORE, "run": "digits-r9-1a2b3c4d", "leftovers": leftovers}
    return samples.search_request().model_copy(update=changes)


def files(claims: Claims) -> set[str]:
    """Return every file in the store, by its path."""
    root = claims.path(STORE)
    return {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}


def test_a_bundle_goes_with_its_reference_and_a_run_with_its_folder(claims: Claims, stored: BundleRef) -> None:
    """What is not named stays; a second worker that finds nothing says the same."""
    other = claims.path(f"{STORE}/runs/digits-r2-1a2b3c4d")
    other.mkdir()
    (other / "report.html").write_text("x")
    request = asked(leftover_bundle(stored.digest), leftover_run(RUN))
    assert remove_leftovers(request) == leftover_run(RUN)
    assert files(claims) == {"runs/digits-r2-1a2b3c4d/report.html"}
    assert remove_leftovers(request) == leftover_run(RUN)
    assert remove_leftovers(asked()) is None


def test_what_anybody_else_has_put_there_stays_with_all_around_it(
    claims: Claims, stored: BundleRef, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file in a bundle, a notebook in a run: both folders stay whole, and the log says so."""
    folder = claims.path(stored.uri)
    (folder / "keep").touch()
    (claims.path(f"{STORE}/runs/{RUN}") / "notes.ipynb").touch()
    before = files(claims)
    assert remove_leftovers(asked(leftover_bundle(stored.digest), leftover_run(RUN))) == leftover_run(RUN)
    assert files(claims) == before
    assert capsys.readouterr().out.count("holds what Retune has not written") == 2


def test_where_another_resource_has_worked_too_no_bundle_goes(
    claims: Claims, stored: BundleRef, capsys: pytest.CaptureFixture[str]
) -> None:
    """One of the same name in another cluster may serve it; runs of one's own go, and nothing is said to be done."""
    other = claims.path(f"{STORE}/runs/digits-r1-99999999")
    other.mkdir()
    request = asked(leftover_bundle(stored.digest), leftover_run(RUN))
    assert remove_leftovers(request) is None
    assert claims.path(stored.uri).is_dir()
    assert not claims.path(f"{STORE}/runs/{RUN}").exists()
    assert "digits-r1-99999999 is of another resource" in capsys.readouterr().out
    other.rmdir()
    assert remove_leftovers(request) == leftover_run(RUN)
    assert not claims.path(stored.uri).exists()


@pytest.mark.parametrize("disguise", ["other name", "link", "no manifest"])
def test_what_is_not_the_bundle_of_its_name_stays(claims: Claims, stored: BundleRef, disguise: str) -> None:
    """A folder that carries a digest and is not what that says, and a link to one that is."""
    name = "bundles/" + "0" * 64
    place, real = claims.path(f"{STORE}/{name}"), claims.path(stored.uri)
    if disguise == "link":
        place.symlink_to(real)
    else:
        real.rename(place)
    if disguise == "no manifest":
        (place / "bundle.json").unlink()
    before = files(claims)
    remove_leftovers(asked(name))
    assert files(claims) == before


def test_space_is_made_on_a_disk_that_is_full(claims: Claims, make: Callable[..., Bundle]) -> None:
    """Removing needs no space itself: else a store that was once full would stay so."""
    with mounted_tmpfs(claims.root / "small", size="400k") as disk:
        bundle = publish(make(), uri="pvc://small/digits/bundles")
        with pytest.raises(OSError, match="No space left"):
            (disk / "filler").write_bytes(bytes(1 << 20))
        request = asked(leftover_bundle(bundle.digest)).model_copy(update={"store": "pvc://small/digits"})
        assert remove_leftovers(request) == leftover_bundle(bundle.digest)
        assert os.statvfs(disk).f_bavail > 0
        assert list((disk / "digits" / "bundles").iterdir()) == []


def full_disk(path: Path) -> OSError:
    """Return the error of a write to a disk that is full."""
    try:
        path.write_bytes(bytes(1 << 20))
    except OSError as error:
        return error
    raise AssertionError("the disk is not full")


def test_a_full_scratch_disk_is_not_taken_for_a_full_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk that is full is named, and where it is the store's, nothing is said of the scratch folder."""
    store = tmp_path / "store"
    store.mkdir()
    with mounted_tmpfs(tmp_path / "scratch", size="64k") as scratch:
        monkeypatch.setattr("tempfile.tempdir", str(scratch))
        found = scratch_error(full_disk(scratch / "file"), store=str(store))
        assert found is not None
        assert "no space left" in found.message
        assert found.object == f"scratch folder {scratch}"
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with mounted_tmpfs(store, size="64k"):
        assert scratch_error(full_disk(store / "file"), store=str(store)) is None
