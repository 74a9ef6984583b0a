"""Where a URI leads: one table of schemes, and no way out of a claim.

A URI is hostile input. A path with `..` is refused, and so is a symbolic link that leaves the claim. Files are read
from volumes and servers, and written to volumes only.
"""

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pydantic import TypeAdapter, ValidationError

from optimizer_jobs.data.addresses import RefusedError
from optimizer_jobs.data.remote import open_system
from optimizer_jobs.data.transfer import CredentialsError
from optimizer_jobs.errors import JobError
from retune.api.base import FileUri, Uri
from retune.contract.paths import CLAIM_ROOT, CLAIMS_VARIABLE
from retune.contract.results import Reason

CLAIM_ROOT_VARIABLE = "RETUNE_CLAIM_ROOT"
"""Environment variable that names the folder of claims outside a cluster."""

REMOTE = ("s3", "gs", "https")
"""URI schemes of files on servers."""

_PVC: TypeAdapter[str] = TypeAdapter(Uri)
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
        return self.uri.partition("://")[0] in REMOTE

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


class _RefusedError(ValueError):
    """Why a URI is not followed."""


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
        return Location(fs=LocalFileSystem(), path=str(_path_of(scheme, uri, remote=remote)), uri=uri)
    except (_RefusedError, RefusedError) as error:
        raise JobError(refused, uri, str(error), _HELP[remote]) from error
    except CredentialsError as error:
        raise JobError(refused, uri, str(error), _SECRET_HELP) from error


def sibling(uri: str, name: str) -> str:
    """Return the URI of `name` in the folder of `uri`."""
    return f"{uri.rpartition('/')[0]}/{name}"


def claim_folder(claim: str) -> Path:
    """Return a claim's folder: the one that CLAIMS_VARIABLE maps it to, or the folder of its name under the root."""
    folders = json.loads(os.environ.get(CLAIMS_VARIABLE, "{}"))
    if claim in folders:
        return Path(folders[claim]).resolve()
    return Path(os.environ.get(CLAIM_ROOT_VARIABLE, CLAIM_ROOT)).resolve() / claim


def _remote(scheme: str, uri: str) -> Location:
    try:
        _FILE.validate_python(uri)
    except ValidationError as error:
        raise _RefusedError(f"{error.errors()[0]['msg']}.") from error
    place = uri.removeprefix(f"{scheme}://")
    host = place.partition("/")[0]
    return Location(fs=open_system(scheme, host), path=uri if scheme == "https" else place, uri=uri)


def _path_of(scheme: str, uri: str, *, remote: bool) -> Path:
    if scheme not in _SCHEMES:
        raise _RefusedError(f"the scheme is not one of {', '.join([*_SCHEMES, *(REMOTE if remote else ())])}.")
    return _SCHEMES[scheme](uri)


def _claim_path(uri: str) -> Path:
    try:
        _PVC.validate_python(uri)
    except ValidationError as error:
        raise _RefusedError(f"{error.errors()[0]['msg']}.") from error
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    folder = claim_folder(claim)
    real = Path(os.path.realpath(folder / path))
    if ".." in claim or not real.is_relative_to(folder):
        raise _RefusedError("a symbolic link in the path leads out of the claim.")
    return real


def _file_path(uri: str) -> Path:
    path = uri.removeprefix("file://")
    plain = path.startswith("/") and path.isprintable() and not {".", ".."} & set(path.split("/"))
    if not plain:
        raise _RefusedError("a file URI is file:// and an absolute path without '.' and '..'.")
    return Path(os.path.realpath(path))


_SCHEMES: dict[str, Callable[[str], Path]] = {"pvc": _claim_path, "file": _file_path}
"""`pvc` is a claim in the cluster; `file` is for a person's own machine and for bundles inside an image."""

_SECRET_HELP = "Create or correct the Secret that spec.execution.credentials.secretName names."  # noqa: S105 - a sentence
_HELP = {
    False: "Give a plain path inside a claim: pvc://CLAIM/PATH.",
    True: "Give pvc://CLAIM/PATH, s3://BUCKET/PATH, gs://BUCKET/PATH or https://HOST/PATH.",
}
