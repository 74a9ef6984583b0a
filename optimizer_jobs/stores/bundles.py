"""Bundles in a store of objects: published so that nobody sees half of one, and opened through a cache on this machine.

A bundle's files are written first and its manifest last, so what has a manifest is whole. Two writers of one digest
write the same, and neither minds the other.

Model servers import this module, so it needs no library for files on servers.
"""

import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import IO

from pydantic import ValidationError

from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, Manifest, manifest_digest, open_bundle
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.stores.base import AbsentError, Kind, Store, StoreError, checked
from retune.contract.results import Reason

FOLDER = "bundles"
"""Prefix of bundles in a store; each is a folder named by its digest, as on volumes."""
MANIFEST_LIMIT = 1 << 20
"""Most bytes of a manifest."""

_FILLING, _LOCKS = ".filling-", ".locks"


def publish_bundle(bundle: Bundle, store: Store) -> str:
    """Write a bundle into a store, and return its address.

    A bundle that is there already stays as it is. A file there that is not what the manifest says is written anew, for
    the digest says what it must be, whoever wrote it.

    Raises:
        StoreError: It cannot be written, and then it has no manifest, or the one that was there before.
    """
    prefix = f"{FOLDER}/{bundle.digest.removeprefix('sha256:')}"
    if not _is_published(store, prefix, bundle):
        for name, digest in bundle.manifest.files.items():
            _put(store, f"{prefix}/{name}", bundle.folder / name, digest)
        if not store.create(f"{prefix}/{MANIFEST}", bundle.folder / MANIFEST):
            _agree(store, prefix, bundle)
    return f"{store.uri}/{prefix}"


def _is_published(store: Store, prefix: str, bundle: Bundle) -> bool:
    """Return whether the bundle's manifest is there, and every file with its size; who opens it reads them."""
    try:
        written = store.read(f"{prefix}/{MANIFEST}", limit=MANIFEST_LIMIT)
    except AbsentError:
        return False
    sizes = {stat.key.removeprefix(f"{prefix}/"): stat.size for stat in store.stats(f"{prefix}/")}
    whole = all(sizes.get(name) == (bundle.folder / name).stat().st_size for name in bundle.manifest.files)
    return whole and _is_manifest_of(written, bundle.digest)


def _put(store: Store, key: str, path: Path, digest: str) -> None:
    """Write a file unless it is there as it should be."""
    if store.create(key, path):
        return
    with TemporaryDirectory() as scratch:
        copy = Path(scratch) / "copy"
        try:
            store.fetch(key, copy, limit=path.stat().st_size)
            same = file_digest(copy) == digest
        except AbsentError:  # deleted in this moment
            same = False
        except StoreError as error:
            if error.kind not in {Kind.TOO_LARGE, Kind.DAMAGED}:
                raise
            same = False
    if not same:
        store.replace(key, path)


def _agree(store: Store, prefix: str, bundle: Bundle) -> None:
    """Leave the manifest of another writer of this bundle, and replace what is no manifest of it."""
    key = f"{prefix}/{MANIFEST}"
    try:
        same = _is_manifest_of(store.read(key, limit=MANIFEST_LIMIT), bundle.digest)
    except AbsentError:
        same = False
    except StoreError as error:
        if error.kind is not Kind.TOO_LARGE:
            raise
        same = False
    if not same:
        store.replace(key, bundle.folder / MANIFEST)


def _is_manifest_of(written: bytes, digest: str) -> bool:
    try:
        return manifest_digest(written) == digest
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return False


