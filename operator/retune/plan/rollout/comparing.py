"""What a canary's answers show beside the champion's in the same time: the same users, the same hour, the same load.

Only what is proven counts, however often it is looked at, and only beyond a margin: two pods of one version differ too.
Whether nothing was shown, or that there is nothing, are two different things to say.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from retune.api.status import Version
from retune.plan.draft import Draft
from retune.plan.observed import Heard
from retune.plan.rollout.blame import PLACED
from retune.plan.rollout.evidence import Share, above_other, proves, seems_above
from retune.plan.rollout.listening import (
    BY_CLIENT,
    ERRORS,
    REFUSED,
    Judgement,
    chance_of,
    share_of_errors,
    share_refused,
    slower_than,
)
from retune.plan.watch.live_verdicts import SATURATED

_USUAL = 0.95
"""Share of the champion's requests that its usual time holds for."""
_BY_CHANCE = "so few requests may show that by chance"
_LEAST_USUAL = 1000.0
"""Requests by which it is known."""


class Verdict(StrEnum):
    """What a comparison has come to."""

    WORSE = "Worse"
    """Failure: proved worse by more than the margin."""
    NOT_WORSE = "NotWorse"
    """Success: proved not worse by more than the margin."""
    OPEN = "Open"
    """Inconclusive: neither is proved, or too few requests came."""
    UNREAD = "Unread"
    """Error: nothing could be read that might be compared."""


@dataclass(frozen=True)
class Comparison:
    """What one number of the canary shows beside the champion's."""

    reason: str
    """Why a rollout is turned back for it, as one word."""
    verdict: Verdict
    words: str
    """What was compared."""
    conclusion: str = ""
    """What that has come to."""
    seems_worse: bool = False
    """Whether one look shows it worse by more than the margin, which is no proof where one looks often."""
    excuse: str | None = None
    """Why that is not held against the version; None where it is."""

    @property
    def sentence(self) -> str:
        """What was compared, and what that has come to."""
        return f"{self.words}{self.conclusion}"


def compare(draft: Draft, candidate: Version, *, settled: bool, last: bool) -> Judgement | None:
    """Return what a canary does worse than the champion beside it; None where nothing shows that.

    What is proved counts at once. When the weight is about to be left, which is one look, what seems worse is a doubt.

    Args:
        draft: The plan, with what the canary has answered at this weight as what was heard.
        candidate: The version of the canary.
        settled: Whether the weight was held for its time: a new pod's first requests are slow whatever it serves, so
            that slowness counts from then on.
        last: Whether the weight is about to be left.
    """
    for comparison in (errors(draft), refusals(draft), *((latency(draft),) if settled else ())):
        message = f"version {candidate.version}: {comparison.sentence}"
        if comparison.verdict is Verdict.WORSE:
            return Judgement(message, comparison.reason, comparison.excuse)
        if last and comparison.seems_worse:
            return Judgement(message, comparison.reason, comparison.excuse or _BY_CHANCE)
    return None


def errors(draft: Draft) -> Comparison:
    """Compare the shares of requests that failed."""
    heard, beside = draft.observed.heard or Heard(), draft.observed.traffic.beside or Heard()
    ours, theirs = share_of_errors(heard), share_of_errors(beside)
    if ours is None or theirs is None:
        return Comparison("LiveErrors", Verdict.UNREAD, f"errors were not compared: {_unread(heard, beside)}")
    words = f"{ours.bad:.0f} of {ours.total:.0f} requests failed, {_of_champion(theirs)}"
    return _compared(draft, "LiveErrors", words, (ours, theirs), float(draft.spec.rollout.analysis.error_margin))


def refusals(draft: Draft) -> Comparison:
    """Compare the shares of requests that were refused: some servers say so where the model has failed."""
    ours, theirs = (share_refused(side or Heard()) for side in (draft.observed.heard, draft.observed.traffic.beside))
    if ours is None or theirs is None:
        return Comparison("LiveErrors", Verdict.UNREAD, "refusals were not compared")
    counted = f"{ours.bad:.0f} of {ours.total:.0f} requests were refused ({REFUSED})"
    margin = float(draft.spec.rollout.analysis.error_margin)
    compared = _compared(draft, "LiveErrors", f"{counted}, {_of_champion(theirs)}", (ours, theirs), margin)
    return replace(compared, excuse=BY_CLIENT)


