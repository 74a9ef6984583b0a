"""A folder for private copies of bundles, and an end to those of processes that were killed.

A pod's scratch volume outlives its containers: one that is killed for memory and started again, again and again, would
fill the node's disk with copies. A folder belongs to a process for as long as that holds its lock.
"""

import fcntl
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_PREFIX: Final = "retune-copies-"
_LOCK, _MADE = "lock", "lock.new"


@contextmanager
def private_folder() -> Iterator[Path]:
    """Have an empty folder in the place for temporary files, and remove it; first, what killed processes left there.

    Raises:
        OSError: There is no room, or no such place.
    """
    _remove_abandoned(Path(tempfile.gettempdir()))
    with tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True) as made:
        folder = Path(made)
        with (folder / _MADE).open("wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            (folder / _MADE).rename(folder / _LOCK)  # whoever sees it finds it held while we live
            inside = folder / "copies"
            inside.mkdir()
            yield inside


def _remove_abandoned(place: Path) -> None:
    for folder in place.glob(f"{_PREFIX}*"):
        try:
            with (folder / _LOCK).open("rb") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # of a process that lives, or that has only begun
        shutil.rmtree(folder, ignore_errors=True)
