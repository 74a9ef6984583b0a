"""Where leftovers lie, by their paths in a resource's folder of the store: on a volume, or in a bucket.

A bucket shows only objects with names as Retune gives them. Others that lie there are not seen, and stay.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.models.bundle import Manifest, holds_only_a_bundle, manifest_digest, put_aside
from optimizer_jobs.models.names import GOLDEN, MANIFEST, MODEL, NATIVE
from optimizer_jobs.production.reference import of_bundle
from optimizer_jobs.stores.base import AbsentError, Kind, Store, StoreError
from optimizer_jobs.stores.bundles import MANIFEST_LIMIT
from optimizer_jobs.stores.opening import is_bucket, open_store
from optimizer_jobs.study.storage import JOURNAL, STUDY

_OF_A_RUN = frozenset({"data", "steps", "candidates", "report.html", "report.json", "verdict.json"})
"""What gather, search and judge leave in the folder of a run, besides its study."""


class Shelf(Protocol):
    """The store of a resource, as far as leftovers go."""

    def runs(self) -> set[str]:
        """Return the names of all runs that are there."""

    def is_there(self, path: str) -> bool:
        """Return whether there is a folder."""

    def holds_only_a_bundle(self, path: str) -> bool:
        """Return whether a folder is that of the bundle of its name, and nobody has put anything else into it."""

    def holds_only_a_run(self, path: str) -> bool:
        """Return whether everything in a folder is what Jobs leave of a run."""

    def remove(self, path: str) -> None:
        """Remove a folder, so that nobody takes half of it for whole."""

    def remove_reference(self, digest: str) -> None:
        """Remove the reference of a bundle, if there is one."""


def open_shelf(store: str) -> Shelf:
    """Open the store of a resource; raises JobError where it cannot be."""
    return _InBucket(open_store(store)) if is_bucket(store) else _OnVolume(store)


class _OnVolume:
    def __init__(self, store: str) -> None:
        self._store = store

    def runs(self) -> set[str]:
        return {name for name in _names(resolve(f"{self._store}/runs").local) if not name.startswith(".")}

    def is_there(self, path: str) -> bool:
        return self._folder(path).is_dir() and not self._folder(path).is_symlink()

    def holds_only_a_bundle(self, path: str) -> bool:
        folder = self._folder(path)
        return holds_only_a_bundle(folder, f"sha256:{folder.name}")

    def holds_only_a_run(self, path: str) -> bool:
        return all(name in _OF_A_RUN or name.startswith((JOURNAL, ".")) for name in _names(self._folder(path)))

    def remove(self, path: str) -> None:
        put_aside(self._folder(path))

    def remove_reference(self, digest: str) -> None:
        resolve(of_bundle(self._store, digest)).local.unlink(missing_ok=True)

    def _folder(self, path: str) -> Path:
        """Return a folder of the store by its own name, which is not followed where it is a symbolic link."""
        parent, _, name = f"{self._store}/{path}".rpartition("/")
        return resolve(parent).local / name


def _names(folder: Path) -> Iterator[str]:
    with suppress(FileNotFoundError):
        yield from (path.name for path in folder.iterdir())


class _InBucket:
    def __init__(self, store: Store) -> None:
        self._store = store

    def runs(self) -> set[str]:
        return {name.partition("/")[0] for name in self._below("runs") if "/" in name}

    def is_there(self, path: str) -> bool:
        return next(iter(self._below(path)), None) is not None

    def holds_only_a_bundle(self, path: str) -> bool:
        names, digest = set(self._below(path)), f"sha256:{path.rpartition('/')[2]}"
        if MANIFEST not in names:
            return all(map(_is_of_a_bundle, names))  # somebody who removed it was killed after its manifest
        files = _files_of(self._store, f"{path}/{MANIFEST}", digest)
        return files is not None and names <= {MANIFEST, *files}

    def holds_only_a_run(self, path: str) -> bool:
        return {name.partition("/")[0] for name in self._below(path)} <= {*_OF_A_RUN, STUDY}

    def remove(self, path: str) -> None:
        """Remove manifests before the files that they name, and a study from its beginning: the rest is none."""
        names = list(self._below(path))
        manifests = {name for name in names if name.rpartition("/")[2] == MANIFEST}
        for chosen in (sorted(manifests), [name for name in names if name not in manifests]):
            if chosen:
                self._store.delete([f"{path}/{name}" for name in chosen])

    def remove_reference(self, digest: str) -> None:
        self._store.delete([of_bundle("", digest).lstrip("/")])

    def _below(self, path: str) -> Iterator[str]:
        """Yield the names of the objects in a folder, as paths in it."""
        return (stat.key.removeprefix(f"{path}/") for stat in self._store.stats(f"{path}/"))


def _is_of_a_bundle(name: str) -> bool:
    return name in {MODEL, GOLDEN} or ("/" not in name and Path(name).stem == NATIVE)


def _files_of(store: Store, key: str, digest: str) -> set[str] | None:
    """Return the names of the files in the manifest at a key; None where it is not that of the digest."""
    try:
        written = store.read(key, limit=MANIFEST_LIMIT)
        return set(Manifest.model_validate_json(written).files) if manifest_digest(written) == digest else None
    except (AbsentError, ValueError, RecursionError):
        return None
    except StoreError as error:
        if error.kind is not Kind.TOO_LARGE:
            raise
        return None
