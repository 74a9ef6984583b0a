"""What a version is worth: how many replicas the same traffic needs with it, and what they cost.

It is written when a version passes the gate, and once more when it becomes champion, by what the target wants in that
moment; never at rest. It is a proposal: no action of the plan changes replicas.
"""

import math
from fractions import Fraction

from retune.api.monitoring import LiveKind
from retune.api.quantities import finite, plain
from retune.api.status import Version
from retune.api.worth import Worth
from retune.contract.worth import JudgedWorth
from retune.plan.draft import Draft

HOURS_A_MONTH = 730
_DIGITS = 6
_MOST_REPLICAS = 2**31 - 1
_MOST_COST = 1e15


def note_accepted(draft: Draft, version: Version, judged: JudgedWorth | None) -> None:
    """Note what a version is worth that has just passed the gate; `judged` is what its judge said."""
    champion = draft.status.champion
    if judged is None or champion is None:
        return
    worth = Worth(
        version=version.version,
        compared_with=champion.version,
        limit_ms=_number(judged.limit_ms),
        limit_of=judged.limit_of,
        requests_before=_number(judged.before.value),
        requests_after=_number(judged.after.value),
        ratio=_number(judged.ratio.value),
        ratio_low=_number(judged.ratio.low),
        ratio_high=_number(judged.ratio.high),
    )
    _note(draft, _at_present(draft, worth))


def note_promoted(draft: Draft, version: Version) -> None:
    """Note anew what a version needs that has just become champion: its target may have been scaled since."""
    worth = next((entry for entry in draft.status.worth if entry.version == version.version), None)
    if worth is not None:
        _note(draft, _at_present(draft, worth))


def forget(draft: Draft) -> None:
    """Drop what is said of versions that neither serve nor wait, as after a rollback."""
    present = {version.version for version in (draft.status.champion, draft.status.candidate) if version}
    draft.update(worth=tuple(entry for entry in draft.status.worth if entry.version in present))


def _note(draft: Draft, worth: Worth) -> None:
    others = (entry for entry in draft.status.worth if entry.version != worth.version)
    draft.update(worth=(*others, worth))
    forget(draft)


def _at_present(draft: Draft, worth: Worth) -> Worth:
    """Return it with replicas, live requests and costs of this moment."""
    ends = (_fraction(number) for number in (worth.requests_before, worth.ratio_low, worth.ratio_high))
    before, low, high = ends
    target = draft.observed.target
    replicas = target.wanted if target is not None and target.wanted > 0 else None
    if before is None or low is None or high is None:
        return worth
    rate = _live_rate(draft)
    by_rate = _bounded(math.ceil(rate / (before * low))) if rate is not None else None
    needed = None if replicas is None else _bounded(_needed(replicas, low, high, by_rate=by_rate or 1))
    price, cores = Fraction(draft.spec.serving.price_per_cpu_hour), _cores(draft)
    month = None if cores is None else cores * price * HOURS_A_MONTH
    return worth.model_copy(
        update={
            "replicas": replicas,
            "replicas_needed": needed,
            "live_requests": None if rate is None else _number(float(rate)),
            "live_replicas": by_rate,
            "cores": None if cores is None else _number(float(cores)),
            "cost_before": _cost(month, replicas),
            "cost_needed": _cost(month, needed),
        }
    )


def _needed(replicas: int, low: Fraction, high: Fraction, *, by_rate: int) -> int:
    """Return the replicas that the traffic of `replicas` needs, by the lower end of the ratio.

    Where no difference was shown, as many as before; never one alone where there were several, so that one may fail.
    """
    same = replicas if low < 1 <= high else math.ceil(replicas / low)
    return max(same, by_rate, min(replicas, 2))


def _live_rate(draft: Draft) -> Fraction | None:
    """Return the requests a second of the last window that was judged; None where they are not watched or not known."""
    watched, monitoring = draft.status.monitoring, draft.spec.monitoring
    if watched is None or monitoring is None or monitoring.performance is None:
        return None
    names = {signal.name for signal in monitoring.performance.signals if signal.kind is LiveKind.THROUGHPUT}
    rates = (_fraction(signal.value) for signal in watched.signals if signal.name in names)
    return max((rate for rate in rates if rate is not None and rate > 0), default=None)


def _cores(draft: Draft) -> Fraction | None:
    """Return the cores of a replica, or None where nobody says how many it has."""
    cores = draft.cpu_limit or draft.spec.serving.cores
    return Fraction(cores).limit_denominator(1000) if cores else None


def _cost(month: Fraction | None, replicas: int | None) -> str | None:
    """Return the cost of replicas for a month; None where it is unknown, or no number that a status can hold."""
    if month is None or replicas is None or month * replicas > _MOST_COST:
        return None
    return _number(float(month * replicas))


def _bounded(replicas: int) -> int | None:
    """Return a number of replicas; None where no target could want as many."""
    return replicas if 0 < replicas <= _MOST_REPLICAS else None


def _number(value: float) -> str:
    return plain(value, digits=_DIGITS)


def _fraction(text: str | None) -> Fraction | None:
    """Return a number of the status exactly; None where it is none, or not above 0.

    As a float first: as a fraction, `1e999999999` would take gigabytes.
    """
    number = finite(text)
    return Fraction(text) if text and number is not None and 0 < number <= _MOST_COST else None
