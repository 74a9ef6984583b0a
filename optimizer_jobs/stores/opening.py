"""Open the store at an address: on a volume, on this machine, or on a server."""

import re
from typing import TYPE_CHECKING

from optimizer_jobs.errors import JobError
from optimizer_jobs.stores.base import Kind, Store, StoreError, checked
from optimizer_jobs.stores.folder import FolderStore
from retune.contract.results import Reason

if TYPE_CHECKING:
    from optimizer_jobs.stores.buckets import Bucket

LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "az": "azure-storage-blob"}
"""The library that each scheme of buckets needs."""
_NEXT = "Give pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH or az://CONTAINER/PATH."
_CONTAINER = re.compile(r"[a-z0-9]([a-z0-9]|-(?!-)){1,61}[a-z0-9]")
"""Names of Azure's containers; another one is mostly an account, or a part of its address."""


def is_bucket(uri: str) -> bool:
    """Return whether an address is one in a bucket."""
    return uri.partition("://")[0] in LIBRARIES


def open_store(uri: str) -> Store:
    """Open the store at pvc://CLAIM/PATH, file:///PATH, or in a bucket of s3://, gs:// or az://; nothing is asked yet.

    Raises:
        StoreError: The scheme is another, the path is not plain, the server must not be connected to, or the
            credentials cannot be used.
        JobError: RequestInvalid, when the path leaves its claim; UnexpectedError, when the scheme's library is missing.
    """
    scheme, _, place = uri.partition("://")
    if scheme in LIBRARIES:
        try:
            return _open_bucket(scheme, place, uri)
        except ModuleNotFoundError as error:
            raise _not_installed(error, scheme, uri) from error
    from optimizer_jobs.data.volumes import local_path

    return FolderStore(local_path(uri), uri=uri.rstrip("/"))


def _open_bucket(scheme: str, place: str, uri: str) -> Store:
    """Open a bucket; the libraries for it are imported here, because a model server with a volume has none of them."""
    from optimizer_jobs.stores.faults import fault
    from optimizer_jobs.stores.objects import ObjectStore

    name, _, prefix = place.rstrip("/").partition("/")
    try:
        checked(name)
    except StoreError:
        raise StoreError(Kind.KEY, uri, "it names no bucket.", _NEXT) from None
    if scheme == "az" and not _CONTAINER.fullmatch(name):
        raise StoreError(Kind.KEY, uri, "it names no container: the account is named by the credentials.", _NEXT)
    try:
        bucket = _bucket(scheme, name)
    except (OSError, ValueError) as error:
        raise fault(error, uri=uri, writing=True) from error
    return ObjectStore(bucket, uri=uri, prefix=prefix)


def _bucket(scheme: str, name: str) -> "Bucket":
    if scheme == "az":
        from optimizer_jobs.stores.containers import AzureBucket

        return AzureBucket(name)
    from optimizer_jobs.stores.buckets import GoogleBucket, S3Bucket

    return S3Bucket(name) if scheme == "s3" else GoogleBucket(name)


def _not_installed(error: ModuleNotFoundError, scheme: str, uri: str) -> JobError:
    return JobError(
        Reason.UNEXPECTED,
        uri,
        f"{scheme}:// needs the Python module {error.name}, which is not installed here.",
        f"pip install {LIBRARIES[scheme]}, or the extra `remote` of what you have installed, which has it.",
    )
