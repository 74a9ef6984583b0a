"""A store in memory, for tests that ask for very many objects; threads may share it."""

import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from optimizer_jobs.stores.base import AbsentError, Kind, Stat, StoreError, checked, checked_prefix


class MemoryStore:
    """Objects in a dictionary."""

    uri = "memory://"

    def __init__(self) -> None:
        """Hold nothing."""
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, datetime]] = {}

    def read(self, key: str, *, limit: int) -> bytes:
        """Return an object."""
        with self._lock:
            content, _ = self._objects.get(checked(key), (None, None))
        if content is None:
            raise AbsentError(key)
        if len(content) > limit:
            raise StoreError(Kind.TOO_LARGE, f"{self.uri}{key}", f"it has more than {limit} bytes.", "Remove it.")
        return content

    def fetch(self, key: str, path: Path, *, limit: int) -> int:
        """Write an object into a file."""
        return path.write_bytes(self.read(key, limit=limit))

    def create(self, key: str, content: bytes | Path) -> bool:
        """Keep an object unless there is one."""
        written = (_bytes(content), datetime.now(UTC))
        with self._lock:
            return self._objects.setdefault(checked(key), written) is written

    def replace(self, key: str, content: bytes | Path) -> None:
        """Keep an object."""
        with self._lock:
            self._objects[checked(key)] = (_bytes(content), datetime.now(UTC))

    def stats(self, prefix: str, *, after: str | None = None) -> Iterator[Stat]:
        """Yield the objects whose keys begin with `prefix`, in order."""
        checked_prefix(prefix)
        with self._lock:
            found = sorted(self._objects.items())
        for key, (content, modified) in found:
            if key.startswith(prefix) and (after is None or key > after):
                yield Stat(key, len(content), modified)

    def delete(self, keys: Iterable[str]) -> None:
        """Forget objects."""
        with self._lock:
            for key in keys:
                self._objects.pop(checked(key), None)


def _bytes(content: bytes | Path) -> bytes:
    return content if isinstance(content, bytes) else content.read_bytes()
