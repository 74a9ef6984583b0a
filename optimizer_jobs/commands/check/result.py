"""A check's result, short enough for a termination message: what matters least goes first."""

from collections.abc import Iterator

from optimizer_jobs.errors import printable
from retune.contract.results import CheckResult, SignalVerdict, encode_result

_SIZES = ((16, 8, 240, 700), (10, 6, 180, 500), (6, 4, 120, 320), (3, 2, 100, 200), (0, 0, 0, 120))
"""Columns, violations, letters of a violation, letters of a message: tried one after the other."""


def fitted(result: CheckResult) -> CheckResult:
    """Return the result with as much of its detail as fits; raises ValueError when not even its verdicts do."""
    for shorter in _shortened(result):
        try:
            encode_result(shorter)
        except ValueError:
            continue
        return shorter
    raise ValueError("the check's result does not fit a termination message")


def _shortened(result: CheckResult) -> Iterator[CheckResult]:
    yield result
    for columns, violations, letters, message in _SIZES:
        yield result.model_copy(
            update={
                "columns": result.columns[:columns],
                "violations": tuple(printable(each, limit=letters) for each in result.violations[:violations]),
                "drift": _said(result.drift, message),
                "quality": _said(result.quality, message),
            }
        )


def _said(verdict: SignalVerdict | None, limit: int) -> SignalVerdict | None:
    if verdict is None:
        return None
    return verdict.model_copy(update={"message": printable(verdict.message, limit=limit)})
