"""The sources of a run's data: recent production rows with labels, and the original training data."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.production.labels import Known, Truth, match, read_labels
from optimizer_jobs.production.windows import Captured, Selection, read_window
from optimizer_jobs.signature import Signature
from retune.api.base import seconds
from retune.api.model import Dataset
from retune.api.production import Labels, Production
from retune.contract.requests import GatherRequest

_LINEAR = frozenset({"LinearClassifier", "LinearRegressor"})
_OTHERS = frozenset(
    {"TreeEnsemble", "TreeEnsembleClassifier", "TreeEnsembleRegressor", "SVMClassifier", "SVMRegressor"}
)
"""Operators that are a whole model, linear or not."""
LABELS_LIMIT = 2_000_000
"""Most labels that are kept in memory."""


@dataclass(frozen=True)
class Labelled:
    """N recent rows with labels."""

    rows: Captured
    truth: Truth
    """What is known of them."""
    since: int
    """Start of the span that they are from, in seconds since 1970."""
    set_aside: Mapping[str, int]
    """How many rows, labels or files were not used, by reason."""


@dataclass(frozen=True)
class Sources:
    """The sources of a run's data."""

    request: GatherRequest
    champion: Bundle
    scratch: Path
    """Folder for private copies."""

    @property
    def signature(self) -> Signature:
        """Inputs and outputs of the model."""
        return self.champion.manifest.signature

    @property
    def start(self) -> int:
        """Start of the span that rows are taken from, in seconds since 1970."""
        return max(0, self.request.until - int(seconds(self.request.refresh.span)))

    @property
    def is_linear(self) -> bool:
        """Whether the champion is a linear model."""
        kinds = {node.op_type for node in onnx.load(self.champion.model, load_external_data=False).graph.node}
        return bool(kinds & _LINEAR) and not kinds & _OTHERS

    def known(self, labels: Labels) -> Known:
        """Return the labels of the span, and of all rows since the live data changed."""
        changed = self.request.changed
        first = self.start if changed is None else min(self.start, changed)
        return read_labels(labels, since=float(first), into=self.scratch / "labels", limit=LABELS_LIMIT)

    def labelled(self, known: Known, *, max_rows: int) -> Labelled:
        """Return at most `max_rows` rows with labels, whichever model answered them.

        If it is known when the live data changed, and there are enough rows since then, only these are used, and all of
        them: a signal that takes windows of days to be raised would else be learned from its last days alone. The split
        is by time, so with rows from before the training split would contain no row from after the change.
        """
        changed = self.request.changed
        if changed is not None and changed < self.request.until:
            recent = self._labelled(known, changed, max_rows)
            if len(recent.rows) >= self.request.refresh.min_rows:
                return recent
        return self._labelled(known, self.start, max_rows)

    def _labelled(self, known: Known, since: int, max_rows: int) -> Labelled:
        captured = self._window(since, max_rows, request_ids=known.request_ids)
        sound, unsound = _sound(captured, missing=bool(self.champion.manifest.accepts_missing))
        rows, truth, set_aside = match(sound, known)
        extra = {"rows with missing or infinite values": unsound} if unsound else {}
        return Labelled(rows, truth, since, {**captured.set_aside, **set_aside, **extra})

    def original(self) -> Rows | None:
        """Return the original training data, or None when there is none."""
        data = self.request.data.training
        return None if data is None else self.read(data, into=self.scratch / "original")

    def read(self, data: Dataset, *, into: Path) -> Rows:
        """Read a data set for the model; `into` is a folder for a private copy. Raises JobError as `read_dataset`."""
        manifest = self.champion.manifest
        missing = bool(manifest.accepts_missing)
        return read_dataset(data, manifest.signature, into=into, task=manifest.task, missing=missing)

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
    """Return the rows without infinite values (and without missing ones unless `missing`), and how many others."""
    sound = np.ones(len(rows), dtype=np.bool_)
    for values in rows.inputs.values():
        if values.dtype.kind == "f":
            usable = ~np.isinf(values) if missing else np.isfinite(values)
            sound &= usable.all(axis=tuple(range(1, usable.ndim)))
    return (rows, 0) if sound.all() else (rows.take(sound), int((~sound).sum()))
