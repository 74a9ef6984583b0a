"""Write a bundle in the layout of a model server of others: the same bundle always gives the same bytes.

Whatever can be refused is refused before the first byte is written, and a layout that could not be written to its end
leaves nothing behind.
"""

import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.serving import ovms, triton
from optimizer_jobs.serving.base import Layout
from retune.contract.requests import Server
from retune.contract.results import Reason

_LAYOUTS: Mapping[Server, Callable[..., Layout]] = {Server.TRITON: triton.layout, Server.OVMS: ovms.layout}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Rendered:
    """What was written, and what was lost."""

    files: tuple[str, ...]
    """Paths in the folder that was asked for, sorted."""
    lost: tuple[str, ...]
    """What the bundle asks and the server cannot express, each as a sentence."""
    tried: str
    """What was tried of it here, or why nothing was, as a sentence."""


def render(bundle: Bundle, server: Server, *, name: str, into: Path, delivered: bool = False) -> Rendered:
    """Write a bundle's model and the configuration of a server into an empty folder.

    Args:
        bundle: A verified bundle.
        server: The server that will read the folder.
        name: Name that clients ask the model by, and name of its folder.
        into: Folder that is empty or does not exist yet.
        delivered: Whether it stands for a model as delivered, which is served as version 1 and under no digest.

    Raises:
        JobError: The server cannot serve this bundle, or name or folder cannot be used; nothing is written.
    """
    check_name(name)
    if into.exists() and (not into.is_dir() or any(into.iterdir())):
        raise JobError(
            Reason.REQUEST_INVALID, str(into), "this is not an empty folder.", "Name one that does not exist."
        )
    made = _LAYOUTS[server](bundle, name=name, delivered=delivered)
    _write(made.files, into)
    return Rendered(files=tuple(sorted(made.files)), lost=made.lost, tried=made.tried)


def check_name(name: str) -> None:
    """Refuse a name that a server or a folder cannot have; raises JobError."""
    if not _NAME.fullmatch(name):
        rule = "Begin with a letter or digit; then letters, digits, dots, underscores and hyphens, 128 at most."
        raise JobError(Reason.REQUEST_INVALID, repr(name), "this can be no model's name.", rule)


def _write(files: Mapping[str, bytes | Path], into: Path) -> None:
    existed = into.exists()
    try:
        for path, content in files.items():
            _place(into / path, content)
        _open_to_all(into, itself=not existed)
    except BaseException:
        _remove(into, itself=not existed)
        raise


def _place(target: Path, content: bytes | Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        target.write_bytes(content)
    else:
        shutil.copyfile(content, target)


def _open_to_all(into: Path, *, itself: bool) -> None:
    """Let everybody read: servers run as users of their own."""
    for path in [*into.rglob("*"), *([into] if itself else [])]:
        path.chmod(0o755 if path.is_dir() else 0o644)


def _remove(into: Path, *, itself: bool) -> None:
    for path in into.iterdir() if into.is_dir() else ():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if itself and into.is_dir():
        into.rmdir()
