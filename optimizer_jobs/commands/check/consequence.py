"""Whether what moved matters: each drifted input counts by what it carries of the answers, not by its number.

The test of a column says whether it moved, and nothing here makes that easier to pass. Where it is not known what a
column carries, or where it moved to where that was not measured, it counts at least like any other.
"""

from collections.abc import Mapping
from dataclasses import replace

from optimizer_jobs.commands.check.drift import Compared, Findings, Weighed
from optimizer_jobs.production.carried import Carried
from retune.api.monitoring import Drift


def weigh(findings: Findings, drift: Drift, carried: Carried, shares: Mapping[str, float]) -> Findings:
    """Return the findings with what each compared input carries; or, where each counts alike, with the reason.

    Args:
        findings: The comparison of all columns.
        drift: Drift settings of the spec.
        carried: What the reference says of all columns.
        shares: What each input carries (0..1), where that is known.
    """
    inputs = len(findings.inputs) + len(findings.not_compared)
    if drift.weigh == "Never" or drift.columns is not None or inputs < 2:
        return findings
    if carried.unknown is not None or not shares:
        return replace(findings, alike_because=carried.unknown or "no column had two values when it was measured")
    return weighed(findings, shares)


def weighed(findings: Findings, shares: Mapping[str, float]) -> Findings:
    """Return the findings with inputs that count by what they carry (0..1); those of which it is not known, alike."""
    alike = 1 / max(1, len(findings.inputs))
    inputs = tuple(_weighed(column, shares.get(column.name), alike) for column in findings.inputs)
    left = sum(shares.get(column.name, alike) for column in findings.not_compared)
    compared = sum(column.weight for column in inputs)
    sums = (
        sum(column.weight for column in inputs if column.drifted),
        sum(column.weight for column in inputs if column.sure),
    )
    drifted, sure = (min(1.0, part / (min(1.0, compared) or 1.0)) for part in sums)
    return replace(findings, inputs=inputs, weighed=Weighed(drifted, sure, left / ((left + compared) or 1.0)))


def _weighed(column: Compared, share: float | None, alike: float) -> Compared:
    if share is None:
        return replace(column, weight=alike)
    unmeasured = share > 0 and column.strange
    return replace(column, carries=share, weight=max(share, alike) if unmeasured else share)
