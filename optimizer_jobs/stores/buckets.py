"""The few requests that a store needs of a server, in the protocols of Amazon and of Google; `containers` has Azure's.

Each makes exactly one request for a small object, with the credentials and the checks of addresses of `data.remote`.
Errors are those of the libraries; `faults` explains them.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from optimizer_jobs.data.remote import open_system
from optimizer_jobs.stores.base import Stat

PART = 16 << 20
"""Bytes of one part of a large upload; below twice as many, an object is sent in one request."""
_PARTS_AT_ONCE = 4
_DELETED_AT_ONCE = 1000
_PASSING = frozenset({"InternalError", "SlowDown", "ServiceUnavailable", "RequestTimeout"})
"""Error codes of S3 for one object of several that may go another time."""
_TRIES = 2
"""How often s3fs tries what the library below it has tried three times."""


@dataclass(frozen=True)
class Version:
    """What is known of an object before it is read."""

    size: int
    tag: str
    """Another text for another content."""


class Bucket(Protocol):
    """A bucket on a server; keys are those of the bucket."""

    def put(self, key: str, content: bytes | Path, *, create: bool) -> None:
        """Write an object; with `create` only where there is none, else an error that has status 412."""

    def head(self, key: str) -> Version:
        """Return what is known of an object."""

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return the bytes from `start` to before `end`, or fewer where the object ends."""

    def list(self, prefix: str, after: str | None) -> Iterator[Sequence[Stat]]:
        """Yield pages of a listing in order of the keys; a request each, the first made at once."""

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects."""


class S3Bucket:
    """A bucket of S3's protocol, by s3fs."""

    def __init__(self, name: str) -> None:
        """Open the bucket `name`; raises RefusedError and CredentialsError as `open_system` does."""
        self._fs, self._name = open_system("s3", name, writes=True), name
        self._fs.retries = _TRIES

    def put(self, key: str, content: bytes | Path, *, create: bool) -> None:
        """Write an object. `mode="create"` sends `If-None-Match: *`, with the end of an upload in parts too."""
        path, mode = f"{self._name}/{key}", "create" if create else "overwrite"
        if isinstance(content, bytes):
            self._fs.pipe_file(path, content, chunksize=PART, max_concurrency=_PARTS_AT_ONCE, mode=mode)
        else:
            self._fs.put_file(str(content), path, chunksize=PART, max_concurrency=_PARTS_AT_ONCE, mode=mode)

    def head(self, key: str) -> Version:
        """Return what is known of an object."""
        about = self._fs.call_s3("head_object", Bucket=self._name, Key=key)
        return Version(int(about["ContentLength"]), str(about.get("ETag", "")))

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return a range of bytes."""
        return bytes(self._fs.cat_file(f"{self._name}/{key}", start=start, end=end))

    def list(self, prefix: str, after: str | None) -> Iterator[Sequence[Stat]]:
        """Yield pages of a listing."""
        query: dict[str, Any] = {"Bucket": self._name, "Prefix": prefix}
        query |= {"StartAfter": after} if after is not None else {}
        while True:
            page = self._fs.call_s3("list_objects_v2", **query)
            yield [Stat(one["Key"], int(one["Size"]), one["LastModified"]) for one in page.get("Contents", ())]
            if not page.get("IsTruncated"):
                return
            query["ContinuationToken"] = page["NextContinuationToken"]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, a thousand in a request."""
        for start in range(0, len(keys), _DELETED_AT_ONCE):
            objects = [{"Key": key} for key in keys[start : start + _DELETED_AT_ONCE]]
            answer = self._fs.call_s3("delete_objects", Bucket=self._name, Delete={"Objects": objects, "Quiet": True})
            for refused in answer.get("Errors", ()):
                raise _NotDeletedError(refused)


class _NotDeletedError(OSError):
    """An object of several is not deleted, which S3 says in an answer with status 200."""

    def __init__(self, about: dict[str, Any]) -> None:
        super().__init__(f"{about.get('Key')}: {about.get('Code')} {about.get('Message')}")
        status = 500 if about.get("Code") in _PASSING else 403
        self.response = {"Error": about, "ResponseMetadata": {"HTTPStatusCode": status}}


class GoogleBucket:
    """A bucket of Google's protocol, by gcsfs."""

    def __init__(self, name: str) -> None:
        """Open the bucket `name`; raises RefusedError and CredentialsError as `open_system` does."""
        self._fs, self._name = open_system("gs", name, writes=True), name

    def put(self, key: str, content: bytes | Path, *, create: bool) -> None:
        """Write an object. `mode="create"` sends `ifGenerationMatch=0`, with the start of an upload in parts too."""
        path, mode = f"{self._name}/{key}", "create" if create else "overwrite"
        if isinstance(content, bytes):
            self._fs.pipe_file(path, content, chunksize=PART, mode=mode)
        else:
            self._fs.put_file(str(content), path, chunksize=PART, mode=mode)

    def head(self, key: str) -> Version:
        """Return what is known of an object."""
        about = self._fs.call("GET", "b/{}/o/{}", self._name, key, json_out=True)
        return Version(int(about["size"]), str(about.get("generation", about.get("etag", ""))))

    def get(self, key: str, start: int, end: int) -> bytes:
        """Return a range of bytes."""
        return bytes(self._fs.cat_file(f"{self._name}/{key}", start=start, end=end))

    def list(self, prefix: str, after: str | None) -> Iterator[Sequence[Stat]]:
        """Yield pages of a listing. Google's begins with the key itself, which is passed over."""
        query = {"prefix": prefix} | ({"startOffset": after} if after is not None else {})
        while True:
            _, written = self._fs.call("GET", "b/{}/o", self._name, **query)
            page = json.loads(written)
            found = (_google_stat(one) for one in page.get("items", ()))
            yield [stat for stat in found if after is None or stat.key > after]
            if not page.get("nextPageToken"):
                return
            query["pageToken"] = page["nextPageToken"]

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects, one in a request."""
        for key in keys:
            try:
                self._fs.call("DELETE", "b/{}/o/{}", self._name, key)
            except FileNotFoundError:
                continue


def _google_stat(about: dict[str, Any]) -> Stat:
    return Stat(about["name"], int(about["size"]), datetime.fromisoformat(about["updated"]))
