"""The command `check`: judge one window of production data, once.

Bad production data is a result and never a failure: whoever asks learns what the window says, or why it says nothing.
Only what a person must mend, such as a store that cannot be written, ends the Job without a result.
"""

import tempfile
import time
from dataclasses import replace
from pathlib import Path

import pandas as pd

from optimizer_jobs.commands.check import page, verdict
from optimizer_jobs.commands.check.context import Check
from optimizer_jobs.commands.check.drift import Findings, compare
from optimizer_jobs.commands.check.followed import digest_now
from optimizer_jobs.commands.check.judging import judge_quality, labelled_of
from optimizer_jobs.commands.check.result import fitted
from optimizer_jobs.commands.check.sources import Tables, names_of, reference_of, tables
from optimizer_jobs.commands.check.target import Target, target_of
from optimizer_jobs.commands.check.violations import violations
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.production.reading import UNFIT
from optimizer_jobs.production.reference import Reference
from optimizer_jobs.production.retention import prune
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.progress import say, step
from retune.api.monitoring import Drift, Production
from retune.api.watched import Verdict
from retune.contract.requests import CheckRequest
from retune.contract.results import CheckResult, Reason, SignalVerdict

_STEPS = 5
_VIOLATIONS = 8
_MENDED = frozenset({Reason.SOURCE_UNREACHABLE})
"""Failures that pass by themselves: the Job is tried again."""


def run(request: CheckRequest) -> CheckResult:
    """Return what the window says.

    Raises:
        JobError: The champion's bundle or the store cannot be used, or the data cannot be reached now.
    """
    with tempfile.TemporaryDirectory(prefix="check-") as scratch:
        result = _blank(request) if request.production is None else _checked(request, request.production, Path(scratch))
    if request.followed is not None:
        result = result.model_copy(update={"artifact_digest": digest_now(request.followed)})
    return fitted(result)


def _blank(request: CheckRequest) -> CheckResult:
    return CheckResult(
        spec_hash=request.spec_hash, window=request.window.index, champion_digest=request.champion.digest
    )


def _checked(request: CheckRequest, production: Production, scratch: Path) -> CheckResult:
    manifest = open_bundle(request.champion.uri, digest=request.champion.digest).manifest
    check = Check(request, production, manifest, scratch, now=int(time.time()))
    step(1, _STEPS, text=f"reading window {request.window.index}", about="10 s")
    current = check.rows(request.window)
    say(f"  {len(current)} of {current.seen} rows")
    reference, absent = _reference(check)
    labelled = labelled_of(check, current)
    target = target_of(manifest.task, reference, labelled, request.drift)
    result = _blank(request).model_copy(
        update={"samples": current.seen, "set_aside": sum(current.set_aside.values()), "violations": current.violations}
    )
    if request.drift is not None:
        result = _with_drift(check, result, reference, absent, current, target=target)
    if request.quality is not None:
        step(4, _STEPS, text="judging quality", about="5 s")
        drifted = result.drift is not None and result.drift.verdict is Verdict.BREACH
        notes = target.words if target else ""
        result = result.model_copy(
            update=judge_quality(check, reference, current, labelled, drifted=drifted, notes=notes)
        )
    step(5, _STEPS, text="removing captured files past their retention", about="1 s")
    say(f"  {prune(production, now=check.now)} files removed")
    return result


def _reference(check: Check) -> tuple[Reference | None, str]:
    """Return the reference, or why there is none."""
    try:
        return reference_of(check.request, check.manifest, into=check.scratch), ""
    except JobError as error:
        if error.reason in _MENDED:
            raise
        return None, str(error)


def _with_drift(
    check: Check,
    result: CheckResult,
    reference: Reference | None,
    absent: str,
    current: Captured,
    *,
    target: Target | None,
) -> CheckResult:
    """Return the result with drift, columns, violations and, where someone will want to look, the page."""
    step(2, _STEPS, text="comparing columns", about="10 s")
    silent = _silent(check.request, reference, absent, current)
    if silent is not None or reference is None or check.request.drift is None:
        say(f"  {silent.message if silent else ''}")
        return result.model_copy(update={"drift": silent, "columns": verdict.columns(_alone(target))})
    names = names_of(check.request, into=check.scratch)
    both = tables(reference, current, check.manifest, names=names, seed=check.request.seed)
    findings = replace(_findings(both, check.request.drift), target=target.found if target else None)
    judged = verdict.judge(findings, check.request.drift, samples=len(current))
    told = [*result.violations, *violations(*_without_parts(both))]
    say(f"  {judged.verdict}: {judged.message}")
    update = {"drift": judged, "columns": verdict.columns(findings), "violations": tuple(told[:_VIOLATIONS])}
    if judged.verdict in {Verdict.BREACH, Verdict.BETWEEN} or told or (target and target.found.drifted):
        frames = target.beside(both) if target else (both.reference, both.current)
        update["report"] = _page(check.request, findings, *frames, share=float(check.request.drift.share))
    return result.model_copy(update=update)


def _alone(target: Target | None) -> Findings:
    """Return what a window says whose rows say nothing, while labels of an earlier one may."""
    return Findings((), (), (), sure=False, prediction=False, target=target.found if target else None)


def _findings(both: Tables, drift: Drift) -> Findings:
    names = both.names if drift.columns is None else _chosen(both, drift.columns)
    return compare(both.reference, both.current, drift, names=names, wide=both.wide)


def _chosen(both: Tables, wanted: tuple[str, ...]) -> list[str]:
    """Return the columns that count, with a wide input's parts in place of its name."""
    return [name for each in wanted for name in both.wide.get(each, (each,))]


def _without_parts(both: Tables) -> tuple[pd.DataFrame, pd.DataFrame]:
    parts = [name for names in both.wide.values() for name in names]
    return both.reference.drop(columns=parts), both.current.drop(columns=parts)


def _silent(request: CheckRequest, reference: Reference | None, absent: str, current: Captured) -> SignalVerdict | None:
    """Return why a window says nothing of drift, or None."""
    rows, unfit = len(current), current.set_aside.get(UNFIT, 0)
    if unfit and unfit >= rows:
        first = current.violations[0] if current.violations else "They do not fit the model."
        return verdict.unknown(
            "SchemaMismatch", f"{unfit} of {rows + unfit} rows cannot be used: {first}", samples=rows
        )
    if not rows:
        passed = ", ".join(f"{count} {printable(why, limit=80)}" for why, count in current.set_aside.items())
        words = f"The window has no captured rows of the champion{f' ({passed})' if passed else ''}."
        return verdict.unknown("NoProductionData", words)
    if rows < request.min_samples:
        return verdict.unknown("TooFewSamples", f"{rows} rows; {request.min_samples} are needed.", samples=rows)
    return None if reference is not None else verdict.unknown("ReferenceMissing", absent, samples=rows)


def _page(
    request: CheckRequest, findings: Findings, reference: pd.DataFrame, current: pd.DataFrame, *, share: float
) -> str | None:
    """Return the URI of the window's page; a page that cannot be drawn is only said."""
    step(3, _STEPS, text="writing the report", about="10 s")
    try:
        return page.write(
            request.store,
            request.window.index,
            findings,
            share=share,
            reference=reference,
            current=current,
            keep=request.reports,
        )
    except JobError:
        raise
    except Exception as error:  # noqa: BLE001 - a picture must not cost the verdict
        say(f"  no report: {printable(f'{type(error).__name__}: {error}', limit=300)}")
        return None
