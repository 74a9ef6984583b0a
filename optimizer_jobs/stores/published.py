"""Bundles wherever they lie: published to and opened from a volume, this machine, or a bucket, by the same two calls.

On a volume they are written and opened in place. In a bucket the files are written first and the manifest last, and a
bundle is downloaded before it is opened: into the folder of the private copy, or into a cache by digest.

Model servers import this module, so it needs no library for files on servers where the store is a volume.
"""

import atexit
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path

from optimizer_jobs.data.volumes import local_path
from optimizer_jobs.errors import JobError
from optimizer_jobs.models import bundle as volumes
from optimizer_jobs.models.bundle import Bundle, Manifest, manifest_digest
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.progress import say
from optimizer_jobs.stores.base import AbsentError, Kind, Store, StoreError, checked
from optimizer_jobs.stores.bundles import (
    MANIFEST_LIMIT,
    NO_MANIFEST,
    Cache,
    corrupt,
    publish_bundle,
    read_manifest,
    verified_manifest,
)
from optimizer_jobs.stores.opening import is_bucket, open_store
from retune.contract.paths import SCRATCH_VARIABLE
from retune.contract.requests import BundleRef
from retune.contract.results import Reason

CACHE_VARIABLE = "RETUNE_BUNDLE_CACHE"
"""Environment variable with a folder for downloaded bundles that outlives this process; the least used go first."""
CACHE_BYTES = 16 << 30
"""What bundles in that folder may take together."""

_UNLIMITED = 1 << 62
_held = ExitStack()
"""What keeps the bundles that this process has opened in the cache until it ends."""


def publish(bundle: Bundle, *, uri: str) -> BundleRef:
    """Copy a bundle into the folder of bundles at `uri`.

    A bundle that is already there stays as it is. One that is not what its digest says is made anew.

    Raises:
        JobError: StoreFull or StoreNotWritable, and nothing is left that anybody takes for a bundle; SourceUnreachable
            where the server does not answer; or on a volume BundleForbidden or BundleCorrupt, when the bundle cannot be
            verified afterwards.
    """
    if not is_bucket(uri):
        return volumes.publish(bundle, uri=uri)
    store, folder = _parted(uri)
    return BundleRef(uri=publish_bundle(bundle, store, folder=folder), digest=bundle.digest)


def open_bundle(uri: str, *, digest: str | None = None, into: Path | None = None) -> Bundle:
    """Open the bundle at `uri` and verify every file.

    Args:
        uri: URI of the bundle's folder.
        digest: Digest that the bundle must have; None accepts any.
        into: Folder for a private copy, which is then the one that is verified. None opens the bundle in place, or
            where it lies in a bucket, in a cache that keeps it until this process ends.

    Raises:
        JobError: BundleNotFound, BundleForbidden, BundleCorrupt naming the file, ModelTooLarge where it does not fit
            the scratch folder, or SourceUnreachable where the server does not answer.
    """
    if not is_bucket(uri):
        return volumes.open_bundle(uri, digest=digest, into=into)
    kept = os.environ.get(CACHE_VARIABLE)
    folder = Path(kept) if kept else into or _scratch()
    with _explained(uri):
        store, prefix = _parted(uri)
        expected = digest or _digest_at(store, prefix)
        room, budget = (CACHE_BYTES, CACHE_BYTES) if kept else (_room(folder), _UNLIMITED)
        opening = Cache(folder, budget_bytes=budget).opened(store, expected, limit_bytes=room, at=prefix)
        if into is None:
            return _held.enter_context(opening)
        with opening as bundle:
            return volumes.open_bundle(bundle.folder.as_uri(), digest=expected, into=into) if kept else bundle


def manifest_of(uri: str, *, digest: str) -> Manifest:
    """Return the verified manifest of the bundle at `uri`, of which every file must be there.

    On a volume every file is read and verified too; in a bucket none is downloaded.

    Raises:
        JobError: What `open_bundle` raises.
    """
    if not is_bucket(uri):
        return volumes.open_bundle(uri, digest=digest).manifest
    with _explained(uri):
        store, prefix = _parted(uri)
        manifest = verified_manifest(read_manifest(store, prefix), digest, uri)
        there = {stat.key.removeprefix(f"{prefix}/") for stat in store.stats(f"{prefix}/")}
    for name in manifest.files:
        if name not in there:
            raise corrupt(uri, f"{name} is missing")
    return manifest


