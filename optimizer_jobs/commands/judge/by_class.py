"""How two classifiers differ by class: a loss in one class may hide behind the mean over all."""

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest, false_discovery_control

from optimizer_jobs.commands.judge.evidence import ClassLoss
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.answers import Answers, correct
from retune.contract.requests import Document

Mask = NDArray[np.bool_]

TEXT_LIMIT = 200
MOST_CLASSES = 100
FALSE_DISCOVERIES = 0.1
"""Share of the named losses that may be chance."""


class ClassLine(Document):
    """One class's rows as both models answer them; a line of the report."""

    label: str
    rows: int
    champion: float
    """Share of the rows that the champion gets right."""
    candidate: float
    gained: int
    lost: int
    p_value: float
    """Exact test, adjusted for the number of classes (Benjamini and Hochberg)."""


def by_class(champion: Answers, candidate: Answers, rows: Rows) -> tuple[ClassLine, ...]:
    """Return both models' results on at most MOST_CLASSES classes, the most frequent ones; () without classes."""
    if champion.predictions is None or candidate.predictions is None or rows.labels is None:
        return ()
    before, after = correct(champion.predictions, rows), correct(candidate.predictions, rows)
    labels, counts = np.unique(rows.answers, return_counts=True)
    shown = labels[np.sort(np.argsort(-counts, kind="stable")[:MOST_CLASSES])]
    masks = [rows.answers == label for label in shown]
    flips = [(int((after & ~before & mask).sum()), int((before & ~after & mask).sum())) for mask in masks]
    p_values = false_discovery_control([_p_value(gained, lost) for gained, lost in flips])
    return tuple(
        ClassLine(
            label=printable(str(label), limit=TEXT_LIMIT),
            rows=int(mask.sum()),
            champion=float(before[mask].mean()),
            candidate=float(after[mask].mean()),
            gained=gained,
            lost=lost,
            p_value=float(p_value),
        )
        for label, mask, (gained, lost), p_value in zip(shown, masks, flips, p_values, strict=True)
    )


def losses(pairs: tuple[ClassLine, ...]) -> tuple[ClassLoss, ...]:
    """Return the classes that the candidate is proven to know less well, the largest loss first."""
    worse = [pair for pair in pairs if pair.lost > pair.gained and pair.p_value <= FALSE_DISCOVERIES]
    return tuple(
        ClassLoss(label=pair.label, rows=pair.rows, champion=pair.champion, candidate=pair.candidate)
        for pair in sorted(worse, key=lambda pair: pair.candidate - pair.champion)
    )


def _p_value(gained: int, lost: int) -> float:
    return float(binomtest(lost, gained + lost).pvalue) if gained + lost else 1.0