def latency(draft: Draft) -> Comparison:
    """Compare the shares of requests that took longer than nearly all of the champion's."""
    heard, beside = draft.observed.heard or Heard(), draft.observed.traffic.beside or Heard()
    if not all(max(side.buckets.values(), default=0.0) for side in (heard, beside)):
        return _not_compared(_unread(heard, beside, "the pods tell no histogram"))
    usual, hypotheses = _usual(draft, beside)
    if not math.isfinite(usual):
        return _not_compared("most of the champion's requests take longer than the histogram's largest bound")
    if usual not in heard.buckets:
        return _not_compared(f"the version's histogram has no bound of {usual:.3g} s, as the champion's has")
    pair = slower_than(usual, heard.buckets), slower_than(usual, beside.buckets)
    words = f"{pair[0].bad:.0f} of {pair[0].total:.0f} requests took longer than {usual:.3g} s, {_of_champion(pair[1])}"
    margin = float(draft.spec.rollout.analysis.slow_margin)
    compared = _compared(draft, "LiveLatency", words, pair, margin, hypotheses=hypotheses)
    is_saturated = heard.saturation is not None and heard.saturation >= SATURATED
    return replace(compared, excuse=f"{heard.saturation:.0%} of the CPU limit is in use" if is_saturated else PLACED)


def _usual(draft: Draft, beside: Heard) -> tuple[float, int]:
    """Return the champion's usual time, and how many hypotheses it is chosen from.

    Where it is known from before, it is one. Chosen by what is compared itself it is any bound of the histogram, among
    which the chance to err is shared.
    """
    known = draft.observed.traffic.usual_seconds
    if known is not None and known in beside.buckets:
        return known, 1
    return _longest_usual(beside.buckets), len(beside.buckets)


def usual_seconds(heard: Heard) -> float | None:
    """Return how long nearly all requests took at most, as a bound of the histogram; None where too few tell."""
    is_known = max(heard.buckets.values(), default=0.0) >= _LEAST_USUAL
    return _longest_usual(heard.buckets) if is_known else None


def _longest_usual(buckets: Mapping[float, float]) -> float:
    total = max(buckets.values())
    return min(bound for bound, count in buckets.items() if count >= _USUAL * total)


def _not_compared(why: str) -> Comparison:
    return Comparison("LiveLatency", Verdict.UNREAD, f"latency was not compared: {why}")


def _of_champion(share: Share) -> str:
    return f"{share.bad:.0f} of {share.total:.0f} of the champion's in the same time"


def _unread(heard: Heard, beside: Heard, otherwise: str = "the pods count no requests with a status") -> str:
    return heard.trouble or beside.trouble or otherwise


def _compared(
    draft: Draft, reason: str, words: str, pair: tuple[Share, Share], margin: float, *, hypotheses: int = 1
) -> Comparison:
    """Judge a pair of shares, the canary's and the champion's, with as many hypotheses as share the chance to err."""
    spec = draft.spec.monitoring.performance if draft.spec.monitoring else None
    least, chance = (spec or ERRORS).min_requests, chance_of(draft) / hypotheses
    ours, theirs = pair
    if min(ours.total, theirs.total) < least:
        return Comparison(reason, Verdict.OPEN, words, f": too few to compare, {least} of both are needed")
    beyond = f"by more than {100 * margin:.3g} % of all requests"
    if proves(above_other(ours, theirs, margin), chance):
        return Comparison(reason, Verdict.WORSE, words, f": proved worse {beyond}")
    if proves(above_other(theirs, ours, -margin), chance):
        return Comparison(reason, Verdict.NOT_WORSE, words, f": proved not worse {beyond}")
    if seems_above(ours, theirs, margin, chance):
        return Comparison(reason, Verdict.OPEN, words, f": seems worse {beyond}, which is not proved", seems_worse=True)
    return Comparison(reason, Verdict.OPEN, words, ": not shown to be worse, nor proved not to be")
