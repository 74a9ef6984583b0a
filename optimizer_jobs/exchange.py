"""The worker's side of a training in the user's own container: both exchange files in one folder.

Everything that comes back may be hostile. It is bounded, read as data, and checked like a delivered model by whoever
uses it. When a trial is stopped, the container is told so and waited for, so that it is free for the next trial.
"""

import json
import os
import shutil
import stat
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from optimizer_jobs.errors import printable
from optimizer_jobs.technique import Report
from retune.contract.exchange import CANCEL, ENVIRONMENT, EXCHANGE_VARIABLE, EXIT, LOG, READY, REQUEST

READY_SECONDS = 600.0
"""Seconds that a container may take to become ready; its image may have to be pulled first."""
CANCEL_SECONDS = 30.0
"""Seconds that a container gets to end a training that is stopped."""
METRICS_LIMIT = 4 << 20
"""Bytes of metrics that are read; a training that writes more is stopped."""
LINE_LIMIT = 4096
"""Bytes of a line of the metrics."""
LOG_TAIL = 600
"""Characters of the end of a failed training's output that messages show."""
_POLL_SECONDS = 0.2

Alive = Callable[[], object]
"""Raises when no time is left; what it returns does not matter here."""


class CustomTrainingError(Exception):
    """The training gave no model; the message says why, with the end of its output."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training."""

    variables: Mapping[str, str]
    """Environment variables of the command."""
    files: Mapping[str, str]
    """Environment variables with paths, relative to the folder of the trial."""
    timeout: float
    """Seconds that it may take."""
    report: Report | None = None
    """Called with epoch and quality; it raises to stop the training."""
    alive: Alive | None = None
    """Raises when there is no time left."""


def exchange() -> Path | None:
    """Return the folder that this process shares with a training container, or None when there is no container."""
    folder = os.environ.get(EXCHANGE_VARIABLE)
    return Path(folder) if folder else None


def wait_until_ready(folder: Path, alive: Alive | None) -> None:
    """Wait until the container is ready.

    Raises:
        CustomTrainingError: It is not ready after READY_SECONDS.
        Exception: Whatever `alive` raises when there is no time left.
    """
    deadline = time.monotonic() + READY_SECONDS
    while not (folder / READY).exists():
        if alive is not None:
            alive()
        if time.monotonic() > deadline:
            raise CustomTrainingError(f"the training container did not stand by within {READY_SECONDS:g} s")
        time.sleep(_POLL_SECONDS)


def new_trial(folder: Path) -> Path:
    """Return a new folder for one training."""
    trial = folder / "trials" / uuid.uuid4().hex
    (trial / "output").mkdir(parents=True)
    return trial


def train(folder: Path, trial: Path, work: Work) -> None:
    """Have the container run its command in the folder of a trial, and wait until it has succeeded.

    Args:
        folder: The folder that is shared with the container.
        trial: The folder of this trial, from `new_trial`.
        work: What to run.

    Raises:
        CustomTrainingError: The command failed, took too long, or wrote metrics that cannot be read.
        Exception: Whatever `work.report` or `work.alive` raise to stop the training.
    """
    _write(trial / ENVIRONMENT, _environment(trial, work))
    _write(folder / REQUEST, f"{trial.relative_to(folder)}\n")
    try:
        _follow(trial, work)
    except BaseException:
        _cancel(trial)
        raise
    code = _small(trial / EXIT, limit=16).strip()
    if code != "0":
        raise CustomTrainingError(f"the training ended with exit code {code}{last_words(trial)}")


def _environment(trial: Path, work: Work) -> str:
    files = {name: str(trial / path) for name, path in work.files.items()}
    return "".join(f"{name}={value}\n" for name, value in {**work.variables, **files}.items())


def _write(path: Path, text: str) -> None:
    """Write the file with one rename, so that the container never reads half of it."""
    hidden = path.with_name(f".{path.name}")
    hidden.write_text(text)
    hidden.rename(path)


def _follow(trial: Path, work: Work) -> None:
    """Report every epoch until the command has ended."""
    deadline, metrics = time.monotonic() + work.timeout, Metrics(trial / "metrics.jsonl")
    while True:
        ended = (trial / EXIT).exists()  # looked at before the metrics, so that none are missed
        for epoch, quality in metrics.new():
            if work.report is not None:
                work.report(epoch, quality)
        if ended:
            return
        if work.alive is not None:
            work.alive()
        if time.monotonic() > deadline:
            raise CustomTrainingError(f"the training took longer than {work.timeout:g} s{last_words(trial)}")
        time.sleep(_POLL_SECONDS)


def _cancel(trial: Path) -> None:
    """Tell the container to end the training, and wait for it."""
    (trial / CANCEL).touch()
    deadline = time.monotonic() + CANCEL_SECONDS
    while not (trial / EXIT).exists() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


class Metrics:
    """A growing file of metrics. Each line is JSON with `epoch` and `quality`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines = 0

    def new(self) -> Iterator[tuple[int, float]]:
        """Yield epoch and quality of every complete line since the last call.

        Raises:
            CustomTrainingError: A line is something else, or the file is too large.
        """
        for line in self._new_lines():
            self._lines += 1
            yield self._parsed(line)

    def _new_lines(self) -> list[bytes]:
        try:
            with open_regular(self._path) as file:
                file.seek(self._read)
                text = file.read(METRICS_LIMIT + 1 - self._read)
        except FileNotFoundError:
            return []
        whole, _, rest = text.rpartition(b"\n")
        self._read += len(text) - len(rest)
        if self._read > METRICS_LIMIT or len(rest) > LINE_LIMIT:
            raise CustomTrainingError(f"the metrics have more than {METRICS_LIMIT} bytes, or a line of {LINE_LIMIT}")
        return whole.splitlines()

    def _parsed(self, line: bytes) -> tuple[int, float]:
        try:
            metrics = json.loads(line)
            epoch, quality = int(metrics["epoch"]), float(metrics["quality"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise self._unreadable(line) from None
        if not (0 <= epoch < 1 << 31 and abs(quality) < 1e30):
            raise self._unreadable(line)
        return epoch, quality

    def _unreadable(self, line: bytes) -> CustomTrainingError:
        shown = printable(line.decode(errors="replace"), limit=80)
        return CustomTrainingError(
            f'line {self._lines} of the metrics is {shown}, not like {{"epoch": 1, "quality": 0.9}}'
        )


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


def take(source: Path, target: Path, *, limit: int) -> bool:
    """Copy a file that the container may have written; return whether it was there.

    Args:
        source: The file.
        target: The copy.
        limit: Bytes that the file may have.

    Raises:
        CustomTrainingError: The file is too large.
    """
    try:
        file = open_regular(source)
    except FileNotFoundError:
        return False
    with file, target.open("wb") as copy:
        size = 0
        while chunk := file.read(1 << 20):
            size += len(chunk)
            if size > limit:
                raise CustomTrainingError(f"the training wrote {source.name} with more than {limit} bytes")
            copy.write(chunk)
    return True


def last_words(trial: Path) -> str:
    """Return the end of the command's output, as the end of a sentence."""
    words = printable(_small(trial / LOG, limit=LOG_TAIL, tail=True).strip(), limit=LOG_TAIL)
    return f": ... {words}" if words else ""


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
