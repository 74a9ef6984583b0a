"""How a run ends: exactly once, with an outcome, which is also what the next wait for a run depends on."""

from retune.api.spec import Mode
from retune.api.status import ConditionStatus, ConditionType, LastDelivery, LastRun, Outcome
from retune.contract.results import JudgeResult
from retune.plan import names
from retune.plan.baseline.stored import look_for_bundles
from retune.plan.draft import Draft, condition_of
from retune.plan.jobs import JobFailure
from retune.plan.run import brakes

_NEXT = {
    Mode.RECOMMEND_ONLY: "Set spec.mode to Automatic to roll it out.",
    Mode.PROPOSE: "It is proposed, and goes live once the target is given it.",
}
"""How a recommended version goes live, by the modes that recommend."""


def conclude(draft: Draft, outcome: Outcome, reason: str, message: str, *, report: str | None = None) -> None:
    """End the run under way, or give an ended run whose candidate waited its final outcome.

    What came to an end without a run, such as a rollout of a version that none has made, leaves no record of one.
    """
    subject = _subject(draft)
    if subject is None:
        return
    name, spec_hash = subject
    original = draft.status.original
    last_run = LastRun(
        name=name,
        outcome=outcome,
        reason=reason,
        message=message[:1024],
        spec_hash=spec_hash,
        completion_time=draft.now,
        report_uri=report or _known_report(draft, name),
        original_version=original.version if original else None,
    )
    delivery = _delivery(draft, last_run)
    draft.update(run=None, last_run=last_run, last_delivery=delivery)
    brakes.note_end(draft, outcome)
    shown = reason if outcome is Outcome.FAILED else outcome.value
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.FALSE, shown, f"run {name}: {message}")


def _subject(draft: Draft) -> tuple[str, str] | None:
    """Return name and spec hash of the run that ends; None where there is none."""
    run, candidate = draft.status.run, draft.status.candidate
    if run is not None:
        return run.name, run.spec_hash
    if candidate is None or candidate.run_name is None:
        return None
    return candidate.run_name, candidate.spec_hash or ""


def _delivery(draft: Draft, ended: LastRun) -> LastDelivery | None:
    """Return what has become of the newest delivered model that was judged, as the run says that ends."""
    last, run, original = draft.status.last_delivery, draft.status.run, draft.status.original
    told = {"outcome": ended.outcome, "reason": ended.reason, "message": ended.message}
    if last is not None and last.run_name == ended.name:
        return last.model_copy(update=told)
    if run is None or original is None or not run.delivered:
        return last
    return LastDelivery(
        version=original.version,
        digest=original.digest,
        run_name=run.name,
        trigger=run.trigger,
        spec_hash=run.spec_hash,
        outcome=ended.outcome,
        reason=ended.reason,
        message=ended.message,
    )


def _known_report(draft: Draft, name: str) -> str | None:
    job = draft.observed.jobs.get(names.judge_job(name))
    if job and isinstance(job.result, JudgeResult):
        return job.result.report
    last = draft.status.last_run
    return last.report_uri if last and last.name == name else None


def fail(draft: Draft, failure: JobFailure) -> None:
    """End a run whose Job has failed; where it missed a bundle, that of the champion is looked for."""
    outcome = Outcome.GATE_FAILED if failure.infeasible else Outcome.FAILED
    conclude(draft, outcome, failure.reason, failure.message)
    look_for_bundles(draft, failure)


def recommend(draft: Draft) -> None:
    """End a run whose candidate may not go live by itself; it waits for the mode to change, or for Git."""
    accepted = condition_of(draft.status, ConditionType.CANDIDATE_ACCEPTED)
    if draft.spec.mode in _NEXT and accepted:
        message = f"{accepted.message} {_NEXT[draft.spec.mode]}"
        conclude(draft, Outcome.RECOMMENDED, accepted.reason, message)
