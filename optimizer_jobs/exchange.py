"""A Job's side of work in a container of the owner's own: both exchange files in one folder.

Everything that comes back may be hostile. It is bounded, read as data, and checked by whoever uses it. When a trial is
stopped, the container is told so and waited for, so that it is free for the next trial.
"""

import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from optimizer_jobs.errors import printable
from retune.contract.exchange import CANCEL, ENVIRONMENT, EXIT, LOG, READY, REQUEST

READY_SECONDS = 600.0
"""Seconds that a container may take to become ready; its image may have to be pulled first."""
CANCEL_SECONDS = 30.0
"""Seconds that a container gets to end a trial that is stopped."""
LOG_TAIL = 600
"""Characters of the end of a failed trial's output that messages show."""
_POLL_SECONDS = 0.2

Alive = Callable[[], object]
"""Raises when no time is left; what it returns does not matter here."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a container is asked to do once."""

    variables: Mapping[str, str]
    """Environment variables of the command."""
    files: Mapping[str, str]
    """Environment variables with paths, relative to the folder of the trial."""
    timeout: float
    """Seconds that it may take."""
    alive: Alive | None = None
    """Raises when there is no time left."""
    watch: Callable[[], object] | None = None
    """Called again and again while the command runs; it raises to stop it."""


def shared_folder(variable: str) -> Path | None:
    """Return the folder that an environment variable names, or None where no container stands by."""
    folder = os.environ.get(variable)
    return Path(folder) if folder else None


@dataclass(frozen=True)
class Beside:
    """A container of the owner's own that runs beside this process."""

    folder: Path
    """The folder that is shared with it."""
    work: str
    """What it does, such as `the training`."""
    fault: type[Exception]
    """What is raised, with a sentence, when it does not do it."""
    poll_seconds: float = field(default=_POLL_SECONDS, kw_only=True)
    """How often it is looked at."""
    lines: int | None = field(default=None, kw_only=True)
    """Lines of the end of its log that messages show; None: as many as fit."""

    def wait_until_ready(self, alive: Alive | None = None) -> None:
        """Wait until the container is ready.

        Raises:
            Exception: `fault` when it is not ready after READY_SECONDS, or whatever `alive` raises.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not (self.folder / READY).exists():
            if alive is not None:
                alive()
            if time.monotonic() > deadline:
                raise self.fault(f"the container of {self.work} did not stand by within {READY_SECONDS:g} s")
            time.sleep(self.poll_seconds)

    def new_trial(self) -> Path:
        """Return a new folder for one piece of work."""
        trial = self.folder / "trials" / uuid.uuid4().hex
        (trial / "output").mkdir(parents=True)
        return trial

    def do(self, trial: Path, work: Work) -> None:
        """Have the container run its command in the folder of a trial, and wait until it has succeeded.

        Raises:
            Exception: `fault` when the command failed or took too long, or whatever `work` raises to stop it.
        """
        _write(trial / ENVIRONMENT, _environment(trial, work))
        _write(self.folder / REQUEST, f"{trial.relative_to(self.folder)}\n")
        try:
            self._follow(trial, work)
        except BaseException:
            self._cancel(trial)
            raise
        code = _small(trial / EXIT, limit=16).strip()
        if code != "0":
            raise self.fault(f"{self.work} ended with exit code {printable(code, limit=16)}{self.last_words(trial)}")

    def _follow(self, trial: Path, work: Work) -> None:
        """Watch until the command has ended."""
        deadline = time.monotonic() + work.timeout
        while True:
            ended = (trial / EXIT).exists()  # looked at before what is watched, so that nothing is missed
            if work.watch is not None:
                work.watch()
            if ended:
                return
            if work.alive is not None:
                work.alive()
            if time.monotonic() > deadline:
                raise self.fault(f"{self.work} took longer than {work.timeout:g} s{self.last_words(trial)}")
            time.sleep(self.poll_seconds)

    def _cancel(self, trial: Path) -> None:
        """Tell the container to end the trial, and wait for it."""
        (trial / CANCEL).touch()
        deadline = time.monotonic() + CANCEL_SECONDS
        while not (trial / EXIT).exists() and time.monotonic() < deadline:
            time.sleep(self.poll_seconds)

    def last_words(self, trial: Path) -> str:
        """Return the end of the command's output, as the end of a sentence."""
        lines = [line for line in _small(trial / LOG, limit=LOG_TAIL, tail=True).splitlines() if line.strip()]
        words = printable(" ".join(lines[-self.lines :] if self.lines else lines), limit=LOG_TAIL)
        return f": ... {words}" if words else ""

    def take(self, source: Path, target: Path, *, limit: int) -> bool:
        """Copy a file that the container may have written; return whether it was there.

        Args:
            source: The file.
            target: The copy.
            limit: Bytes that the file may have.

        Raises:
            Exception: `fault` when the file is too large.
        """
        try:
            file = open_regular(source)
        except FileNotFoundError:
            return False
        with file, created(target) as copy:
            size = 0
            while chunk := file.read(1 << 20):
                size += len(chunk)
                if size > limit:
                    raise self.fault(f"{self.work} wrote {source.name} with more than {limit} bytes")
                copy.write(chunk)
        return True


def _environment(trial: Path, work: Work) -> str:
    files = {name: str(trial / path) for name, path in work.files.items()}
    return "".join(f"{name}={value}\n" for name, value in {**work.variables, **files}.items())


def _write(path: Path, text: str) -> None:
    """Write the file with one rename, so that the container never reads half of it."""
    hidden = path.with_name(f".{path.name}")
    with created(hidden) as file:
        file.write(text.encode())
    hidden.rename(path)


def created(path: Path) -> BinaryIO:
    """Open a new file for writing, in place of what was there: never what a link of the container's leads to."""
    path.unlink(missing_ok=True)
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644), "wb")


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading, without following a link.

    Raises:
        FileNotFoundError: There is no regular file.
    """
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise FileNotFoundError(str(path)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(str(path))
    return file


def _small(path: Path, *, limit: int, tail: bool = False) -> str:
    """Return the first or the last `limit` bytes of a file as text; nothing when there is no file."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit) if tail else 0)
            return file.read(limit).decode(errors="replace")
    except FileNotFoundError:
        return ""


def forget(trial: Path) -> None:
    """Remove the folder of a trial. Files that only the container may remove stay until the pod goes."""
    shutil.rmtree(trial, ignore_errors=True)


def on_one_line(value: object) -> str:
    """Return the value of a variable: a text as it is, anything else as JSON, on one line."""
    return " ".join((value if isinstance(value, str) else json.dumps(value)).splitlines())
