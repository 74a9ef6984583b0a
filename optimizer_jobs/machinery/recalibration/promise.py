"""Whether a correction keeps its promise on rows that it was not fitted on. Pure: no model, no file."""

from dataclasses import dataclass

import numpy as np

from optimizer_jobs.machinery.recalibration.corrections import SMALLEST, Columns, Evidence, Fit, Floats

PARTS = 5
"""Parts that rows are divided into; each is answered by what was fitted on the others."""


@dataclass(frozen=True)
class Promise:
    """Log loss of N rows, in nats a row, before and after a correction that was fitted on other rows."""

    before: float
    after: float
    error: float
    """Standard error of the difference, whole groups as evidence."""

    @property
    def is_kept(self) -> bool:
        """Whether log loss falls by more than one standard error."""
        return self.before - self.after > self.error

    @property
    def words(self) -> str:
        """Both numbers, such as `log loss 0.412 to 0.371 on rows left out`."""
        return f"log loss {self.before:.4g} to {self.after:.4g} on rows left out"


def promise(evidence: Evidence, fit: Fit, *, seed: int) -> Promise:
    """Return what a correction does to the log loss of rows that are left out in turn.

    Args:
        evidence: The rows.
        fit: Returns the correction that fits some of them.
        seed: Decides which rows are left out together.
    """
    parts = _parts(evidence.blocks, seed)
    after = np.empty(len(evidence))
    for part in range(PARTS):
        left_out = parts == part
        if left_out.any():
            correction = fit(evidence.take(~left_out))
            probabilities = correction.probabilities(evidence.logs[left_out])
            after[left_out] = losses(probabilities, evidence.columns[left_out])
    before = losses(_as_delivered(evidence.logs), evidence.columns)
    weights = evidence.weights / evidence.weights.sum()
    error = _error(before - after, weights, evidence.blocks)
    return Promise(float(weights @ before), float(weights @ after), error)


def losses(probabilities: Floats, columns: Columns) -> Floats:
    """Return the log loss (N,) of each row, in nats, as scikit-learn counts it."""
    of_true = probabilities[np.arange(len(columns)), columns]
    return np.asarray(-np.log(np.clip(of_true, SMALLEST, 1 - SMALLEST)))


def _as_delivered(logs: Floats) -> Floats:
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _parts(blocks: Columns, seed: int) -> Columns:
    """Return the part (N,) that each row is left out with; rows of one group are left out together."""
    names, places = np.unique(blocks, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(names))
    return np.asarray(order[places] % PARTS)


def _error(gains: Floats, weights: Floats, blocks: Columns) -> float:
    """Return the standard error of the weighted mean of gains (N,), of which those of one group go together."""
    apart = weights * (gains - weights @ gains)
    sums = np.bincount(np.unique(blocks, return_inverse=True)[1], weights=apart)
    return float(np.sqrt(np.square(sums).sum()))
