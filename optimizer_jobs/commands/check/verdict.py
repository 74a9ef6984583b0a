"""From findings to one verdict on drift, with a reason and a sentence that has the numbers in it."""

from collections import Counter

from optimizer_jobs.commands.check.columns import Cause, Left
from optimizer_jobs.commands.check.drift import Compared, Findings
from optimizer_jobs.errors import printable
from retune.api.monitoring import Drift
from retune.api.watched import Verdict
from retune.contract.results import ColumnDrift, SignalVerdict

_LIMIT = 1000
_SHOWN = 3
_COLUMNS = 16
_COMPARABLE = 0.5
"""Share of the inputs that must be comparable for a verdict."""

CAUSES = {
    Cause.SCHEMA: "do not fit the reference's schema",
    Cause.NO_VALUES: "have no values",
    Cause.TOO_FEW: "have too few independent values",
    Cause.REFERENCE: "have too few values in the reference",
    Cause.FAILED: "could not be compared",
}


def unknown(reason: str, message: str, *, samples: int = 0) -> SignalVerdict:
    """Return the verdict of a window that says nothing."""
    return SignalVerdict(
        verdict=Verdict.UNKNOWN, reason=reason, message=printable(message, limit=_LIMIT), samples=samples
    )


def judge(findings: Findings, drift: Drift, *, samples: int) -> SignalVerdict:
    """Return what a window's columns say of drift."""
    refused = _refused(findings, samples)
    if refused is not None:
        return refused
    verdict, reason = _decide(findings, drift)
    return SignalVerdict(
        verdict=verdict,
        reason=reason,
        message=printable(_sentence(findings, drift, samples), limit=_LIMIT),
        value=f"{findings.share:.4g}",
        reference=drift.share,
        samples=samples,
    )


def columns(findings: Findings) -> tuple[ColumnDrift, ...]:
    """Return the most drifted columns as the result tells them."""
    return tuple(
        ColumnDrift(
            name=printable(each.name, limit=64) or "-",
            method=each.measure,
            score=f"{each.size:.4g}",
            drifted=each.drifted,
        )
        for each in findings.compared[:_COLUMNS]
    )


def _refused(findings: Findings, samples: int) -> SignalVerdict | None:
    """Return Unknown where most inputs, or everything that was asked for, cannot be compared."""
    asked = len(findings.inputs) + len(findings.left)
    if findings.prediction or (findings.compared and len(findings.inputs) >= _COMPARABLE * asked):
        return None
    if not findings.left:
        return unknown("NothingToCompare", "No column is left to compare.", samples=samples)
    cause = Counter(each.cause for each in findings.left).most_common(1)[0][0]
    words = f"{len(findings.left)} of {asked} columns {CAUSES[cause]}: {_left_words(findings.left)}."
    return unknown(cause, words, samples=samples)


def _decide(findings: Findings, drift: Drift) -> tuple[Verdict, str]:
    if findings.prediction:
        return Verdict.BREACH, "PredictionDrifted"
    if findings.inputs and findings.share >= float(drift.share):
        return (Verdict.BREACH, "ShareAboveLimit") if findings.sure else (Verdict.BETWEEN, "EvidenceTooWeak")
    if findings.share <= float(drift.clear_share):
        return Verdict.CLEAR, "ShareBelowClear"
    return Verdict.BETWEEN, "ShareBetween"


def _sentence(findings: Findings, drift: Drift, samples: int) -> str:
    moved = [each for each in findings.compared if each.drifted]
    count = sum(each.drifted for each in findings.inputs)
    words = f"{count} of {len(findings.inputs)} columns drifted ({findings.share:.0%}; limit {float(drift.share):.0%})"
    if findings.prediction:
        words += ", and so did the prediction"
    words += f" in {samples} rows"
    words += f": {'; '.join(column_words(each) for each in moved[:_SHOWN])}." if moved else "."
    if findings.left:
        words += f" Not compared: {_left_words(findings.left)}."
    return words


def column_words(each: Compared) -> str:
    """Return a drifted column with its numbers."""
    return f"{printable(each.name, limit=64)} by {each.size:.2g} ({each.measure}, p {each.adjusted:.1g})"


def _left_words(left: tuple[Left, ...]) -> str:
    shown = "; ".join(f"{printable(each.name, limit=64)}: {each.words}" for each in left[:_SHOWN])
    return shown + (f" and {len(left) - _SHOWN} more" if len(left) > _SHOWN else "")
