"""Where a URI leads: one table of schemes, and no way out of a claim.

A URI is hostile input. It never leads through `..`, and no symbolic link in it leaves the claim it names.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fsspec import AbstractFileSystem
from fsspec.implementations.local import LocalFileSystem
from pydantic import TypeAdapter, ValidationError

from optimizer_jobs.errors import JobError
from retune.api.base import Uri
from retune.contract.paths import CLAIM_ROOT
from retune.contract.results import Reason

CLAIM_ROOT_VARIABLE = "RETUNE_CLAIM_ROOT"
"""Environment variable that names the folder of claims outside a cluster."""

_PVC: TypeAdapter[str] = TypeAdapter(Uri)


@dataclass(frozen=True)
class Location:
    """A file or folder: `path` on the file system `fs`, known to people as `uri`."""

    fs: AbstractFileSystem
    path: str
    uri: str

    @property
    def local(self) -> Path:
        """The path on this machine."""
        return Path(self.path)


class _RefusedError(ValueError):
    """Why a URI is not followed."""


def resolve(uri: str, *, refused: Reason = Reason.REQUEST_INVALID) -> Location:
    """Return where `uri` leads; it need not exist.

    Raises:
        JobError: with reason `refused` when the scheme is unknown, the path is not plain, or a link leaves the claim.
    """
    scheme = uri.partition("://")[0]
    try:
        return Location(fs=LocalFileSystem(), path=str(_path_of(scheme, uri)), uri=uri)
    except _RefusedError as error:
        raise JobError(refused, uri, str(error), "Give a plain path inside a claim: pvc://CLAIM/PATH.") from error


def sibling(uri: str, name: str) -> str:
    """Return the URI of `name` in the folder of `uri`."""
    return f"{uri.rpartition('/')[0]}/{name}"


def _path_of(scheme: str, uri: str) -> Path:
    if scheme not in _SCHEMES:
        raise _RefusedError(f"the scheme is not one of {', '.join(_SCHEMES)}.")
    return _SCHEMES[scheme](uri)


def _claim_path(uri: str) -> Path:
    try:
        _PVC.validate_python(uri)
    except ValidationError as error:
        raise _RefusedError(f"{error.errors()[0]['msg']}.") from error
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    folder = Path(os.environ.get(CLAIM_ROOT_VARIABLE, CLAIM_ROOT)).resolve() / claim
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
