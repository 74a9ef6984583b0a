"""Where a URI leads, on volumes and on servers.

A URI is hostile input, see `volumes` and `addresses`. Files are read from volumes and servers, and written to volumes
only.
"""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pydantic import TypeAdapter, ValidationError

from optimizer_jobs.data.addresses import RefusedError
from optimizer_jobs.data.remote import open_system
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.data.volumes import VOLUME_HELP, RefusedUriError, path_of
from optimizer_jobs.errors import JobError
from retune.api.base import FileUri
from retune.contract.results import Reason

REMOTE = ("s3", "gs", "az", "https")
"""URI schemes of files on servers."""

_FILE: TypeAdapter[str] = TypeAdapter(FileUri)


@dataclass(frozen=True)
class Location:
    """A file or folder: `path` on the file system `fs`; people know it as `uri`."""

    fs: AbstractFileSystem
    path: str
    uri: str

    @property
    def remote(self) -> bool:
        """Whether it lies on a server."""
        return not isinstance(self.fs, LocalFileSystem)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return PurePosixPath(self.path).name

    @property
    def local(self) -> Path:
        """The path on this machine; raises ValueError for a file on a server."""
        if self.remote:
            raise ValueError(f"{self.uri} is not on this machine")
        return Path(self.path)


def resolve(uri: str, *, refused: Reason = Reason.REQUEST_INVALID, remote: bool = False) -> Location:
    """Return where `uri` leads; the file need not exist.

    Args:
        uri: pvc://CLAIM/PATH, file:///PATH, or with `remote` the URI of a file on a server.
        refused: Reason of the error when the URI is refused.
        remote: Whether the file may lie on a server.

    Raises:
        JobError: With reason `refused`, when the scheme is unknown, the path is not plain or leaves its claim, the
            server must not be connected to, or the credentials are missing or cannot be used.
    """
    scheme = uri.partition("://")[0]
    try:
        if remote and scheme in REMOTE:
            return _remote(scheme, uri)
        return Location(fs=LocalFileSystem(), path=str(path_of(uri, others=REMOTE if remote else ())), uri=uri)
    except (RefusedUriError, RefusedError) as error:
        raise JobError(refused, uri, str(error), _HELP[remote]) from error
    except CredentialsError as error:
        raise JobError(refused, uri, str(error), _SECRET_HELP) from error


def sibling(uri: str, name: str) -> str:
    """Return the URI of `name` in the folder of `uri`."""
    return f"{uri.rpartition('/')[0]}/{name}"


def _remote(scheme: str, uri: str) -> Location:
    try:
        _FILE.validate_python(uri)
    except ValidationError as error:
        raise RefusedUriError(f"{error.errors()[0]['msg']}.") from error
    place = uri.removeprefix(f"{scheme}://")
    host = place.partition("/")[0]
    return Location(fs=open_system(scheme, host), path=uri if scheme == "https" else place, uri=uri)


_SECRET_HELP = "Create or correct the Secret that spec.execution.credentials.secretName names."  # noqa: S105 - a sentence
_HELP = {
    False: VOLUME_HELP,
    True: "Give pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH, az://CONTAINER/PATH or https://HOST/PATH.",
}
