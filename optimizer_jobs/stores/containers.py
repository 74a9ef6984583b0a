"""The few requests that a store needs of Azure Blob Storage, beside those of `buckets`."""

import asyncio
import io
import uuid
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from azure.core import MatchConditions
from azure.core.exceptions import HttpResponseError
from azure.storage.blob import BlobBlock, BlobProperties
from azure.storage.blob.aio import BlobClient, BlobServiceClient

from optimizer_jobs.data.containers import is_there_already
from optimizer_jobs.data.remote import open_system
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.stores.base import Stat
from optimizer_jobs.stores.buckets import PART, Version

_AT_ONCE_BYTES = 1 << 20
"""Largest object that is sent in one request: the library makes bytes of it, and more would block the loop of all."""
_PARTS_AT_ONCE = 4
_DELETED_AT_ONCE, _LISTED_AT_ONCE = 32, 5000
_ONLY_NEW: dict[str, Any] = {"match_condition": MatchConditions.IfMissing}
"""Sends `If-None-Match: *`."""

_Page = tuple[list[BlobProperties], str | None]
"""A part of a listing, and where the next one begins."""


class AzureBucket:
    """A container of Azure Blob Storage."""

    def __init__(self, name: str) -> None:
        """Open the container `name`; raises RefusedError and CredentialsError as `open_system` does."""
        self._fs, self._name = open_system("az", name, writes=True), name
        self._flat = False

    def put(self, key: str, content: bytes | Path, *, create: bool) -> None:
        """Write an object; with `create`, `If-None-Match: *` goes with the end of an upload in parts too."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        condition = _ONLY_NEW if create else {}
        try:
            if size <= _AT_ONCE_BYTES:
                whole = content if isinstance(content, bytes) else content.read_bytes()
                self._fs.call(lambda service: self._blob(service, key).upload_blob(whole, overwrite=True, **condition))
            else:
                self._fs.call(lambda service: _upload(self._blob(service, key), content, size, condition))
        except HttpResponseError as error:
            if create and is_there_already(error):
                raise FileExistsError(key) from error
            raise

    def head(self, key: str) -> Version:
        """Return what is known of an object."""
        about: BlobProperties = self._fs.call(lambda service: self._blob(service, key).get_blob_properties())
        return Version(about.size, str(about.etag))

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return a range of bytes."""
        return bytes(self._fs.cat_file(f"{self._name}/{key}", start=start, end=end))

    def list(self, prefix: str, after: str | None) -> Iterator[Sequence[Stat]]:
        """Yield pages of a listing; what is not after a key is listed too, and passed over here."""
        marker: str | None = None
        while True:
            page, marker = self._fs.call(partial(self._page, prefix, marker))
            found = (Stat(one.name, one.size, one.last_modified) for one in page)
            yield [stat for stat in found if after is None or stat.key > after]
            if not marker:
                return

    async def _page(self, prefix: str, marker: str | None, service: BlobServiceClient) -> _Page:
        await self._require_flat(service)
        container = service.get_container_client(self._name)
        listing = container.list_blobs(name_starts_with=prefix or None, results_per_page=_LISTED_AT_ONCE)
        pages = listing.by_page(continuation_token=marker)
        page = [one async for one in await anext(pages)]
        return page, pages.continuation_token

    async def _require_flat(self, service: BlobServiceClient) -> None:
        """Refuse an account where folders are blobs, and stand in listings, as far as the account tells what it is."""
        if self._flat:
            return
        with suppress(HttpResponseError):
            about = await service.get_container_client(self._name).get_account_information()
            if about.get("is_hns_enabled"):
                raise CredentialsError(
                    "AZURE_STORAGE_ACCOUNT names an account with a hierarchical namespace, where folders are blobs: a "
                    "store needs an account without."
                )
        self._flat = True

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, one in a request."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            self._fs.call(partial(self._delete, keys[start : start + _DELETED_AT_ONCE]))

    async def _delete(self, keys: Sequence[str], service: BlobServiceClient) -> None:
        asked = (self._blob(service, key).delete_blob() for key in keys)
        for answer in await asyncio.gather(*asked, return_exceptions=True):
            gone = isinstance(answer, HttpResponseError) and answer.error_code == "BlobNotFound"
            if isinstance(answer, BaseException) and not gone:
                raise answer

    def _blob(self, service: BlobServiceClient, key: str) -> BlobClient:
        return service.get_blob_client(self._name, key)


async def _upload(blob: BlobClient, content: bytes | Path, size: int, condition: dict[str, Any]) -> None:
    """Upload in parts, of which this upload alone knows the names.

    Parts of all unfinished uploads of a blob lie in one heap, by their names. Those that the library gives them are
    their positions, so that two writers at once would each commit parts of the other.
    """
    upload = uuid.uuid4().hex
    starts = range(0, size, PART)
    names = [f"{upload}-{number:06d}" for number in range(len(starts))]
    parts = list(zip(names, starts, strict=True))
    for first in range(0, len(parts), _PARTS_AT_ONCE):
        staged = (_stage(blob, name, content, start) for name, start in parts[first : first + _PARTS_AT_ONCE])
        for answer in await asyncio.gather(*staged, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer
    await blob.commit_block_list([BlobBlock(block_id=name) for name in names], **condition)


async def _stage(blob: BlobClient, name: str, content: bytes | Path, start: int) -> None:
    part = await asyncio.to_thread(_part, content, start)
    await blob.stage_block(name, io.BytesIO(part), length=len(part))


def _part(content: bytes | Path, start: int) -> bytes:
    if isinstance(content, bytes):
        return content[start : start + PART]
    with content.open("rb") as file:
        file.seek(start)
        return file.read(PART)
