"""Read what lies in a bucket, or make a link to it, with the credentials of whoever asks.

They are found where other tools for the same buckets find them on this machine: variables, profiles, a login. Neither
the cluster nor its Secrets are asked for any. Addresses come from a cluster, so only plain ones of buckets are opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from retune.api.base import FileUri, Json
from retune.cli import azure
from retune.cli.access import AccessError

LINK_SECONDS = 3600
"""How long a link works, unless the credentials that it is signed with end before."""
_LIMIT = 64 << 20
"""Most bytes of a report."""
_LIBRARIES = {"s3": "s3fs", "gs": "gcsfs", "az": "azure-storage-blob"}
_OPTIONS: dict[str, Json] = {"s3": {"config_kwargs": {"signature_version": "s3v4"}}, "gs": {}}
"""How buckets are opened: by default, links to S3 are signed as of old, which most servers refuse."""
_PAGE = "text/html; charset=utf-8"
_SIGNED = {
    "s3": {"ResponseContentType": _PAGE},
    "gs": {"version": "v4", "response_type": _PAGE},
    "az": {"content_type": _PAGE},
}
"""What links say besides: a browser shows the page, whatever type it was stored with."""
_LOGIN = {
    "s3": "log in as for `aws s3`, and set AWS_ENDPOINT_URL where the server is not Amazon's",
    "gs": "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
    "az": azure.LOGIN,
}
_ADDRESS: TypeAdapter[str] = TypeAdapter(FileUri)


@dataclass(frozen=True)
class Entry:
    """A file or a folder in a folder of a bucket."""

    name: str
    """The last part of its path, which is hostile text."""
    size: int | None
    """Bytes; None of a folder."""
    changed: float
    """When it was last changed, in seconds since 1970; 0 where the server does not say."""


def entries(uri: str) -> list[Entry]:
    """Return what lies directly in a folder of a bucket, of which a bucket without any has nothing.

    Raises:
        AccessError: It cannot be listed; the message says what to do next.
    """
    try:
        with _explained(uri, passed=FileNotFoundError):
            found = _system(uri).ls(uri, detail=True)
    except FileNotFoundError:
        return []
    return [_entry(entry) for entry in found if str(entry["name"]).rstrip("/") != uri.partition("://")[2].rstrip("/")]


def _entry(entry: Json) -> Entry:
    is_file, moment = entry["type"] == "file", entry.get("LastModified") or entry.get("mtime") or entry.get("updated")
    return Entry(
        name=str(entry["name"]).rstrip("/").rpartition("/")[2],
        size=int(entry.get("size") or 0) if is_file else None,
        changed=moment.timestamp() if isinstance(moment, datetime) else 0.0,
    )


def save(uri: str, path: Path) -> None:
    """Copy a file in a bucket to a path of this machine; raises AccessError with what to do next."""
    with _explained(uri):
        _system(uri).get_file(uri, str(path))


def read(uri: str) -> bytes:
    """Return the content of a file in a bucket of s3://, gs:// or az://; raises AccessError with what to do next."""
    with _explained(uri):
        content: bytes = _system(uri).cat_file(uri, start=0, end=_LIMIT + 1)
    if len(content) > _LIMIT:
        raise AccessError(f"{uri} has more than {_LIMIT >> 20} MiB, which no report has")
    return content


def link(uri: str) -> str:
    """Return an address by which a browser opens a file in a bucket of s3://, gs:// or az:// without credentials.

    It is made on this machine and works for LINK_SECONDS; raises AccessError with what to do next.
    """
    with _explained(uri):
        system = _system(uri)
        system.info(uri)
        address: str = system.sign(uri, expiration=LINK_SECONDS, **_SIGNED[_scheme(uri)])
    return address


def _scheme(uri: str) -> str:
    return uri.partition("://")[0]


def _system(uri: str) -> Any:
    """Return a file system for an address, by fsspec's interface; raises AccessError where it is none of a bucket."""
    scheme = _scheme(uri)
    try:
        _ADDRESS.validate_python(uri)
    except ValidationError as error:
        raise AccessError(f"the resource names {uri!r}, which is no address in a store") from error
    if scheme not in _LIBRARIES:
        raise AccessError(f"the resource names {uri!r}, which is in no claim and no bucket")
    try:
        if scheme == "az":
            return azure.AzureSystem()
        import fsspec  # noqa: PLC0415 - an optional library, which nothing else of the command line needs

        return fsspec.filesystem(scheme, skip_instance_cache=True, **_OPTIONS[scheme])
    except ImportError as error:
        library = _LIBRARIES[scheme]
        raise AccessError(
            f"{uri} is in a bucket, and {library} is not installed here, which reads it: pip install 'retune[remote]'"
        ) from error


@contextmanager
def _explained(uri: str, *, passed: type[Exception] | tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Turn what the libraries raise, each its own kinds of errors, into a sentence; those in `passed` stay."""
    try:
        yield
    except AccessError:
        raise
    except passed:
        raise
    except FileNotFoundError as error:
        raise AccessError(
            f"{uri} is not there: its run may be older than spec.history keeps, or your bucket of this name is on "
            "another server"
        ) from error
    except PermissionError as error:
        raise AccessError(f"you may not read {uri} ({_line(error)}): {_LOGIN[_scheme(uri)]}") from error
    except Exception as error:
        raise AccessError(
            f"{uri} cannot be had ({type(error).__name__}: {_line(error)}): {_LOGIN[_scheme(uri)]}"
        ) from error


def _line(error: Exception) -> str:
    """Return the beginning of an error's text, on one line."""
    return " ".join(str(error).split())[:300]
