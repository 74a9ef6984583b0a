"""What a canary's answers show beside the champion's in the same time: the same users, the same hour, the same load.

Only what both intervals leave no doubt of counts, and only beyond a margin: two pods of one version differ too.
"""

import math
from dataclasses import replace

from retune.api.status import Version
from retune.plan.draft import Draft
from retune.plan.observed import Heard
from retune.plan.rollout.listening import ERRORS, Judgement, at_most, lower_bound
from retune.plan.watch.live_verdicts import SATURATED

ERROR_MARGIN = 0.01
"""By how much more of its requests a version may fail than the champion."""
SLOW_MARGIN = 0.1
"""By how much more of its requests a version may take longer than nearly all of the champion's."""
_USUAL = 0.95
"""Share of the champion's requests that its usual time holds for."""


def compare(draft: Draft, candidate: Version, *, last: bool) -> Judgement | None:
    """Return what a canary does worse than the champion beside it, beyond doubt; None where nothing shows that.

    A new pod's first requests are slow whatever it serves, so that slowness counts at the end of a weight only.

    Args:
        draft: The plan, with what the canary has answered as what was heard.
        candidate: The version of the canary.
        last: Whether the weight is about to be left.
    """
    heard, beside = draft.observed.heard, draft.observed.traffic.beside
    spec = draft.spec.monitoring.performance if draft.spec.monitoring else None
    least = (spec or ERRORS).min_requests
    if heard is None or beside is None or min(heard.requests or 0, beside.requests or 0) < least:
        return None
    worse = _fails_more(heard, beside) or (_is_slower(heard, beside) if last else None)
    return replace(worse, message=f"version {candidate.version}: {worse.message}") if worse else None


def _fails_more(heard: Heard, beside: Heard) -> Judgement | None:
    if heard.errors is None or beside.errors is None or heard.requests is None or beside.requests is None:
        return None
    if lower_bound(heard.errors, heard.requests) <= _upper_bound(beside.errors, beside.requests) + ERROR_MARGIN:
        return None
    message = (
        f"{heard.errors:.0f} of {heard.requests:.0f} requests failed, "
        f"{beside.errors:.0f} of {beside.requests:.0f} of the champion's in the same time"
    )
    return Judgement(message, "LiveErrors")


def _is_slower(heard: Heard, beside: Heard) -> Judgement | None:
    """Judge by the share of requests that took longer than nearly all of the champion's."""
    total, theirs = max(heard.buckets.values(), default=0.0), max(beside.buckets.values(), default=0.0)
    if not total or not theirs:
        return None
    usual = min(bound for bound, count in beside.buckets.items() if count >= _USUAL * theirs)
    slow, their_slow = total - at_most(usual, heard.buckets), theirs - at_most(usual, beside.buckets)
    if not math.isfinite(usual) or lower_bound(slow, total) <= _upper_bound(their_slow, theirs) + SLOW_MARGIN:
        return None
    is_saturated = heard.saturation is not None and heard.saturation >= SATURATED
    message = (
        f"{slow:.0f} of {total:.0f} requests took longer than {usual:.3g} s, "
        f"{their_slow:.0f} of {theirs:.0f} of the champion's in the same time"
    )
    excuse = f"{heard.saturation:.0%} of the CPU limit is in use" if is_saturated else None
    return Judgement(message, "LiveLatency", excuse)


def _upper_bound(bad: float, total: float) -> float:
    return 1 - lower_bound(total - bad, total)
