"""The current digest of a delivered file or folder, which shows whether it has changed since it was measured.

Weights are read as a stream, and no copy of them is kept.
"""

import hashlib
import tempfile
import time
from pathlib import Path

from optimizer_jobs.data.delivered import source_of
from optimizer_jobs.data.hugging_face import digest_of_folder
from optimizer_jobs.data.uris import Location
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.progress import say
from retune.api.model import ModelFormat
from retune.contract.requests import Followed

_CHUNK = 1 << 20
_LIMIT_BYTES = 64 << 30
_LIMIT_SECONDS = 600.0


def current_digest(followed: Followed) -> str | None:
    """Return the digest that the file has now, or None when it cannot be read, which does not mean that it changed.

    Of a model in a registry, that is the file of the version that its alias names now.
    """
    try:
        if followed.folder:
            return _folder_digest(followed.uri)
        return _digest(source_of(followed.uri, followed.format or ModelFormat.ONNX).file)
    except (JobError, ValueError) as error:
        say(f"{printable(followed.uri, limit=200)}: {printable(str(error), limit=300)}")
    except Exception as error:  # noqa: BLE001 - each file system has errors of its own
        say(f"{printable(followed.uri, limit=200)} cannot be read now ({type(error).__name__}).")
    return None


def _folder_digest(uri: str) -> str:
    with tempfile.TemporaryDirectory(prefix="folder-") as scratch:
        return digest_of_folder(uri, scratch=Path(scratch))


def _digest(location: Location) -> str:
    if location.fs.info(location.path)["type"] != "file":
        raise ValueError("this is not a regular file.")
    digest, size, end = hashlib.sha256(), 0, time.monotonic() + _LIMIT_SECONDS
    with location.fs.open(location.path, "rb") as source:
        while chunk := source.read(_CHUNK):
            size += len(chunk)
            digest.update(chunk)
            if size > _LIMIT_BYTES or time.monotonic() > end:
                raise ValueError(f"it is not read to its end: {size} bytes have come.")
    return f"sha256:{digest.hexdigest()}"
