"""What a server's module answers: the files of its layout, and what is lost on the way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.external import external_files
from optimizer_jobs.models.names import MODEL

VERSION = "1"
"""Name of the folder of the only version: both servers take positive whole numbers."""


@dataclass(frozen=True)
class Layout:
    """What is to be written for one server."""

    files: Mapping[str, bytes | Path]
    """Content of each file, or the file that is copied, by path."""
    lost: tuple[str, ...]
    """What the bundle asks and the server cannot express, each as a sentence."""
    tried: str
    """What was tried of it here, or why nothing was, as a sentence."""


def called(bundle: Bundle) -> str:
    """Return the bundle by the start of its digest, as errors and reports name it."""
    return f"bundle {bundle.digest.removeprefix('sha256:')[:12]}"


def model_files(bundle: Bundle, name: str) -> dict[str, bytes | Path]:
    """Return the model and its external data, which lie side by side, by their paths in the layout."""
    names = (MODEL, *external_files(bundle.model))
    return {f"{name}/{VERSION}/{file}": bundle.folder / file for file in names}


def lost_rows(bundle: Bundle) -> Iterator[str]:
    """Yield what is lost where the bundle fixes the number of rows of every call."""
    rows = bundle.manifest.engine.rows
    if rows:
        yield (
            f"The bundle was judged with calls of {rows} rows, for which its engine plans ahead: the server takes "
            "requests of any size, and its engine plans for none."
        )
