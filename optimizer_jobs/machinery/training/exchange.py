"""A search worker's side of a training in the owner's own container: what it hears of it while it runs."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from optimizer_jobs.errors import printable
from optimizer_jobs.exchange import Beside, Work, open_regular, shared_folder
from optimizer_jobs.technique import Report
from retune.contract.exchange import EXCHANGE_VARIABLE

METRICS = "metrics.jsonl"
"""File of a trial that the command appends its metrics to."""
METRICS_LIMIT = 4 << 20
"""Bytes of metrics that are read; a training that writes more is stopped."""
LINE_LIMIT = 4096
"""Bytes of a line of the metrics."""


class CustomTrainingError(Exception):
    """The training gave no model; the message says why, with the end of its output."""


def standing_by() -> Beside | None:
    """Return the training container beside this process, or None when there is none."""
    folder = shared_folder(EXCHANGE_VARIABLE)
    return None if folder is None else Beside(folder, "the training", CustomTrainingError)


def train(container: Beside, trial: Path, work: Work, report: Report | None) -> None:
    """Have the container train in the folder of a trial, and report every epoch until it has ended.

    Raises:
        CustomTrainingError: The command failed, took too long, or wrote metrics that cannot be read.
        Exception: Whatever `report` or `work.alive` raise to stop the training.
    """
    metrics = Metrics(trial / METRICS)

    def heard() -> None:
        for epoch, quality in metrics.new():
            if report is not None:
                report(epoch, quality)

    container.do(trial, replace(work, watch=heard))


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
