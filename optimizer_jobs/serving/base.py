"""What a server's module answers: the files of its layout, and what is lost on the way."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.external import external_files
from optimizer_jobs.models.names import MODEL
from optimizer_jobs.models.version_numbers import DELIVERED, number_of


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


def version_of(bundle: Bundle, *, delivered: bool) -> int:
    """Return the number that the only version is served under; a model as delivered has the first one."""
    return DELIVERED if delivered else number_of(bundle.digest)


def model_files(bundle: Bundle, name: str, *, version: int) -> dict[str, bytes | Path]:
    """Return the model and its external data, which lie side by side, by their paths in the layout.

    Args:
        bundle: The bundle.
        name: Name of the model's folder.
        version: Number of the version, which is its folder's name.
    """
    names = (MODEL, *external_files(bundle.model))
    return {f"{name}/{version}/{file}": bundle.folder / file for file in names}


def lost_rows(bundle: Bundle) -> Iterator[str]:
    """Yield what is lost where the bundle fixes the number of rows of every call."""
    rows = bundle.manifest.engine.rows
    if rows:
        yield (
            f"The bundle was judged with calls of {rows} rows, for which its engine plans ahead: the server takes "
            "requests of any size, and its engine plans for none."
        )
