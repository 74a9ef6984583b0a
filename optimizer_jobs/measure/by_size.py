"""A model's answers to the same rows in requests of each size that serves.

Most models answer a row alike, whatever rows are beside it. One that scales its numbers by the whole request does not:
8-bit layers with dynamic ranges are the usual case. Its quality must never be told from one size alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, alike, answer_as
from optimizer_jobs.measure.mix import Mix, usual_size
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.models.engine import Session

ROUNDING = 1e-4
"""What answers may differ by, relative to how far they spread over rows, because kernels add in another order."""


@dataclass(frozen=True)
class BySize:
    """Answers to N rows by the size of the requests."""

    usual: int
    """The most frequent size."""
    answers: Mapping[int, Answers]
    """Answers by size, the usual one first; without the sizes at which they are the same as at the usual one."""

    @property
    def usual_answers(self) -> Answers:
        """The answers in requests of the most frequent size."""
        return self.answers[self.usual]

    def at(self, size: int) -> Answers:
        """Return the answers in requests of `size` rows, one of the sizes that were asked."""
        return self.answers.get(size, self.usual_answers)

    def worst(self, goodness: Callable[[Answers], float]) -> Answers:
        """Return the answers with the least `goodness`."""
        every = list(self.answers.values())
        return min(every, key=goodness) if len(every) > 1 else every[0]


def answers_by_size(
    manifest: Manifest, session: Session, rows: Rows, mix: Mix, *, keep_outputs: bool = False
) -> BySize:
    """Return a model's answers to rows in requests of each size of a mix, with every output where they are to be kept.

    Raises:
        UnfitAnswersError: The outputs do not fit the task.
    """
    usual = usual_size(mix)
    asked = partial(answer_as, manifest, session, rows, keep_outputs=keep_outputs)
    answers = {usual: asked(batch=usual)}
    for size in (size for size, _ in mix if size != usual):
        other = asked(batch=size)
        if not _same(answers[usual], other):
            answers[size] = other
    return BySize(usual, answers)


def _same(usual: Answers, other: Answers) -> bool:
    """Return whether answers are the same but for rounding."""
    mine, theirs = _numbers(usual), _numbers(other)
    if mine is None or theirs is None:
        return bool((alike(usual, other) == 1).all())
    spread = np.maximum(mine.std(axis=0), np.abs(mine).max() * ROUNDING)
    return bool((np.abs(mine - theirs) <= ROUNDING * spread).all())


def _numbers(answers: Answers) -> NDArray[np.floating] | None:
    """Return scores or values (N, ...); None for labels alone."""
    return answers.values if answers.predictions is None else answers.predictions.scores
