"""The command `check`: judge one window of production data, once.

Bad production data is never a failure of the Job: the result says what the window shows, or why it shows nothing. Only
problems that a person must fix, such as a store that cannot be written, end the Job without a result.
"""

import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from optimizer_jobs.commands.check import drift_verdict, page
from optimizer_jobs.commands.check.consequence import weigh
from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.delivered_file import current_digest
from optimizer_jobs.commands.check.drift import Findings, compare
from optimizer_jobs.commands.check.guard import FAILED, guarded
from optimizer_jobs.commands.check.headroom import judge_headroom
from optimizer_jobs.commands.check.quality_verdict import judge_quality, labelled_of
from optimizer_jobs.commands.check.result import fitted, unknown
from optimizer_jobs.commands.check.segment_verdict import Segmented
from optimizer_jobs.commands.check.segments import try_segments
from optimizer_jobs.commands.check.sources import Tables, names_of, reference_of, tables
from optimizer_jobs.commands.check.target_drift import TargetDrift, target_drift
from optimizer_jobs.commands.check.told import Told
from optimizer_jobs.commands.check.violations import violations
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.production.reading import UNFIT
from optimizer_jobs.production.reference import Reference
from optimizer_jobs.production.retention import prune
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say, step
from optimizer_jobs.stores.published import manifest_of
from retune.api.monitoring import Drift
from retune.api.production import Production
from retune.api.watched import Verdict
from retune.contract.requests import CheckRequest
from retune.contract.results import CheckResult, Reason, SignalVerdict

_STEPS = 5
_VIOLATIONS = 8
_TEMPORARY = frozenset({Reason.SOURCE_UNREACHABLE})
"""Failures that may pass by themselves, after which the Job is tried again."""


@dataclass(frozen=True)
class _Beside:
    """What is known of a window besides its rows."""

    names: tuple[str, ...] | None
    """Names of the feature columns, if they are known."""
    labels: TargetDrift | None


@dataclass(frozen=True)
class _Seen:
    """The columns of a window, compared."""

    judged: SignalVerdict
    findings: Findings
    tables: Tables
    found: bool
    """Whether there is something to look at."""


def run(request: CheckRequest) -> CheckResult:
    """Return the result for a window.

    Raises:
        JobError: The champion's bundle or the store cannot be used, or the data cannot be reached now.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as scratch:
        result = _blank(request) if request.production is None else _checked(request, request.production, Path(scratch))
    if request.followed is not None:
        result = result.model_copy(update={"artifact_digest": current_digest(request.followed)})
    return fitted(result)


def _blank(request: CheckRequest) -> CheckResult:
    return CheckResult(
        spec_hash=request.spec_hash, window=request.window.index, champion_digest=request.champion.digest
    )


def _checked(request: CheckRequest, production: Production, scratch: Path) -> CheckResult:
    manifest = manifest_of(request.champion.uri, digest=request.champion.digest)
    check = Check(request, production, manifest, scratch, now=int(time.time()))
    step(1, _STEPS, text=f"reading window {request.window.index}", about="10 s")
    current = check.rows(request.window)
    say(f"  {len(current)} of {current.seen} rows{_set_aside(current)}")
    reference, absent = _reference(check)
    labelled = labelled_of(check, current)
    labels = target_drift(manifest.task, reference, labelled, request.drift)
    names = names_of(request, into=scratch) if reference is not None else None
    segmented = try_segments(check, reference, current, labelled, names)
    result = _blank(request).model_copy(
        update={"samples": current.seen, "set_aside": sum(current.set_aside.values()), "violations": current.violations}
    )
    result, seen = _with_segments(result, request, segmented), None
    if request.drift is not None:
        step(2, _STEPS, text="comparing columns", about="10 s")
        undecided = _unknown_drift(request, reference, absent, current)
        if undecided is not None or reference is None:
            result = _without_drift(result, undecided, labels)
        else:
            result, seen = guarded(
                partial(_with_drift, check, request.drift, result, reference, current, _Beside(names, labels)),
                partial(_broken_drift, result, labels, rows=len(current)),
                what="Columns could not be compared",
            )
    if request.quality is not None:
        step(3, _STEPS, text="judging quality", about="5 s")
        drifted = result.drift is not None and result.drift.verdict is Verdict.BREACH
        notes = labels.words if labels else ""
        update = judge_quality(check, reference, current, labelled, drifted=drifted, notes=notes)
        result = result.model_copy(update=update | {"headroom": judge_headroom(check, reference, labelled)})
    if seen is not None and (seen.found or _is_bad(result) or bool(segmented and segmented.tells)):
        result = result.model_copy(
            update={"report": _page(request, seen, labels, _told(request, seen, result, segmented))}
        )
    step(5, _STEPS, text="removing captured files past their retention", about="1 s")
    say(f"  {prune(production, now=check.now)} files removed")
    return result


def _reference(check: Check) -> tuple[Reference | None, str]:
    """Return the reference, or None and why there is none."""
    try:
        return reference_of(check.request, check.manifest, into=check.scratch), ""
    except JobError as error:
        if error.reason in _TEMPORARY:
            raise
        return None, str(error)


def _with_segments(result: CheckResult, request: CheckRequest, segmented: Segmented | None) -> CheckResult:
    """Return the result with what was found of segments, and with the window that it is of."""
    if segmented is None:
        return result
    of_window = (
        {} if segmented.verdict is None or request.labelled is None else {"labelled_window": request.labelled.index}
    )
    listed = segmented.listed(request.raised_segments)
    return result.model_copy(update={"segment": segmented.verdict, "segments": listed, **of_window})


def _with_drift(
    check: Check,
    drift: Drift,
    result: CheckResult,
    reference: Reference,
    current: Captured,
    beside: _Beside,
) -> tuple[CheckResult, _Seen | None]:
    """Return the result with drift, columns and violations, and what is compared in them."""
    labels = beside.labels
    both = tables(reference, current, check.manifest, names=beside.names, seed=check.request.seed)
    findings = replace(_weighed(drift, reference, both), targets=labels.comparisons if labels else ())
    judged = drift_verdict.judge(findings, drift, samples=len(current))
    violated = [*result.violations, *_violations(both)]
    say(f"  {judged.verdict}: {judged.message}")
    update = {"drift": judged, "columns": drift_verdict.columns(findings), "violations": tuple(violated[:_VIOLATIONS])}
    silenced = findings.share > float(drift.clear_share)
    found = judged.verdict is Verdict.BETWEEN or silenced or bool(violated) or bool(labels and labels.drifted)
    return result.model_copy(update=update), _Seen(judged, findings, both, found)


def _weighed(drift: Drift, reference: Reference, both: Tables) -> Findings:
    """Return the comparison of all columns with what each carries; where that cannot be reckoned, each counts alike."""
    findings = _findings(both, drift)
    return guarded(
        partial(weigh, findings, drift, reference.carried, both.carried),
        lambda words: replace(findings, alike_because=words),
        what="what they carry could not be reckoned",
    )


def _violations(both: Tables) -> tuple[str, ...]:
    """Return a sentence for each violation of the schema."""
    return guarded(
        lambda: violations(*_without_parts(both)),
        lambda words: (f"{words}.",),
        what="The schema could not be looked at",
    )


def _broken_drift(
    result: CheckResult, labels: TargetDrift | None, words: str, *, rows: int
) -> tuple[CheckResult, _Seen | None]:
    return _without_drift(result, unknown(FAILED, f"{words}.", samples=rows), labels), None


def _is_bad(result: CheckResult) -> bool:
    """Return whether any signal's verdict is that the window is bad."""
    judged = (result.drift, result.quality, result.headroom, result.segment)
    return any(verdict is not None and verdict.verdict is Verdict.BREACH for verdict in judged)


