"""The result of a check: the verdict of a signal that is not known, and the whole result cut to its largest size.

A result must fit a termination message; the least important details are left out first.
"""

from collections.abc import Iterator

from optimizer_jobs.errors import printable
from retune.api.watched import Verdict
from retune.contract.results import CheckResult, SignalVerdict, encode_result

MESSAGE_LIMIT = 1000
"""Most characters of a verdict's message."""
NOT_MEASURABLE = "NotMeasurable"
"""Labels are there, and say nothing of the metric; an estimate of another one would hide that."""
_SIZES = ((16, 8, 240, 700, 8), (10, 6, 180, 500, 6), (6, 4, 120, 320, 4), (3, 2, 100, 200, 3), (0, 0, 0, 120, 2))
"""Number of columns, number of violations, characters of a violation, characters of a message, number of segments.

They are tried in this order. A few segments always stay: without their names, none could be bad twice in a row.
"""


def unknown(reason: str, message: str, *, samples: int = 0) -> SignalVerdict:
    """Return the verdict Unknown on a signal; `samples` is the number of rows in the window."""
    text = printable(message, limit=MESSAGE_LIMIT)
    return SignalVerdict(verdict=Verdict.UNKNOWN, reason=reason, message=text, samples=samples)


def untrusted(reason: str, message: str, *, samples: int = 0) -> SignalVerdict:
    """Return the verdict Untrusted on a signal, as `unknown` does: there are rows, and they are none to judge by."""
    return unknown(reason, message, samples=samples).model_copy(update={"verdict": Verdict.UNTRUSTED})


def fitted(result: CheckResult) -> CheckResult:
    """Return the result with as many details as fit; raises ValueError when even the verdicts alone do not fit."""
    for shorter in _shortened(result):
        try:
            encode_result(shorter)
        except ValueError:
            continue
        return shorter
    raise ValueError("the check's result does not fit a termination message")


def _shortened(result: CheckResult) -> Iterator[CheckResult]:
    yield result
    for columns, violations, letters, message, segments in _SIZES:
        yield result.model_copy(
            update={
                "columns": result.columns[:columns],
                "violations": tuple(printable(words, limit=letters) for words in result.violations[:violations]),
                "drift": _cut(result.drift, message),
                "quality": _cut(result.quality, message),
                "headroom": _cut(result.headroom, message),
                "segment": _cut(result.segment, message),
                "segments": result.segments[:segments],
            }
        )


def _cut(verdict: SignalVerdict | None, limit: int) -> SignalVerdict | None:
    if verdict is None:
        return None
    outside = verdict.outside if limit > _SIZES[-1][-1] else None
    return verdict.model_copy(update={"message": printable(verdict.message, limit=limit), "outside": outside})
