"""What the command `gather` reads: recent rows with labels, and the original data."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.production.labels import Known, match, read_labels
from optimizer_jobs.production.windows import Captured, Selection, read_window
from optimizer_jobs.signature import Signature
from retune.api.base import seconds
from retune.api.monitoring import Labels, Production
from retune.contract.requests import GatherRequest

Array = NDArray[Any]

LABELS_LIMIT = 2_000_000
"""Labels that are kept in memory."""


@dataclass(frozen=True)
class Labelled:
    """Recent rows whose labels are known."""

    rows: Captured
    labels: Array
    since: int
    """Begin of the span they are from, in seconds since 1970."""
    set_aside: Mapping[str, int]


@dataclass(frozen=True)
class Sources:
    """Where a run's data comes from."""

    request: GatherRequest
    champion: Bundle
    scratch: Path

    @property
    def signature(self) -> Signature:
        """What the model takes and answers."""
        return self.champion.manifest.signature

    @property
    def start(self) -> int:
        """Begin of the span that rows are taken from."""
        return max(0, self.request.until - int(seconds(self.request.refresh.span)))

    def known(self, labels: Labels) -> Known:
        """Return the labels of the span."""
        return read_labels(labels, since=float(self.start), into=self.scratch / "labels", limit=LABELS_LIMIT)

    def labelled(self, known: Known, *, max_rows: int) -> Labelled:
        """Return the rows with labels, whichever model answered them, at most `max_rows`.

        They are those since the live data changed, where that is known and they are enough to learn from and to judge
        by: split by time, older ones would be all there is to learn from.
        """
        changed = self.request.changed
        if changed is not None and self.start < changed < self.request.until:
            recent = self._labelled(known, changed, max_rows)
            if len(recent.rows) >= self.request.refresh.min_rows:
                return recent
        return self._labelled(known, self.start, max_rows)

    def _labelled(self, known: Known, since: int, max_rows: int) -> Labelled:
        captured = self._window(since, max_rows, request_ids=known.request_ids)
        sound, unsound = _sound(captured, missing=bool(self.champion.manifest.accepts_missing))
        rows, labels, set_aside = match(sound, known)
        extra = {"rows with missing or infinite values": unsound} if unsound else {}
        return Labelled(rows, labels, since, {**captured.set_aside, **set_aside, **extra})

    def original(self) -> Rows | None:
        """Return the original training data, if there is any."""
        manifest, data = self.champion.manifest, self.request.data.training
        if data is None:
            return None
        return read_dataset(
            data,
            manifest.signature,
            into=self.scratch / "original",
            task=manifest.task,
            missing=bool(manifest.accepts_missing),
        )

    def _window(self, start: int, max_rows: int, *, request_ids: frozenset[str]) -> Captured:
        production: Production = self.request.production
        until = self.request.until
        return read_window(
            production,
            self.signature,
            Selection(start=start, end=until, now=max(int(time.time()), until), request_ids=request_ids),
            max_rows=max_rows,
            into=self.scratch / "captured",
            seed=self.request.seed,
        )


def _sound(rows: Captured, *, missing: bool) -> tuple[Captured, int]:
    """Return the rows that a model can learn from, and how many it cannot."""
    good = np.ones(len(rows), dtype=np.bool_)
    for values in rows.inputs.values():
        if values.dtype.kind == "f":
            fit = ~np.isinf(values) if missing else np.isfinite(values)
            good &= fit.all(axis=tuple(range(1, fit.ndim)))
    return (rows, 0) if good.all() else (rows.take(good), int((~good).sum()))