def _without_drift(result: CheckResult, drift: SignalVerdict | None, labels: TargetDrift | None) -> CheckResult:
    """Return the result of a window whose rows cannot be compared; the labels of an earlier window may still be."""
    say(f"  {drift.message if drift else ''}")
    findings = Findings((), (), (), proven=False, prediction=False, targets=labels.comparisons if labels else ())
    return result.model_copy(update={"drift": drift, "columns": drift_verdict.columns(findings)})


def _findings(both: Tables, drift: Drift) -> Findings:
    names = both.names if drift.columns is None else _chosen(both, drift.columns)
    findings = compare(both.reference, both.current, drift, names=names, wide=both.wide, answers=both.answered)
    unlike = [column for column in both.unlike if drift.columns is None or column.name in drift.columns]
    return replace(findings, not_compared=(*findings.not_compared, *unlike))


def _chosen(both: Tables, wanted: tuple[str, ...]) -> list[str]:
    """Return the wanted columns, with the components of a wide input, or several answers, in place of their name."""
    unlike = {column.name for column in both.unlike}
    return [column for name in wanted if name not in unlike for column in both.parts_of(name)]


def _without_parts(both: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return both samples without the components of wide inputs."""
    parts = [name for names in both.wide.values() for name in names]
    return both.reference.drop(columns=parts), both.current.drop(columns=parts)


def _unknown_drift(
    request: CheckRequest, reference: Reference | None, absent: str, current: Captured
) -> SignalVerdict | None:
    """Return the verdict Unknown with the reason why a window cannot be compared, or None when it can."""
    rows, unfit = len(current), current.set_aside.get(UNFIT, 0)
    if unfit and unfit >= rows:
        first = current.violations[0] if current.violations else "They do not fit the model."
        return unknown("SchemaMismatch", f"{unfit} of {rows + unfit} rows cannot be used: {first}", samples=rows)
    if not rows:
        words = f"The window has no captured rows of the champion{_set_aside(current)}."
        return unknown("NoProductionData", words)
    if rows < request.min_samples:
        return unknown("TooFewSamples", f"{rows} rows; {request.min_samples} are needed.", samples=rows)
    return None if reference is not None else unknown("ReferenceMissing", absent, samples=rows)


def _set_aside(current: Captured) -> str:
    """Return what was not used and why, such as ` (3 empty files)`, or nothing."""
    skipped = ", ".join(f"{count} {printable(why, limit=80)}" for why, count in current.set_aside.items())
    return f" ({skipped})" if skipped else ""


def _told(request: CheckRequest, seen: _Seen, result: CheckResult, segmented: Segmented | None) -> Told:
    """Return what the page says of a window."""
    labelled = None if request.labelled is None else request.labelled.index
    beside = (result.quality, result.headroom, segmented)
    return Told(seen.judged, *beside, window=request.window.index, labelled=labelled)


def _page(request: CheckRequest, seen: _Seen, labels: TargetDrift | None, told: Told) -> str | None:
    """Write the window's page and return its URI, or None when it cannot be drawn."""
    step(4, _STEPS, text="writing the report", about="10 s")
    findings, frames = seen.findings, (seen.tables.reference, seen.tables.current)
    if labels is not None:
        named = labels if told.earlier is None else labels.called_as_of(told.earlier)
        findings, frames = replace(findings, targets=named.comparisons), named.joined_to(seen.tables)
    write = partial(page.write, request.store, request.window.index, findings, told)
    return guarded(
        lambda: write(rows=frames, keep=request.reports), lambda _words: None, what="The report could not be drawn"
    )
