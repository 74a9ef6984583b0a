"""Files that the tracking server hands out itself (`mlflow-artifacts:`), as a file system.

The server knows no ranges, as a rule, and tells no length with a file. So the length is taken from its list of the
folder, and where a transfer breaks off, it is begun anew up to there and compared with what had come.
"""

import hashlib
import io
import posixpath
from typing import Any
from urllib.parse import quote

from aiohttp import ClientError
from fsspec import AbstractFileSystem

from optimizer_jobs.data.mlflow.server import AnswerError, Download, Server

FILES = "api/2.0/mlflow-artifacts/artifacts"
"""Path of the files that the server hands out and takes."""
_ATTEMPTS = 3
_SKIPPED = 1 << 20


class ArtifactSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """The files of a tracking server, by their paths below the root of its artifacts."""

    cachable = False
    protocol = "mlflow-artifacts"

    def __init__(self, server: Server) -> None:
        super().__init__()
        self._server = server

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Return name, size and type of a file or folder; raises FileNotFoundError where there is none."""
        folder, name = posixpath.split(path)
        try:
            answer = self._server.read(FILES, {"path": folder})
        except AnswerError as error:
            raise _absent(path, error) from error
        listed = answer.get("files")
        for entry in listed if isinstance(listed, list) else ():
            if isinstance(entry, dict) and str(entry.get("path")).rpartition("/")[2] == name:
                is_folder = entry.get("is_dir") is True
                return {"name": path, "size": _size(entry), "type": "directory" if is_folder else "file"}
        raise FileNotFoundError(path)

    def sizes(self, folder: str) -> dict[str, int | None]:
        """Return the bytes of each file in a folder by name, as far as the server tells; errors are the server's."""
        listed = self._server.read(FILES, {"path": folder}).get("files")
        entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
        files = (entry for entry in entries if entry.get("is_dir") is not True)
        return {str(entry.get("path")).rpartition("/")[2]: _size(entry) for entry in files}

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.RawIOBase:
        if mode != "rb":
            raise ValueError("files of a tracking server are only read")
        return _File(self._server, path, self.info(path)["size"])


class _File(io.RawIOBase):
    """A file that is read from its beginning to its end, over as many connections as it takes."""

    def __init__(self, server: Server, path: str, size: int | None) -> None:
        super().__init__()
        self._server, self._path, self._size = server, path, size
        self._digest, self._at, self._attempts = hashlib.sha256(), 0, 0
        self._download: Download | None = None

    def readable(self) -> bool:
        """Whether it can be read, which is all that can be done with it."""
        return True

    def read(self, size: int = -1) -> bytes:
        """Return at most `size` bytes, and none at the end; raises where the server gives up or changes the file."""
        if size < 0:
            return self.readall()
        while True:
            try:
                content = self._next(size)
            except (ClientError, EOFError, TimeoutError, ConnectionError) as error:
                self._give_up_after(error)
                continue
            self._digest.update(content)
            self._at += len(content)
            return content

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer; return how many bytes it got."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """End the connection."""
        if self._download is not None:
            self._download.close()
            self._download = None
        super().close()

    def _next(self, size: int) -> bytes:
        if self._download is None:
            self._download = self._begun()
        content = self._download.read(size)
        if not content and self._size is not None and self._at < self._size:
            raise EOFError(f"{self._at} of {self._size} bytes have come")
        return content

    def _begun(self) -> Download:
        """Return a transfer that goes on where the last one has broken off."""
        try:
            download = self._server.open(f"{FILES}/{quote(self._path)}", start=self._at)
        except AnswerError as error:
            raise _absent(self._path, error) from error
        try:
            if download.start != self._at:
                self._skip(download)
        except BaseException:
            download.close()
            raise
        return download

    def _skip(self, download: Download) -> None:
        """Read what has come before once more, and see that it is the same."""
        again, left = hashlib.sha256(), self._at
        while left:
            content = download.read(min(left, _SKIPPED))
            if not content:
                raise EOFError(f"the transfer broke off after {self._at - left} bytes")
            again.update(content)
            left -= len(content)
        if again.digest() != self._digest.digest():
            raise OSError("the file was changed while it was read")

    def _give_up_after(self, error: Exception) -> None:
        """End a transfer that has broken off; raises OSError where it has done so too often."""
        if self._download is not None:
            self._download.close()
            self._download = None
        self._attempts += 1
        if self._attempts >= _ATTEMPTS:
            raise OSError(f"the transfer broke off {self._attempts} times") from error


def _size(entry: dict[str, Any]) -> int | None:
    """Return the size that the server tells; JSON has 64-bit numbers as text."""
    size = str(entry.get("file_size", ""))
    return int(size) if size.isascii() and size.isdigit() and len(size) < 20 else None


def _absent(path: str, error: AnswerError) -> OSError:
    """Return the error of an absent file where that is what the server says, else the server's own."""
    return FileNotFoundError(path) if error.status == 404 else error
