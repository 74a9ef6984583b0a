"""A repository of an OCI registry: blobs and manifests under their digests, and tags that name manifests.

Everything here may be asked again: what is there already is not sent again, and a request that has failed for a reason
that may pass is repeated from its beginning.
"""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from yarl import URL

from optimizer_jobs.data.remote import check_secret
from optimizer_jobs.data.web import open_client
from optimizer_jobs.registries.oci.access import Access, Answer, RefusalError, UnfitAnswerError
from optimizer_jobs.registries.oci.credentials import credentials_for
from optimizer_jobs.registries.oci.layers import Blob, digest_of
from optimizer_jobs.registries.oci.patience import patiently
from optimizer_jobs.registries.oci.references import Repository, is_digest

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_DIGEST_HEADER = "Docker-Content-Digest"
_OTHERS = (
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)


@dataclass(frozen=True)
class Manifest:
    """A manifest or an index, by its bytes."""

    content: bytes
    media_type: str

    @property
    def digest(self) -> str:
        """Its digest."""
        return digest_of(self.content)

    @property
    def annotations(self) -> dict[str, Any]:
        """What it says of itself; empty for one that says nothing, or cannot be read."""
        try:
            found = json.loads(self.content)["annotations"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def descriptor(self) -> dict[str, object]:
        """How an index names it."""
        return {"mediaType": self.media_type, "digest": self.digest, "size": len(self.content)}


class Registry:
    """A repository that is read and written."""

    def __init__(self, access: Access) -> None:
        self._access = access

    async def has_blob(self, digest: str) -> bool:
        """Return whether a blob is there; a registry that would send on to the place it lies at has it."""
        return await patiently(lambda: self._is_there(f"blobs/{digest}")) is not None

    async def put_blob(self, blob: Blob) -> None:
        """Give the registry a blob, whole; raises as `Access.ask`."""
        await patiently(lambda: self._upload(blob))

    async def mount(self, digest: str, source: str) -> bool:
        """Return whether the registry has taken over a blob of its repository `source`."""
        url = self._access.url("blobs/uploads/").with_query({"mount": digest, "from": source})
        answer = await patiently(lambda: self._access.ask("POST", url, headers={"Content-Length": "0"}))
        return answer.status == 201

    async def digest_of(self, tag: str) -> str | None:
        """Return the digest that a tag names, or None where there is no such tag."""
        answer = await patiently(lambda: self._is_there(f"manifests/{tag}"))
        if answer is None:
            return None
        told = answer.headers.get(_DIGEST_HEADER, "")
        if is_digest(told):
            return told
        found = await self.manifest(tag)
        return found.digest if found else None

    async def manifest(self, which: str) -> Manifest | None:
        """Return a manifest by tag or digest, or None; raises UnfitAnswerError where it has another digest."""
        answer = await patiently(lambda: self._get(f"manifests/{which}"))
        if answer is None:
            return None
        media_type = answer.headers.get("Content-Type", "").partition(";")[0].strip()
        found = Manifest(answer.content, media_type)
        if is_digest(which) and found.digest != which:
            raise UnfitAnswerError(f"it answers with digest {found.digest} where {which} is asked for.")
        return found

    async def blob(self, digest: str) -> bytes:
        """Return a small blob; raises UnfitAnswerError where it has not the digest asked for."""
        answer = await patiently(lambda: self._get(f"blobs/{digest}"))
        if answer is None or digest_of(answer.content) != digest:
            raise UnfitAnswerError(f"it does not hand out blob {digest}.")
        return answer.content

    async def put_manifest(self, manifest: Manifest, *, tag: str | None = None) -> None:
        """Give the registry a manifest, under its digest or under a tag; what it names has to be there."""
        path = f"manifests/{tag or manifest.digest}"
        headers = {"Content-Type": manifest.media_type}
        answer = await patiently(
            lambda: self._access.ask("PUT", self._access.url(path), headers=headers, body=manifest.content)
        )
        _check_taken(answer, manifest.digest)

    async def _is_there(self, path: str) -> Answer | None:
        return await self._unless_absent("HEAD", path)

    async def _get(self, path: str) -> Answer | None:
        answer = await self._unless_absent("GET", path)
        if answer is not None and answer.status != 200:
            raise UnfitAnswerError(f"it answers with status {answer.status} where it should hand out {path}.")
        return answer

    async def _unless_absent(self, method: str, path: str) -> Answer | None:
        accepted = {"Accept": ", ".join((INDEX, MANIFEST, *_OTHERS))} if path.startswith("manifests/") else {}
        try:
            return await self._access.ask(method, self._access.url(path), headers=accepted)
        except RefusalError as error:
            if error.status != 404:
                raise
            return None

    async def _upload(self, blob: Blob) -> None:
        """Send a blob in one piece, which every registry takes."""
        begun = await self._access.ask("POST", self._access.url("blobs/uploads/"), headers={"Content-Length": "0"})
        if begun.status != 202 or "Location" not in begun.headers:
            raise UnfitAnswerError(f"it answers with status {begun.status} where an upload is to begin.")
        url = self._access.sent_on(begun.headers["Location"])
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(blob.size)}
        target = URL(f"{url}{'&' if url.raw_query_string else '?'}digest={blob.digest}", encoded=True)
        _check_taken(await self._access.ask("PUT", target, headers=headers, body=blob.content), blob.digest)


@asynccontextmanager
async def registry_of(repository: Repository) -> AsyncIterator[Registry]:
    """Open a repository with the credentials of the environment.

    Raises:
        CredentialsError: They cannot be used, or their Secret is missing.
        RefusedError: The registry is at an address that Jobs must not connect to.
    """
    check_secret()
    async with await open_client() as client:
        access = Access(client, repository, credentials_for(repository))
        await access.check()
        yield Registry(access)


def _check_taken(answer: Answer, digest: str) -> None:
    """Raise UnfitAnswerError unless the registry has taken the content with this digest, and no other."""
    told = answer.headers.get(_DIGEST_HEADER, digest)
    if answer.status != 201:
        raise UnfitAnswerError(f"it answers with status {answer.status} where it should have taken {digest}.")
    if told != digest:
        raise UnfitAnswerError(f"it has taken {digest} as {told[:80]!r}: something on the way has changed it.")
