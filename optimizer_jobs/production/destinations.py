"""Where captured requests are put, by the address of their folder: on a volume, or in a bucket.

Model servers import this module, so it needs no library for files on servers where the folder is on a volume.
"""

from pathlib import Path

from optimizer_jobs.data.volumes import local_path
from optimizer_jobs.production.writer import Destination
from optimizer_jobs.stores.base import Store
from optimizer_jobs.stores.opening import is_bucket, open_store


class _Bucket:
    """Files as objects of a store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, folder: str, name: str, content: bytes) -> None:
        """Write an object; names are never used twice."""
        self._store.create(f"{folder}/{name}", content)


def destination(uri: str) -> Path | Destination:
    """Return where files for the folder at pvc://, file://, s3://, gs:// or az:// go; nothing is asked yet.

    Raises:
        JobError: The address is malformed or must not be connected to, or the credentials cannot be used.
    """
    return _Bucket(open_store(uri)) if is_bucket(uri) else local_path(uri)
