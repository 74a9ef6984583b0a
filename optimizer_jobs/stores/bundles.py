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
from dataclasses import dataclass
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
"""Prefix of published bundles in a store; each is a folder named by its digest, as on volumes."""
MANIFEST_LIMIT = 1 << 20
"""Most bytes of a manifest."""

NO_MANIFEST = (ValueError, RecursionError)
"""What `manifest_digest` raises for what is no manifest."""

_FILLING, _LOCKS = ".filling-", ".locks"


def publish_bundle(bundle: Bundle, store: Store, *, folder: str = FOLDER) -> str:
    """Write a bundle into a store, and return its address.

    A bundle that is there already stays as it is, once it is read and found to be whole. A file there that is not what
    the manifest says is written anew, for the digest says what it must be, whoever wrote it.

    Args:
        bundle: The bundle.
        store: The store.
        folder: Prefix of the bundles among which it is published.

    Raises:
        StoreError: It cannot be written, and then it has no manifest, or the one that was there before.
    """
    prefix = f"{folder}/{bundle.digest.removeprefix('sha256:')}"
    there = _is_published(store, prefix, bundle)
    for name, digest in bundle.manifest.files.items():
        (_mend if there else _put)(store, f"{prefix}/{name}", bundle.folder / name, digest)
    if not there and not store.create(f"{prefix}/{MANIFEST}", bundle.folder / MANIFEST):
        _agree(store, prefix, bundle)
    return f"{store.uri}/{prefix}"


def _is_published(store: Store, prefix: str, bundle: Bundle) -> bool:
    """Return whether the bundle's manifest is there, and every file with its size; what they hold is not read here."""
    try:
        written = store.read(f"{prefix}/{MANIFEST}", limit=MANIFEST_LIMIT)
    except AbsentError:
        return False
    sizes = {stat.key.removeprefix(f"{prefix}/"): stat.size for stat in store.stats(f"{prefix}/")}
    whole = all(sizes.get(name) == (bundle.folder / name).stat().st_size for name in bundle.manifest.files)
    return whole and _is_manifest_of(written, bundle.digest)


def _put(store: Store, key: str, path: Path, digest: str) -> None:
    """Write a file unless it is there as it should be."""
    if not store.create(key, path):
        _mend(store, key, path, digest)


def _mend(store: Store, key: str, path: Path, digest: str) -> None:
    """Replace a file that is not as it should be."""
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
    except NO_MANIFEST:
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
    def opened(self, store: Store, digest: str, *, limit_bytes: int, at: str | None = None) -> Iterator[Bundle]:
        """Open a bundle of a store; it stays in the cache at least until the block ends.

        A download that breaks off is resumed by whoever opens the bundle next.

        Args:
            store: The store.
            digest: Digest of the bundle.
            limit_bytes: Most bytes of the whole bundle.
            at: Prefix of the bundle's files in the store; None is that of a published bundle.

        Raises:
            JobError: BundleNotFound, or BundleCorrupt with what is wrong; nothing of it can be opened.
            StoreError: The store cannot be read.
        """
        name = checked(digest.removeprefix("sha256:"))
        source = _Source(store, at or f"{FOLDER}/{name}", digest)
        with self._lock(name) as lock:
            bundle = self._verified(name, digest)
            while bundle is None:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not (self._folder / name).exists():
                    self._fill(source, name, limit_bytes)
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

    def _fill(self, source: "_Source", name: str, limit: int) -> None:
        """Bring a bundle from the store, verify it, and give it its name."""
        filling = self._folder / f"{_FILLING}{name}"
        filling.mkdir(exist_ok=True)
        written = source.manifest()
        left = limit - len(written)
        for file in verified_manifest(written, source.digest, source.uri).files:
            left -= source.bring(file, filling / file, left)
        (filling / MANIFEST).write_bytes(written)
        try:
            open_bundle(filling.resolve().as_uri(), digest=source.digest)
        except JobError as error:
            shutil.rmtree(filling, ignore_errors=True)
            raise JobError(error.reason, source.uri, error.message, error.next_step, error.exit) from error
        filling.rename(self._folder / name)

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


@dataclass(frozen=True)
class _Source:
    """A bundle in a store."""

    store: Store
    prefix: str
    digest: str

    @property
    def uri(self) -> str:
        return f"{self.store.uri}/{self.prefix}"

    def manifest(self) -> bytes:
        return read_manifest(self.store, self.prefix)

    def bring(self, name: str, path: Path, limit: int) -> int:
        """Bring one file, unless an earlier call has, and return its bytes."""
        if path.exists() and path.stat().st_size <= limit:
            return path.stat().st_size
        try:
            return self.store.fetch(f"{self.prefix}/{name}", path, limit=limit)
        except AbsentError as error:
            raise corrupt(f"{self.uri}/{name}", "the file is missing") from error


def read_manifest(store: Store, prefix: str) -> bytes:
    """Return the bytes of a bundle's manifest, which may be anybody's.

    Raises:
        JobError: BundleNotFound, also where files lie there and the manifest, which is written last, does not.
        StoreError: The store cannot be read.
    """
    try:
        return store.read(f"{prefix}/{MANIFEST}", limit=MANIFEST_LIMIT)
    except AbsentError as error:
        half = next(store.stats(f"{prefix}/"), None)
        words, step = "there is no bundle.", "Restore it in the store, or run again."
        if half is not None:
            words = f"the bundle is half written: files are there, and {MANIFEST}, which is written last, is not."
            step = "Run again, which writes what is missing; or restore it in the store."
        raise JobError(Reason.BUNDLE_NOT_FOUND, f"{store.uri}/{prefix}", words, step) from error


def verified_manifest(written: bytes, digest: str, uri: str) -> Manifest:
    """Return a manifest that has this digest and lists plain names; raises JobError (BundleCorrupt) for any other."""
    if not _is_manifest_of(written, digest):
        raise corrupt(uri, f"{MANIFEST} does not have the digest {digest}")
    try:
        manifest = Manifest.model_validate_json(written)
        plain = all("/" not in checked(name) for name in manifest.files)
    except (ValidationError, StoreError) as error:
        raise corrupt(uri, f"{MANIFEST} is no manifest that this version reads") from error
    if not plain or MANIFEST in manifest.files:
        raise corrupt(uri, f"{MANIFEST} does not list plain names")
    return manifest


def _size(folder: Path) -> int:
    try:
        return sum(entry.stat(follow_symlinks=False).st_size for entry in os.scandir(folder))
    except FileNotFoundError:
        return 0


def corrupt(uri: str, what: str) -> JobError:
    """Return the error of a bundle that is not what its digest says; `what` is wrong, in words without a full stop."""
    return JobError(
        Reason.BUNDLE_CORRUPT, uri, f"{what}.", "Restore the bundle in the store, or delete its folder and run again."
    )