class Cache:
    """Verified bundles in a folder of this machine, each whole or not there.

    Several processes may share the folder. A bundle that somebody has open is never removed; of the others, those that
    were not opened for the longest time go first when there is more than the budget.
    """

    def __init__(self, folder: Path, *, budget_bytes: int) -> None:
        """Open the cache.

        Args:
            folder: Its folder, which is made if it is absent.
            budget_bytes: What bundles in it may take together; open ones may exceed it.
        """
        self._folder, self._budget = folder, budget_bytes
        (folder / _LOCKS).mkdir(parents=True, exist_ok=True)

    @contextmanager
    def opened(self, store: Store, digest: str, *, limit_bytes: int) -> Iterator[Bundle]:
        """Open a bundle of a store; it stays in the cache at least until the block ends.

        A download that breaks off is resumed by whoever opens the bundle next.

        Args:
            store: The store.
            digest: Digest of the bundle.
            limit_bytes: Most bytes of the whole bundle.

        Raises:
            JobError: BundleNotFound, or BundleCorrupt with what is wrong; nothing of it can be opened.
            StoreError: The store cannot be read.
        """
        name = checked(digest.removeprefix("sha256:"))
        with self._lock(name) as lock:
            bundle = self._verified(name, digest)
            while bundle is None:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (self._folder / name).exists():
                    self._fill(store, name, digest, limit_bytes)
                fcntl.flock(lock, fcntl.LOCK_SH)  # not at once: another one may remove it in between
                bundle = self._verified(name, digest)
            now = time.time_ns()
            os.utime(self._folder / name, ns=(now, now))  # to the nanosecond, which the kernel's own would not be
            self._evict()
            yield bundle

    @contextmanager
    def _lock(self, name: str) -> Iterator[IO[bytes]]:
        """Hold a bundle open, with a shared lock."""
        with (self._folder / _LOCKS / name).open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_SH)
            yield lock

    def _verified(self, name: str, digest: str) -> Bundle | None:
        """Return a bundle of the cache; one that was damaged since is removed and None."""
        folder = self._folder / name
        if not folder.is_dir():
            return None
        try:
            return open_bundle(folder.resolve().as_uri(), digest=digest)
        except JobError:
            shutil.rmtree(folder, ignore_errors=True)
            return None

    def _fill(self, store: Store, name: str, digest: str, limit: int) -> None:
        """Bring a bundle from the store, verify it, and give it its name."""
        prefix, filling = f"{FOLDER}/{name}", self._folder / f"{_FILLING}{name}"
        uri = f"{store.uri}/{prefix}"
        filling.mkdir(exist_ok=True)
        try:
            written = store.read(f"{prefix}/{MANIFEST}", limit=MANIFEST_LIMIT)
        except AbsentError as error:
            raise JobError(
                Reason.BUNDLE_NOT_FOUND, uri, "there is no bundle.", "Restore it in the store, or run again."
            ) from error
        left = limit - len(written)
        for file in _files(written, digest, uri):
            left -= self._bring(store, f"{prefix}/{file}", filling / file, left)
        (filling / MANIFEST).write_bytes(written)
        try:
            open_bundle(filling.resolve().as_uri(), digest=digest)
        except JobError as error:
            shutil.rmtree(filling, ignore_errors=True)
            raise JobError(error.reason, uri, error.message, error.next_step, error.exit) from error
        filling.rename(self._folder / name)

    def _bring(self, store: Store, key: str, path: Path, limit: int) -> int:
        """Bring one file, unless an earlier call has, and return its bytes."""
        if path.exists() and path.stat().st_size <= limit:
            return path.stat().st_size
        try:
            return store.fetch(key, path, limit=limit)
        except AbsentError as error:
            raise _corrupt(f"{store.uri}/{key}", "the file is missing") from error

    def _evict(self) -> None:
        """Remove bundles that nobody has open, the longest unused first, until the rest fits the budget."""
        bundles = [entry for entry in os.scandir(self._folder) if entry.is_dir() and not entry.name.startswith(".")]
        sizes = {entry.name: _size(Path(entry.path)) for entry in bundles}
        over = sum(sizes.values()) - self._budget
        for entry in sorted(bundles, key=lambda one: one.stat().st_mtime_ns):
            if over <= 0:
                return
            if self._removed(entry.name):
                over -= sizes[entry.name]

    def _removed(self, name: str) -> bool:
        """Remove a bundle unless somebody has it open."""
        with (self._folder / _LOCKS / name).open("ab") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                return False
            shutil.rmtree(self._folder / name, ignore_errors=True)
            return True


def _files(written: bytes, digest: str, uri: str) -> list[str]:
    """Return the plain names that a manifest lists; raises JobError (BundleCorrupt) for any other manifest."""
    if not _is_manifest_of(written, digest):
        raise _corrupt(uri, f"{MANIFEST} does not have the digest {digest}")
    try:
        names = list(Manifest.model_validate_json(written).files)
        plain = all("/" not in checked(name) for name in names)
    except (ValidationError, StoreError) as error:
        raise _corrupt(uri, f"{MANIFEST} is no manifest that this version reads") from error
    if not plain or MANIFEST in names:
        raise _corrupt(uri, f"{MANIFEST} does not list plain names")
    return names


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
    except FileNotFoundError:
        return 0


def _corrupt(uri: str, what: str) -> JobError:
    return JobError(
        Reason.BUNDLE_CORRUPT, uri, f"{what}.", "Restore the bundle in the store, or delete its folder and run again."
    )
