"""The command `check`: judge one window of production data, once.

Bad production data is never a failure of the Job: the result says what the window shows, or why it shows nothing. Only
problems that a person must fix, such as a store that cannot be written, end the Job without a result.
"""

import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pandas as pd

from optimizer_jobs.commands.check import drift_verdict, page
from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.delivered_file import current_digest
from optimizer_jobs.commands.check.drift import Findings, compare
from optimizer_jobs.commands.check.quality_verdict import judge_quality, labelled_of
from optimizer_jobs.commands.check.result import fitted, unknown
from optimizer_jobs.commands.check.sources import Tables, names_of, reference_of, tables
from optimizer_jobs.commands.check.target_drift import TargetDrift, target_drift
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
    result = _blank(request).model_copy(
        update={"samples": current.seen, "set_aside": sum(current.set_aside.values()), "violations": current.violations}
    )
    if request.drift is not None:
        step(2, _STEPS, text="comparing columns", about="10 s")
        undecided = _unknown_drift(request, reference, absent, current)
        if undecided is not None or reference is None:
            result = _without_drift(result, undecided, labels)
        else:
            result = _with_drift(check, request.drift, result, reference, current, labels=labels)
    if request.quality is not None:
        step(4, _STEPS, text="judging quality", about="5 s")
        drifted = result.drift is not None and result.drift.verdict is Verdict.BREACH
        notes = labels.words if labels else ""
        update = judge_quality(check, reference, current, labelled, drifted=drifted, notes=notes)
        result = result.model_copy(update=update)
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


def _with_drift(
    check: Check,
    drift: Drift,
    result: CheckResult,
    reference: Reference,
    current: Captured,
    *,
    labels: TargetDrift | None,
) -> CheckResult:
    """Return the result with drift, columns and violations, and with a page if there is anything to look at."""
    names = names_of(check.request, into=check.scratch)
    both = tables(reference, current, check.manifest, names=names, seed=check.request.seed)
    findings = replace(_findings(both, drift), targets=labels.comparisons if labels else ())
    judged = drift_verdict.judge(findings, drift, samples=len(current))
    violated = [*result.violations, *violations(*_without_parts(both))]
    say(f"  {judged.verdict}: {judged.message}")
    update = {"drift": judged, "columns": drift_verdict.columns(findings), "violations": tuple(violated[:_VIOLATIONS])}
    if judged.verdict in {Verdict.BREACH, Verdict.BETWEEN} or violated or (labels and labels.drifted):
        frames = labels.joined_to(both) if labels else (both.reference, both.current)
        update["report"] = _page(check.request, findings, judged, *frames, share=float(drift.share))
    return result.model_copy(update=update)


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


def _page(
    request: CheckRequest,
    findings: Findings,
    judged: SignalVerdict,
    reference: pd.DataFrame,
    current: pd.DataFrame,
    *,
    share: float,
) -> str | None:
    """Write the window's page and return its URI, or None when it cannot be drawn."""
    step(3, _STEPS, text="writing the report", about="10 s")
    write = partial(page.write, request.store, request.window.index, findings, judged)
    try:
        return write(share=share, reference=reference, current=current, keep=request.reports)
    except JobError:
        raise
    except Exception as error:  # noqa: BLE001 - a picture must not cost the verdict
        say(f"  no report: {printable(f'{type(error).__name__}: {error}', limit=300)}")
        return None
