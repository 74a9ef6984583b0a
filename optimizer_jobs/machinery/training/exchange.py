"""The worker's side of a training in a container of the user's own: files go over, files come back.

Everything that comes back is hostile: it is bounded, read as data, and checked like a delivered model by whoever uses
it. A trial that is given up, for whatever reason, is told so and waited for, so that the next one finds the container
free.
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
from retune.contract.training import CANCEL, ENVIRONMENT, EXCHANGE_VARIABLE, EXIT, LOG, READY, REQUEST

READY_SECONDS = 600.0
"""How long a container may take to stand by: its image is pulled beside the worker's."""
CANCEL_SECONDS = 30.0
METRICS_LIMIT = 4 << 20
"""Bytes of metrics that are read; a training that tells more is given up."""
LINE_LIMIT = 4096
LOG_TAIL = 600
"""Characters of a failed training's last words that are told."""
_POLL_SECONDS = 0.2

Alive = Callable[[], None]


class CustomTrainingError(Exception):
    """The training gave no model; the message is a sentence with its last words."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One training. `variables` are told as they are; `files` are variables that name files of the trial's folder."""

    variables: Mapping[str, str]
    files: Mapping[str, str]
    timeout: float
    report: Report | None = None
    """Takes epoch and quality, and raises to give the training up."""
    alive: Alive | None = None
    """Raises when there is no time left."""


def exchange() -> Path | None:
    """Return the folder that a training container beside this process shares with it, or None."""
    named = os.environ.get(EXCHANGE_VARIABLE)
    return Path(named) if named else None


def wait_until_ready(folder: Path, alive: Alive | None) -> None:
    """Wait for the container to stand by; raises CustomTrainingError when it does not."""
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
    """Have the container run its command in a trial's folder, to a good end.

    Raises:
        CustomTrainingError: It failed, took too long, or told metrics that are none.
        Exception: Whatever `work.report` or `work.alive` raise to give it up.
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
    beside = path.with_name(f".{path.name}")
    beside.write_text(text)
    beside.rename(path)


def _follow(trial: Path, work: Work) -> None:
    """Report every epoch until the command has ended."""
    deadline, metrics = time.monotonic() + work.timeout, Metrics(trial / "metrics.jsonl")
    while True:
        over = (trial / EXIT).exists()
        for epoch, quality in metrics.new():
            if work.report is not None:
                work.report(epoch, quality)
        if over:
            return
        if work.alive is not None:
            work.alive()
        if time.monotonic() > deadline:
            raise CustomTrainingError(f"the training took longer than {work.timeout:g} s{last_words(trial)}")
        time.sleep(_POLL_SECONDS)


def _cancel(trial: Path) -> None:
    (trial / CANCEL).touch()
    deadline = time.monotonic() + CANCEL_SECONDS
    while not (trial / EXIT).exists() and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)


class Metrics:
    """A file that grows by lines of JSON with `epoch` and `quality`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines = 0

    def new(self) -> Iterator[tuple[int, float]]:
        """Yield epoch and quality of every whole line since the last call; raises CustomTrainingError."""
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
            found = json.loads(line)
            epoch, quality = int(found["epoch"]), float(found["quality"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise self._unlike(line) from None
        if not (0 <= epoch < 1 << 31 and abs(quality) < 1e30):
            raise self._unlike(line)
        return epoch, quality

    def _unlike(self, line: bytes) -> CustomTrainingError:
        shown = printable(line.decode(errors="replace"), limit=80)
        return CustomTrainingError(
            f'line {self._lines} of the metrics is {shown}, not like {{"epoch": 1, "quality": 0.9}}'
        )


def open_regular(path: Path) -> BinaryIO:
    """Open a plain file for reading; raises FileNotFoundError where there is none, and never follows a link."""
    try:
        file = os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb")
    except OSError as error:
        raise FileNotFoundError(str(path)) from error
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise FileNotFoundError(str(path))
    return file


def take(source: Path, target: Path, *, limit: int) -> bool:
    """Copy a file that came back; returns False where there is none. Raises CustomTrainingError for one too large."""
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
    """Return the end of what a command printed, as the end of a sentence."""
    words = printable(_small(trial / LOG, limit=LOG_TAIL, tail=True).strip(), limit=LOG_TAIL)
    return f": ... {words}" if words else ""


def _small(path: Path, *, limit: int, tail: bool = False) -> str:
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - limit) if tail else 0)
            return file.read(limit).decode(errors="replace")
    except FileNotFoundError:
        return ""


def forget(trial: Path) -> None:
    """Remove a trial's folder; what cannot be removed is the container's own and goes with the pod."""
    shutil.rmtree(trial, ignore_errors=True)
