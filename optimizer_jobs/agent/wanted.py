"""The small file that names the wanted bundle: a key of a mounted ConfigMap, or an annotation by the downward API.

The kubelet replaces all files of such a volume at once, by a link that is renamed, so a file is read whole or not at
all. It is read again at every look: nothing depends on being told of a change.
"""

import re
from pathlib import Path

from optimizer_jobs.errors import JobError
from retune.contract.results import Reason

_LIMIT_BYTES = 4096
_NAMED = re.compile(r"\S+/(?P<digest>[0-9a-f]{64})")
_ATTEMPTS = 3


def read_wanted(file: Path) -> str | None:
    """Return the URI of the wanted bundle; None where the file is not there or empty, so that nothing is wanted yet.

    Raises:
        JobError: The file holds something else than one URI that ends with a digest, or cannot be read.
    """
    content = _content(file).strip()
    if not content:
        return None
    uri = content.rstrip("/")
    if not _NAMED.fullmatch(uri):
        raise JobError(
            Reason.REQUEST_INVALID,
            str(file),
            f"it holds {uri!r:.120}, which is not the URI of one bundle, whose last part is a digest.",
            "Write the bundle's URI into it, such as pvc://CLAIM/bundles/DIGEST.",
        )
    return uri


def digest_in(uri: str) -> str:
    """Return the digest that a wanted URI names, as `sha256:...`."""
    return f"sha256:{uri.rpartition('/')[2]}"


def _content(file: Path) -> str:
    """Return what a file holds, or nothing; while the kubelet swaps folders, its path leads nowhere for a moment."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            with file.open("rb") as opened:
                return opened.read(_LIMIT_BYTES).decode("utf-8", "replace")
        except FileNotFoundError:
            if attempt == _ATTEMPTS or not file.is_symlink():
                return ""
        except OSError as error:
            raise JobError(
                Reason.REQUEST_INVALID, str(file), f"it cannot be read ({error.strerror}).", "Check the mount."
            ) from error
    return ""
