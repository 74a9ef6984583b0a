"""The file system of az:// URIs: containers of Azure Blob Storage, by Microsoft's own library.

Its requests go through the client of https:// URIs, so that addresses, certificates, proxies and redirects are held to
the same rules.
"""

import asyncio
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from aiohttp import ClientSession
from azure.core import MatchConditions
from azure.core.credentials import AzureNamedKeyCredential, AzureSasCredential
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from azure.core.pipeline.transport import AioHttpTransport
from azure.storage.blob import BlobProperties
from azure.storage.blob.aio import BlobPrefix, BlobServiceClient, ExponentialRetry
from fsspec import AbstractFileSystem
from fsspec.asyn import get_loop, sync
from fsspec.spec import AbstractBufferedFile

from optimizer_jobs.data.identity import FederatedCredential
from optimizer_jobs.data.transfer import CONNECT_SECONDS, SILENCE_SECONDS
from optimizer_jobs.data.web import open_client

API_VERSION = "2023-11-03"
"""Version of Azure's protocol: the library's own is newer than what emulators and clouds of others understand."""
FOLDER = "hdi_isfolder"
"""Metadata of what is a folder, in accounts with a hierarchical namespace."""

_READ_AT_ONCE = 32 << 20
"""Most bytes of one answer."""
_BLOCK = 8 << 20
_TRIES = 3
"""How often the library tries again, after 0.5, 1.5 and 4.5 s or so."""

_T = TypeVar("_T")
Ask = Callable[[BlobServiceClient], Awaitable[_T]]


@dataclass(frozen=True)
class Account:
    """A storage account, and what it knows the Job by; None is the public."""

    url: str
    credential: AzureNamedKeyCredential | AzureSasCredential | FederatedCredential | None


class AzureSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The containers of an account; paths are CONTAINER/BLOB. Read by fsspec's interface, written to by `call`."""

    protocol = "az"
    cachable = False

    def __init__(self, account: Account) -> None:
        """Open an account; nothing is asked yet."""
        super().__init__()
        self._account, self._loop = account, get_loop()
        self._service: BlobServiceClient | None = None

    def call(self, ask: Ask[_T]) -> _T:
        """Return what is asked of the account; the library's errors pass unchanged."""

        async def asked() -> _T:
            return await ask(await self._connected())

        answer: _T = sync(self._loop, asked)
        return answer

    async def _connected(self) -> BlobServiceClient:
        if self._service is None:
            session = await open_client()
            self._service = BlobServiceClient(
                self._account.url,
                self._account.credential,
                transport=AioHttpTransport(
                    session=session,
                    session_owner=False,
                    connection_timeout=CONNECT_SECONDS,
                    read_timeout=SILENCE_SECONDS,
                ),
                retry_policy=ExponentialRetry(
                    initial_backoff=0.5, increment_base=2, retry_total=_TRIES, random_jitter_range=0.5
                ),
                api_version=API_VERSION,
                permit_redirects=False,
                max_single_get_size=_READ_AT_ONCE,
            )
            weakref.finalize(self, _close, self._loop, session)
        return self._service

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return size and type of a blob or a folder; raises FileNotFoundError."""
        container, _, name = self._strip_protocol(path).partition("/")
        try:
            found = _about(container, self.call(lambda service: _properties(service, container, name)))
        except ResourceNotFoundError as error:
            if error.error_code != "BlobNotFound":
                raise
            if not self._listed(container, name, most=1):
                raise FileNotFoundError(path) from error
            found = _folder(f"{container}/{name}")
        return found

    def ls(self, path: str, detail: bool = True, **_: Any) -> list[Any]:  # noqa: FBT001, FBT002 - fsspec's interface
        """List a folder; raises FileNotFoundError where nothing is below it."""
        container, _, name = self._strip_protocol(path).partition("/")
        found = self._listed(container, name) or [self.info(path)]
        return found if detail else [one["name"] for one in found]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **_: Any) -> bytes:
        """Return the bytes of a blob from `start` to before `end`."""
        return self._ranged(path, start or 0, end)

    def _listed(self, container: str, folder: str, most: int | None = None) -> list[dict[str, Any]]:
        prefix = f"{folder.rstrip('/')}/" if folder else None

        async def ask(service: BlobServiceClient) -> list[dict[str, Any]]:
            found = []
            async for one in service.get_container_client(container).walk_blobs(name_starts_with=prefix):
                found.append(_about(container, one))
                if most and len(found) >= most:
                    break
            return found

        return self.call(ask)

    def _ranged(self, path: str, start: int, end: int | None, tag: str | None = None) -> bytes:
        container, _, name = self._strip_protocol(path).partition("/")
        unchanged = {"etag": tag, "match_condition": MatchConditions.IfNotModified} if tag else {}

        async def ask(service: BlobServiceClient) -> bytes:
            blob = service.get_blob_client(container, name)
            length = None if end is None else end - start
            return bytes(await (await blob.download_blob(offset=start, length=length, **unchanged)).readall())

        return self.call(ask)

    def _open(self, path: str, mode: str = "rb", block_size: int | None = None, **options: Any) -> AbstractBufferedFile:
        return _File(self, path, mode, block_size=block_size or _BLOCK, cache_type="readahead")


class _File(AbstractBufferedFile):  # type: ignore[misc]  # fsspec has no types
    """A blob that is read block by block, as long as it stays the same."""

    def _fetch_range(self, start: int, end: int) -> bytes:
        return self.fs._ranged(self.path, start, end, self.details["ETag"])  # type: ignore[no-any-return]  # noqa: SLF001 - ours


async def _properties(service: BlobServiceClient, container: str, name: str) -> BlobProperties:
    return await service.get_blob_client(container, name).get_blob_properties()


def _about(container: str, found: BlobProperties | BlobPrefix) -> dict[str, Any]:
    path = f"{container}/{found.name}".rstrip("/")
    if isinstance(found, BlobPrefix) or (found.metadata or {}).get(FOLDER) == "true":
        return _folder(path)
    return {
        "name": path,
        "size": found.size,
        "type": "file",
        "LastModified": found.last_modified,
        "ETag": found.etag,
    }


def _folder(path: str) -> dict[str, Any]:
    return {"name": path, "size": 0, "type": "directory"}


def _close(loop: asyncio.AbstractEventLoop, session: ClientSession) -> None:
    """Close connections in the loop that they belong to, which may have ended with the process."""
    if loop.is_running():
        asyncio.run_coroutine_threadsafe(session.close(), loop)


def is_there_already(error: HttpResponseError) -> bool:
    """Return whether a blob was not written because there is one."""
    return bool(error.error_code == "BlobAlreadyExists")