def fetch_delivered(uri: str, *, into: Path) -> Path:
    """Copy an ONNX file that lies in a bucket, with the files of its external data, and return the copy.

    Args:
        uri: URI of the file in a bucket.
        into: Folder for the copies, which must exist.

    Raises:
        JobError: ModelNotFound, ModelInvalid, or what the store says.
    """
    from optimizer_jobs.models.external import external_files

    folder, _, name = uri.rpartition("/")
    store = open_store(folder)
    _fetch_file(store, name, into)
    for beside in external_files(into / name, uri=uri):
        _fetch_file(store, beside, into)
    return into / name


def _fetch_file(store: Store, name: str, into: Path) -> None:
    try:
        store.fetch(name, into / name, limit=_room(into))
    except AbsentError as error:
        raise JobError(
            Reason.MODEL_NOT_FOUND, f"{store.uri}/{name}", "there is no such file.", "Check the bucket, and the path."
        ) from error


def remove_bundles(uri: str, *, but: str | None = None) -> None:
    """Remove all bundles in the folder at `uri`; what cannot be removed stays, for it harms nobody.

    Args:
        uri: URI of a folder of bundles.
        but: Digest of a bundle that stays; None: all of it goes.
    """
    name = but.removeprefix("sha256:") if but else None
    try:
        if is_bucket(uri):
            _delete_bundles(uri, name)
        else:
            _remove_folders(local_path(uri), name)
    except JobError as error:
        say(f"  {uri} is not tidied up: {error.message}")


def _delete_bundles(uri: str, but: str | None) -> None:
    """Delete manifests before what they list, so that nobody takes the rest for a bundle."""
    store, folder = _parted(uri)
    keys = [stat.key for stat in store.stats(f"{folder}/") if stat.key.split("/")[1] != but]
    store.delete(sorted(keys, key=lambda key: not key.endswith(f"/{MANIFEST}")))


def _remove_folders(folder: Path, but: str | None) -> None:
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.name != but:
            shutil.rmtree(path, ignore_errors=True)
    if but is None:
        shutil.rmtree(folder, ignore_errors=True)


def _parted(uri: str) -> tuple[Store, str]:
    """Return the store that a folder lies in, and the folder's name there."""
    parent, _, name = uri.rstrip("/").rpartition("/")
    if parent.endswith("/"):
        raise StoreError(Kind.KEY, uri, "it names a bucket alone.", "Name a folder in the bucket.")
    return open_store(parent), checked(name)


def _digest_at(store: Store, prefix: str) -> str:
    """Return the digest of whatever bundle is there; raises JobError (BundleCorrupt) where none can be."""
    written = read_manifest(store, prefix)
    try:
        return manifest_digest(written)
    except NO_MANIFEST as error:
        raise corrupt(f"{store.uri}/{prefix}", f"{MANIFEST} is not a manifest") from error


@cache
def _scratch() -> Path:
    """Return a folder in this process's scratch that goes with the process."""
    atexit.register(_held.close)
    made = tempfile.TemporaryDirectory(prefix="bundles-", ignore_cleanup_errors=True)
    return Path(_held.enter_context(made))


def _room(folder: Path) -> int:
    """Return how many bytes more the scratch folder takes, in which a folder is; a pod that fills it is evicted."""
    room = int(os.environ.get(SCRATCH_VARIABLE, "0"))
    if not room:
        return _UNLIMITED
    files = (Path(parent) / name for parent, _, names in os.walk(folder) for name in names)
    return max(0, room - sum(file.lstat().st_size for file in files))


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Say of a bundle what a store says of an object."""
    try:
        yield
    except StoreError as error:
        raise _of_bundle(error, uri) from error


def _of_bundle(error: StoreError, uri: str) -> JobError:
    if error.kind is Kind.FORBIDDEN:
        return JobError(Reason.BUNDLE_FORBIDDEN, uri, error.message, error.next_step)
    if error.kind is Kind.TOO_LARGE and error.object.endswith(f"/{MANIFEST}"):
        return corrupt(uri, f"{MANIFEST} is larger than {MANIFEST_LIMIT} bytes")
    if error.kind is Kind.TOO_LARGE:
        words = "the bundle has more bytes than there is room for in the scratch folder."
        return JobError(Reason.MODEL_TOO_LARGE, uri, words, "Raise spec.execution.scratchSize.")
    return error
