"""Run a model on a few rows through everything that later stages do with it, in seconds.

`retune init` and the baseline call this one function, so whatever is refused is refused in the same words, and before
hours are spent. It changes nothing and measures nothing.
"""

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.quantization import unreadable
from optimizer_jobs.machinery.formats.delivery import Opened
from optimizer_jobs.measure.answers import answer
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.engine import EngineError, EngineOptions, Session
from optimizer_jobs.models.golden import record, replay
from optimizer_jobs.models.layout import ask
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.preflight.refusal import cannot_run, stage
from optimizer_jobs.technique import Subject
from optimizer_jobs.techniques.registry import TECHNIQUES, unavailable
from retune.api.model import Task
from retune.api.techniques import Technique, TechniqueType

FEW = 16
"""Rows that a rehearsal asks, spread over all."""


def rehearse(opened: Opened, splits: Mapping[str, Rows], *, uri: str, task: Task, sizes: Sequence[int] = (1,)) -> None:
    """Open the model, ask it single rows and requests as they serve, find its answers, and record golden requests.

    Args:
        opened: The model as delivered.
        splits: Rows that it takes, by split; those that later stages use are preferred.
        uri: Name by which people know it.
        task: What it does.
        sizes: Rows of the requests that serve.

    Raises:
        JobError: ModelInvalid, with the first stage that fails and why.
    """
    rows = _preferred(splits, "test", "validation")
    few = _spread(rows)
    try:
        with stage("opening it"):
            session = open_model(opened.model, EngineOptions(spinning=False))
        for size in _sizes(opened, few, sizes):
            with stage(f"a request of {size} row{'s' if size > 1 else ''}"):
                ask(session, few.take(np.arange(size) % len(few)).inputs)
        with stage("finding its answers"):
            reading = opened.signature.reading
            answer(session, few, task=task, classes=opened.classes or None, reading=reading, batch=FEW)
        with stage("recording golden requests"):
            _replay(session, _preferred(splits, "validation", "test"), sizes)
    except (EngineError, UnfitAnswersError) as error:
        raise cannot_run(error, uri=uri, task=task) from error


def techniques(opened: Opened, splits: Mapping[str, Rows], *, task: Task) -> dict[TechniqueType, str | None]:
    """Return by technique why it cannot be used, as words without a full stop, or None when it can.

    Args:
        opened: The model as delivered.
        splits: Rows by split; where there is no training split, validation rows do not stand in for it.
        task: What the model does.
    """
    subject = Subject(
        graph=onnx.load(opened.model, load_external_data=False),
        signature=opened.signature,
        task=task,
        native=opened.native,
        training="training" in splits,
        calibration=bool({"training", "calibration"} & splits.keys()),
        cpu_flags=frozenset(fingerprint().features),
    )
    reasons = {kind: unavailable(subject, Technique(name="step", type=kind)) for kind in TECHNIQUES}
    if reasons[TechniqueType.QUANTIZATION] is None:
        with tempfile.TemporaryDirectory(prefix="preflight-") as scratch:
            reasons[TechniqueType.QUANTIZATION] = unreadable(opened.model, into=Path(scratch))
    return reasons


def _preferred(splits: Mapping[str, Rows], *names: str) -> Rows:
    """Return the first of these splits that is there, else any."""
    return next((splits[name] for name in names if name in splits), next(iter(splits.values())))


def _spread(rows: Rows) -> Rows:
    return rows.take(np.unique(np.linspace(0, len(rows) - 1, num=min(FEW, len(rows))).astype(int)))


def _sizes(opened: Opened, rows: Rows, served: Sequence[int]) -> tuple[int, ...]:
    """Return the sizes to try: that which the model fixes, or one row, those that serve, and several rows.

    Several rows are left out where rows are asked one by one.
    """
    fixed, reading = opened.signature.batch, opened.signature.reading
    if fixed:
        return (fixed,)
    several = () if reading and reading.singly else (len(rows),)
    return tuple(sorted({1, *served, *several}))


def _replay(session: Session, rows: Rows, sizes: Sequence[int]) -> None:
    """Record golden requests, ask them again as a server would, and compare; raises EngineError when answers differ."""
    golden = record(session, rows, sizes=sizes)
    for request in golden.requests:
        reason = replay(session, request, golden=golden)
        if reason is not None:
            raise EngineError(f"the same request is answered differently a second time: {reason}")
