"""Fetch a report from a bucket, or make a link to it, with the credentials of whoever asks.

They are found where other tools for the same buckets find them on this machine: variables, profiles, a login. Neither
the cluster nor its Secrets are asked for any. An address comes from a status, so only plain ones of buckets are opened.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import TypeAdapter, ValidationError

from retune.api.base import FileUri, Json
from retune.cli.access import AccessError

LINK_SECONDS = 3600
"""How long a link works, unless the credentials that it is signed with end before."""
_LIMIT = 64 << 20
"""Most bytes of a report."""
_LIBRARIES = {"s3": "s3fs", "gs": "gcsfs"}
_OPTIONS: dict[str, Json] = {"s3": {"config_kwargs": {"signature_version": "s3v4"}}, "gs": {}}
"""How buckets are opened: by default, links to S3 are signed as of old, which most servers refuse."""
_PAGE = "text/html; charset=utf-8"
_SIGNED = {"s3": {"ResponseContentType": _PAGE}, "gs": {"version": "v4", "response_type": _PAGE}}
"""What links say besides: a browser shows the page, whatever type it was stored with."""
_LOGIN = {
    "s3": "log in as for `aws s3`, and set AWS_ENDPOINT_URL where the server is not Amazon's",
    "gs": "log in with `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS",
}
_ADDRESS: TypeAdapter[str] = TypeAdapter(FileUri)


def read(uri: str) -> bytes:
    """Return the content of s3://BUCKET/PATH or gs://BUCKET/PATH; raises AccessError with what to do next."""
    with _explained(uri):
        content: bytes = _system(uri).cat_file(uri, start=0, end=_LIMIT + 1)
    if len(content) > _LIMIT:
        raise AccessError(f"{uri} has more than {_LIMIT >> 20} MiB, which no report has")
    return content


def link(uri: str) -> str:
    """Return an address by which a browser opens s3://BUCKET/PATH or gs://BUCKET/PATH without credentials.

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
    """Return fsspec's file system for an address; raises AccessError where it is none of a bucket."""
    scheme = _scheme(uri)
    try:
        _ADDRESS.validate_python(uri)
    except ValidationError as error:
        raise AccessError(f"the status names a report at {uri!r}, which is no address in a store") from error
    if scheme not in _LIBRARIES:
        raise AccessError(f"the status names a report at {uri!r}, which is in no claim and no bucket")
    try:
        import fsspec  # noqa: PLC0415 - an optional library, which nothing else of the command line needs

        return fsspec.filesystem(scheme, skip_instance_cache=True, **_OPTIONS[scheme])
    except ImportError as error:
        library = _LIBRARIES[scheme]
        raise AccessError(
            f"{uri} is in a bucket, and {library} is not installed here, which reads it: pip install 'retune[remote]'"
        ) from error


@contextmanager
def _explained(uri: str) -> Iterator[None]:
    """Turn what the libraries raise, each its own kinds of errors, into a sentence."""
    try:
        yield
    except AccessError:
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
