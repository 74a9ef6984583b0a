"""How much counts of bad answers prove, however often they are looked at: e-processes, and the chance that they err.

A trial is looked at every few seconds and stopped when something shows. Intervals for one look promise nothing then. An
e-process does: a number that begins at 1 and, as long as the null hypothesis is true, ever reaches 1/a with a chance of
at most a (Ville's inequality), at whatever requests it is looked at and whenever one stops. These here are functions of
the counts so far, so that nothing has to be remembered between looks.

- One stream against a limit: the likelihood of the counts, averaged over a beta distribution of the share, over their
  likelihood under the limit. Robbins (1970), Annals of Mathematical Statistics 41, 1397-1409; Howard, Ramdas, McAuliffe
  and Sekhon (2021), Annals of Statistics 49, 1055-1080: the beta-binomial mixture.
- Two streams and a margin: the product of both averages over the largest likelihood that two shares within the margin
  can have. For each such pair the ratio is a martingale in whatever order the streams' answers come, and the largest
  likelihood makes it the smallest of all: Wasserman, Ramdas and Balakrishnan (2020), PNAS 117, 16880-16890. Turner, Ly
  and Gruenwald (2024), Journal of Statistical Planning and Inference 230, 106116, need fewer requests, but blocks of a
  fixed ratio: a Service's share is none.

Assumed is that an answer is bad by the version's share whatever came before. Against a limit less will do: that the
chance never exceeds it, however it changes (only the part of the average above the limit counts then). Answers that
fail together, as in an outage, are no independent ones; that is why what both streams fail is compared at one share of
the requests and in one span of time. Nothing here reads a clock, a spec or a status but by its arguments.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist

from retune.api.rollout import Rollout

_SHAPE = 0.5
"""First parameter of the beta distributions: Jeffreys' near 0, where errors are."""
_MEANS = {0.05: 0.9, 0.5: 0.1}
"""Means of the two distributions that are averaged where no limit gives one, with their weights: one of rare bad
answers, by which few of them show with a fifth fewer requests than by Jeffreys' alone, and Jeffreys', by which a stream
that fails altogether shows at once."""
_HALVINGS = 40


@dataclass(frozen=True)
class Share:
    """Bad answers among all: what one stream has shown."""

    bad: float
    """At least 0 and at most the total."""
    total: float
    """At least 0."""

    @property
    def value(self) -> float:
        """The share itself; 0 where nothing was answered."""
        return self.bad / self.total if self.total else 0.0

    @property
    def good(self) -> float:
        """Answers that are not bad."""
        return self.total - self.bad


def chance(rollout: Rollout, signals: int) -> float:
    """Return the chance with which a single test of a rollout may deceive, so that all together keep the stated one.

    Counts begin anew for a share of a canary, when its pods are ready, and for the bake. Each time every signal and
    both comparisons may err.

    Args:
        rollout: Says how many shares there are, and how sure a verdict is to be.
        signals: Signals that are held against a limit.
    """
    steps = len(rollout.trial.steps) if rollout.is_tried else 0
    return (1 - float(rollout.analysis.confidence)) / ((2 * steps + 1) * (signals + 2))


def proves(evidence: float, chance: float) -> bool:
    """Whether evidence is as strong as a test that deceives with at most this chance, however often it is asked."""
    return evidence >= -math.log(chance)


def above_limit(share: Share, limit: float) -> float:
    """Return the evidence that a stream's share is larger than a limit: a logarithm, 0 where there is none.

    Args:
        share: What the stream has shown.
        limit: Share that is allowed, 0..1.
    """
    if share.value <= limit:
        return 0.0
    return max(0.0, _average(share, {limit: 1.0}) - _likelihood(share, limit)) if limit > 0 else math.inf


def above_other(share: Share, other: Share, margin: float) -> float:
    """Return the evidence that a stream's share exceeds another's by more than a margin: a logarithm, 0 where none is.

    With the streams exchanged and the margin's sign changed it is the evidence that it does not.

    Args:
        share: What the stream has shown.
        other: What the other one has shown.
        margin: Difference that is allowed, -1..1.
    """
    if not _exceeds(share, other, margin):
        return 0.0
    return max(0.0, _average(share, _MEANS) + _average(other, _MEANS) - _allowed(share, other, margin))


def seems_above(share: Share, other: Share, margin: float, chance: float) -> bool:
    """Whether one look, at a moment that was fixed before, shows a stream above another by more than a margin.

    The signed root of the likelihood ratio has nearly a normal distribution then (Wilks 1938, Annals of Mathematical
    Statistics 9, 60-62). It needs about half as many answers as `above_other`, and promises nothing for a second look.

    Args:
        share: What the stream has shown.
        other: What the other one has shown.
        margin: Difference that is allowed, -1..1.
        chance: With which the look may deceive.
    """
    if not _exceeds(share, other, margin):
        return False
    likeliest = _likelihood(share, share.value) + _likelihood(other, other.value)
    root = math.sqrt(2 * max(0.0, likeliest - _allowed(share, other, margin)))
    return root >= NormalDist().inv_cdf(1 - chance)


def _exceeds(share: Share, other: Share, margin: float) -> bool:
    return bool(share.total and other.total) and share.value > other.value + margin


def _allowed(share: Share, other: Share, margin: float) -> float:
    """Return the logarithm of the largest likelihood that two shares within the margin can have."""
    at_most = _closest(share, other, margin)
    return _likelihood(share, at_most + margin) + _likelihood(other, at_most)


def _closest(share: Share, other: Share, margin: float) -> float:
    """Return the other's share under which the counts are likeliest, if the stream's own is larger by the margin.

    The logarithm of their likelihood is concave, and its maximum lies between what the two streams show.
    """
    low, high = max(other.value, -margin), min(share.value - margin, 1.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _slope(other, middle) + _slope(share, middle + margin) > 0 else (low, middle)
    return (low + high) / 2


def _slope(share: Share, true_share: float) -> float:
    """Return the derivative of the likelihood's logarithm; infinite where the counts cannot be."""
    up = _over(share.bad, true_share)
    return up - _over(share.good, 1 - true_share)


def _over(count: float, true_share: float) -> float:
    if not count:
        return 0.0
    return count / true_share if true_share > 0 else math.inf


def _average(share: Share, means: Mapping[float, float]) -> float:
    """Return the logarithm of the likelihood, averaged over beta distributions of these means, by their weights."""
    logarithms = [
        math.log(weight) + _averaged_over(share, _SHAPE, max(_SHAPE / mean - _SHAPE, _SHAPE))
        for mean, weight in means.items()
    ]
    largest = max(logarithms)
    return largest + math.log(math.fsum(math.exp(logarithm - largest) for logarithm in logarithms))


def _averaged_over(share: Share, first: float, second: float) -> float:
    return _log_beta(first + share.bad, second + share.good) - _log_beta(first, second)


def _likelihood(share: Share, true_share: float) -> float:
    """Return the logarithm of the likelihood of the counts under a true share."""
    bad = share.bad * math.log(true_share) if share.bad and true_share > 0 else 0.0
    return bad + (share.good * math.log1p(-true_share) if share.good and true_share < 1 else 0.0)


def _log_beta(left: float, right: float) -> float:
    return math.lgamma(left) + math.lgamma(right) - math.lgamma(left + right)
