"""Quality of every version on the test rows, and latency of all of them in the same rounds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.measure.latency import Effort, interleave_until, ratio
from optimizer_jobs.measure.mix import only
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.engine import Session
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.signature import Signature
from retune.api.model import Dataset, Task
from tests.bench.optimizer.peers import Made
from tests.bench.optimizer.subjects import Subject

Floats = NDArray[np.float64]
REFERENCE = "ONNX Runtime, float32"
"""The model as delivered: what everything is a ratio to."""
EFFORT = Effort(max_seconds=60.0, half_width=0.02)
_BATCH = 64
_ALIKE = 1.05
"""Files whose sizes differ by less are of one size."""


@dataclass(frozen=True)
class Line:
    """One version of one model."""

    name: str
    quality: Mapping[str, float]
    ratios: Sequence[Interval]
    """p95 latency divided by the reference's, for each shape of requests."""
    size_ratio: float
    seconds: float | None
    note: str = ""


def beside_mark(lines: Sequence[Line], mark: str, *, ours: Sequence[str]) -> list[str]:
    """Return a sentence for each version of ours: found is no slower and no larger than the mark, beaten is faster.

    Intervals that overlap are no difference; a mark that could not be made leaves nothing to say.
    """
    by_name = {line.name: line for line in lines if line.ratios}
    if mark not in by_name:
        return []
    return [f"{name}: {_standing(by_name[name], by_name[mark])} {mark}" for name in ours if name in by_name]


def _standing(mine: Line, mark: Line) -> str:
    pairs = list(zip(mine.ratios, mark.ratios, strict=True))
    larger = mine.size_ratio > _ALIKE * mark.size_ratio
    if larger or any(own.low > theirs.high for own, theirs in pairs):
        return "behind"
    return "beats" if any(own.high < theirs.low for own, theirs in pairs) else "as good as"


def read(subject: Subject, split: str, signature: Signature, *, into: Path) -> Rows:
    """Return one data set of a subject."""
    return read_dataset(
        Dataset(uri=f"pvc://{subject.name}/{split}.npz"), signature, into=into / split, task=subject.task
    )


def race(
    subject: Subject, versions: Mapping[str, Made], *, signature: Signature, scratch: Path
) -> dict[str, tuple[Mapping[str, float], list[Interval]]]:
    """Return quality and latency ratios of every version, the reference among them."""
    sessions = {name: open_model(made.model, made.engine) for name, made in versions.items()}
    rows = read(subject, "test", signature, into=scratch)
    answers = {name: _answers(session, rows) for name, session in sessions.items()}
    ratios: dict[str, list[Interval]] = {name: [] for name in sessions}
    for batch, split in subject.shapes:
        timings = interleave_until(
            sessions,
            read(subject, split, signature, into=scratch),
            reference=REFERENCE,
            quantiles=(0.95,),
            confidence=0.95,
            seed=0,
            mix=only(batch),
            effort=EFFORT,
        )
        for name in sessions:
            ratios[name].append(ratio(timings[REFERENCE], timings[name], 0.95))
    return {name: (_quality(subject, found, answers[REFERENCE], rows), ratios[name]) for name, found in answers.items()}


def _answers(session: Session, rows: Rows) -> Floats:
    """Return (N, ...) of the one float output: scores or vectors."""
    name = next(spec.name for spec in session.signature.outputs if spec.is_float)
    some = next(iter(rows.inputs.values()))
    parts = [
        session.run({key: values[at : at + _BATCH] for key, values in rows.inputs.items()})[name]
        for at in range(0, len(some), _BATCH)
    ]
    return np.concatenate(parts).astype(np.float64)


def _quality(subject: Subject, found: Floats, reference: Floats, rows: Rows) -> dict[str, float]:
    if subject.task is Task.EMBEDDING:
        return {"cosine": float(_cosine(found, reference).mean()), "nn-1": float(_same_neighbor(found, reference))}
    return {"accuracy": float((found.argmax(axis=1) == rows.labels).mean())}


def _cosine(one: Floats, other: Floats) -> Floats:
    lengths = np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1)
    return np.asarray((one * other).sum(axis=1) / lengths)


def _same_neighbor(one: Floats, other: Floats) -> float:
    return float(np.mean(_neighbor(one) == _neighbor(other)))


def _neighbor(vectors: Floats) -> NDArray[np.int64]:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    return np.asarray(alike.argmax(axis=1))
