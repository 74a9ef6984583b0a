"""The verdict on a window's drift, with a reason and a sentence that contains the numbers."""

from collections import Counter

from optimizer_jobs.commands.check.columns import Cause, NotCompared
from optimizer_jobs.commands.check.drift import Compared, Findings
from optimizer_jobs.commands.check.result import MESSAGE_LIMIT, unknown
from optimizer_jobs.errors import printable
from retune.api.monitoring import Drift
from retune.api.watched import Verdict
from retune.contract.results import ColumnDrift, SignalVerdict

_SHOWN = 3
_COLUMNS = 16
_COMPARABLE = 0.5
"""Smallest share of the inputs that must be comparable for a verdict."""

CAUSES = {
    Cause.SCHEMA: "do not fit the reference's schema",
    Cause.NO_VALUES: "have no values",
    Cause.TOO_FEW: "have too few independent values",
    Cause.REFERENCE: "have too few values in the reference",
    Cause.FAILED: "could not be compared",
}
"""Why columns were not compared, as the predicate of a sentence."""


def judge(findings: Findings, drift: Drift, *, samples: int) -> SignalVerdict:
    """Return the verdict on a window's drift.

    Args:
        findings: The comparison of the columns.
        drift: Drift settings of the spec.
        samples: Number of rows in the window.
    """
    undecided = _undecided(findings, samples)
    if undecided is not None:
        return undecided
    verdict, reason = _decide(findings, drift)
    return SignalVerdict(
        verdict=verdict,
        reason=reason,
        message=printable(_sentence(findings, drift, samples), limit=MESSAGE_LIMIT),
        value=f"{findings.counted:.4g}",
        reference=drift.share,
        samples=samples,
    )


def columns(findings: Findings) -> tuple[ColumnDrift, ...]:
    """Return the most drifted columns in the form of the result."""
    return tuple(
        ColumnDrift(
            name=printable(column.name, limit=64) or "-",
            method=column.measure,
            score=f"{column.size:.4g}",
            drifted=column.drifted,
            carries=None if column.carries is None else f"{column.carries:.4g}",
            looks_like=column.looks_like or None if column.drifted else None,
        )
        for column in findings.compared[:_COLUMNS]
    )


def _undecided(findings: Findings, samples: int) -> SignalVerdict | None:
    """Return the verdict Unknown when most inputs cannot be compared, or when there is nothing to compare."""
    total = len(findings.inputs) + len(findings.not_compared)
    enough = len(findings.inputs) >= _COMPARABLE * total
    if findings.weighed is not None:
        enough = enough and findings.weighed.left_out <= 1 - _COMPARABLE
    if findings.prediction or (findings.compared and enough):
        return None
    if not findings.not_compared:
        return unknown("NothingToCompare", "No column is left to compare.", samples=samples)
    cause = Counter(column.cause for column in findings.not_compared).most_common(1)[0][0]
    count, reasons = len(findings.not_compared), _reasons(findings.not_compared)
    return unknown(cause, f"{count} of {total} columns {CAUSES[cause]}: {reasons}.", samples=samples)


def _decide(findings: Findings, drift: Drift) -> tuple[Verdict, str]:
    limit, clear = float(drift.share), float(drift.clear_share)
    if findings.prediction:
        return Verdict.BREACH, "PredictionDrifted"
    if findings.inputs and findings.counted >= limit:
        proven = findings.proven and (findings.weighed is None or findings.weighed.sure >= clear)
        return (Verdict.BREACH, "ShareAboveLimit") if proven else (Verdict.BETWEEN, "EvidenceTooWeak")
    if findings.counted <= clear:
        return Verdict.CLEAR, "ShareBelowClear" if findings.share <= clear else "MovedColumnsCarryLittle"
    return Verdict.BETWEEN, "ShareBetween"


def _sentence(findings: Findings, drift: Drift, samples: int) -> str:
    drifted = [column for column in findings.compared if column.drifted]
    words = _counted(findings, drift)
    if findings.prediction:
        words += ", and so did the prediction"
    words += f" in {samples} rows"
    words += f": {'; '.join(column_words(column) for column in drifted[:_SHOWN])}." if drifted else "."
    if findings.alike_because and drifted:
        words += f" Columns count alike: {findings.alike_because}."
    if findings.not_compared:
        words += f" Not compared: {_reasons(findings.not_compared)}."
    return words


def _counted(findings: Findings, drift: Drift) -> str:
    """Return how many inputs drifted, and what they carry where that is known, beside the limit."""
    count, limit = sum(column.drifted for column in findings.inputs), float(drift.share)
    words = f"{count} of {len(findings.inputs)} columns drifted"
    if findings.weighed is None:
        return f"{words} ({findings.share:.0%}; limit {limit:.0%})"
    return f"{words} (they carry up to {findings.counted:.0%} of the answers; limit {limit:.0%})"


def column_words(column: Compared) -> str:
    """Return a drifted column with its numbers, such as `age by 0.42 (Wasserstein, p 1e-09), carries 41 %`."""
    words = f"{printable(column.name, limit=64)} by {column.size:.2g} ({column.measure}, p {column.adjusted:.1g})"
    return words + carried_words(column) + (f", {column.looks_like}" if column.looks_like else "")


def carried_words(column: Compared) -> str:
    """Return what a column carries, such as `, carries 41 %`; nothing where that is not known."""
    if column.carries is None:
        return ""
    if not column.carries:
        return ", carries nothing"
    share = f"{column.carries:.0%}".replace("%", " %") if column.carries >= 0.01 else "under 1 %"
    beyond = " where it was, and moved away from there" if column.weight > column.carries else ""
    return f", carries {share}{beyond}"


def _reasons(columns: tuple[NotCompared, ...]) -> str:
    shown = "; ".join(f"{printable(column.name, limit=64)}: {column.words}" for column in columns[:_SHOWN])
    return shown + (f" and {len(columns) - _SHOWN} more" if len(columns) > _SHOWN else "")
