"""Files on volumes: where a URI leads on this machine, with no way out of a claim, and what a file's digest is.

A URI is hostile input. A path with `..` is refused, and so is a symbolic link that leaves the claim. Model servers
import this module, so it needs no library for files on servers.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from optimizer_jobs.errors import JobError
from retune.api.base import Uri
from retune.contract.paths import CLAIM_ROOT, CLAIMS_VARIABLE
from retune.contract.results import Reason

CLAIM_ROOT_VARIABLE = "RETUNE_CLAIM_ROOT"
"""Environment variable that names the folder of claims outside a cluster."""

VOLUME_HELP = "Give a plain path inside a claim: pvc://CLAIM/PATH."

_PVC: TypeAdapter[str] = TypeAdapter(Uri)


class RefusedUriError(ValueError):
    """Why a URI is not followed, as a sentence."""


def local_path(uri: str) -> Path:
    """Return where `uri` leads on this machine; the file need not exist.

    Args:
        uri: pvc://CLAIM/PATH or file:///PATH.

    Raises:
        JobError: RequestInvalid, when the scheme is another, or the path is not plain or leaves its claim.
    """
    try:
        return path_of(uri)
    except RefusedUriError as error:
        raise JobError(Reason.REQUEST_INVALID, uri, str(error), VOLUME_HELP) from error


def path_of(uri: str, *, others: Sequence[str] = ()) -> Path:
    """Return what `local_path` does; `others` are schemes that the caller knows besides.

    Raises:
        RefusedUriError: The scheme is another, or the path is not plain or leaves its claim.
    """
    scheme = uri.partition("://")[0]
    if scheme not in _SCHEMES:
        raise RefusedUriError(f"the scheme is not one of {', '.join([*_SCHEMES, *others])}.")
    return _SCHEMES[scheme](uri)


def claim_folder(claim: str) -> Path:
    """Return a claim's folder: the one that CLAIMS_VARIABLE maps it to, or the folder of its name under the root."""
    folders = json.loads(os.environ.get(CLAIMS_VARIABLE, "{}"))
    if claim in folders:
        return Path(folders[claim]).resolve()
    return Path(os.environ.get(CLAIM_ROOT_VARIABLE, CLAIM_ROOT)).resolve() / claim


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file as `sha256:` and 64 hexadecimal digits."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def _claim_path(uri: str) -> Path:
    try:
        _PVC.validate_python(uri)
    except ValidationError as error:
        raise RefusedUriError(f"{error.errors()[0]['msg']}.") from error
    claim, _, path = uri.removeprefix("pvc://").partition("/")
    folder = claim_folder(claim)
    real = Path(os.path.realpath(folder / path))
    if ".." in claim or not real.is_relative_to(folder):
        raise RefusedUriError("a symbolic link in the path leads out of the claim.")
    return real


def _file_path(uri: str) -> Path:
    path = uri.removeprefix("file://")
    plain = path.startswith("/") and path.isprintable() and not {".", ".."} & set(path.split("/"))
    if not plain:
        raise RefusedUriError("a file URI is file:// and an absolute path without '.' and '..'.")
    return Path(os.path.realpath(path))


_SCHEMES: dict[str, Callable[[str], Path]] = {"pvc": _claim_path, "file": _file_path}
"""`pvc` is a claim in the cluster; `file` is for a person's own machine and for bundles inside an image."""
