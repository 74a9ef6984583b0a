"""Where the files of a run go: to the server, which takes them itself, or into the bucket that it names for them."""

import posixpath
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from fsspec import AbstractFileSystem

from optimizer_jobs.data.faults import remote_fault
from optimizer_jobs.data.mlflow.artifacts import FILES, ArtifactSystem
from optimizer_jobs.data.mlflow.refusals import refused
from optimizer_jobs.data.mlflow.server import Server, UnfitAnswerError
from optimizer_jobs.data.remote import CREDENTIALS, has_credentials, open_system
from optimizer_jobs.errors import RETRY_EXIT, JobError, printable
from retune.contract.results import Reason

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.=:+ -]*(/[A-Za-z0-9_][A-Za-z0-9_.=:+ -]*)*")
_BUCKETS = ("s3", "gs")


class Uploads(Protocol):
    """A folder for files."""

    def put(self, name: str, file: Path) -> None:
        """Write a file by its path in the folder; raises JobError or the errors of `Server.ask`."""
        ...

    def sizes(self, folder: str) -> Mapping[str, int | None]:
        """Return the bytes of each file in a folder of it by name, None where that is not told; errors are as above."""
        ...


def uploads_to(server: Server, root: str) -> Uploads | str:
    """Return the folder of a run's files; or why no file can be put there, as words.

    Args:
        server: The server that the run is on.
        root: What it says of where the files of the run lie.

    Raises:
        UnfitAnswerError: It names another server, or a path that is not plain.
        CredentialsError: The keys of the bucket cannot be used; RefusedError where it must not be connected to.
    """
    scheme, _, path = root.partition(":")
    if scheme == "mlflow-artifacts":
        return _Proxied(server, _plain(_of_this(server, path)))
    shown = printable(root, limit=100)
    if scheme not in _BUCKETS:
        cure = "start it with --artifacts-destination"
        return f"the server takes no files itself (they would lie at {shown}): {cure}"
    if not has_credentials(scheme):
        return f"the files would lie at {shown}, and the Secret has no {CREDENTIALS[scheme]}"
    return _Bucket(open_system(scheme, path.strip("/").partition("/")[0], writes=True), _plain(path), root)


def upload(uploads: Uploads, files: Mapping[str, Path]) -> None:
    """Write files by their paths in a folder, and see that all of them are there.

    Raises:
        UnfitAnswerError: There is something else than what was sent; other errors are those of `Uploads`.
    """
    for name, file in files.items():
        uploads.put(name, file)
    listed = {folder: uploads.sizes(folder) for folder in dict.fromkeys(map(posixpath.dirname, files))}
    for path, file in files.items():
        folder, name = posixpath.split(path)
        sent, size = file.stat().st_size, listed[folder].get(name, 0)
        if size is not None and size != sent:
            raise UnfitAnswerError(f"it has {size} of the {sent} bytes of {name} that were sent.")


def _of_this(server: Server, path: str) -> str:
    """Return the path of a folder that this server hands out."""
    if not path.startswith("//"):
        return path
    host, _, path = path.removeprefix("//").partition("/")
    if host != urlsplit(server.base).netloc:
        raise UnfitAnswerError("it says that another server takes the files.")
    return path


def _plain(path: str) -> str:
    if not _PLAIN.fullmatch(path.strip("/")):
        raise UnfitAnswerError("the folder for files that it names is not plain.")
    return path.strip("/")


class _Proxied:
    """A folder on the server."""

    def __init__(self, server: Server, folder: str) -> None:
        self._server, self._folder = server, folder

    def put(self, name: str, file: Path) -> None:
        self._server.put(f"{FILES}/{quote(posixpath.join(self._folder, name))}", file)

    def sizes(self, folder: str) -> Mapping[str, int | None]:
        return ArtifactSystem(self._server).sizes(posixpath.join(self._folder, folder).rstrip("/"))


class _Bucket:
    """A folder in a bucket, which is written to with the bucket's own keys."""

    def __init__(self, system: AbstractFileSystem, folder: str, uri: str) -> None:
        self._system, self._folder, self._uri = system, folder, printable(uri, limit=200)

    def put(self, name: str, file: Path) -> None:
        try:
            self._system.put_file(str(file), posixpath.join(self._folder, name))
        except Exception as error:  # libraries have errors of their own
            raise self._fault(error) from error

    def sizes(self, folder: str) -> Mapping[str, int | None]:
        try:
            self._system.invalidate_cache()
            found = self._system.ls(posixpath.join(self._folder, folder).rstrip("/"), detail=True)
        except Exception as error:  # libraries have errors of their own
            raise self._fault(error) from error
        return {posixpath.basename(entry["name"]): entry["size"] for entry in found if entry["type"] == "file"}

    def _fault(self, error: Exception) -> JobError:
        """Return what a failed write means."""
        known = remote_fault(error, uri=self._uri, what="Model")
        if known.reason is Reason.MODEL_FORBIDDEN:
            message, scheme = "the keys do not allow writing files there.", self._uri.partition(":")[0]
            step = f"Let them write there, or correct the Secret; it needs {CREDENTIALS[scheme]}."
            return JobError(Reason.REGISTRY_FORBIDDEN, self._uri, message, step)
        if known.reason is Reason.MODEL_NOT_FOUND:
            return refused(self._uri, "there is no such bucket.", "Correct where the server keeps files.")
        step = "It is tried again; see that the bucket answers."
        return JobError(Reason.REGISTRY_UNREACHABLE, self._uri, known.message, step, RETRY_EXIT)
