"""What is kept and what goes: stray Jobs are stopped, finished runs are recorded, old ones make room."""

from datetime import datetime

from retune.api.objects import Comparison, OptimizationRun, OptimizationRunStatus
from retune.api.status import Condition, ConditionStatus, ConditionType, LastRun, Outcome
from retune.contract.requests import COMMANDS
from retune.contract.results import JudgeResult
from retune.plan import names
from retune.plan.actions import DeleteJob, DeleteRun, RecordRun
from retune.plan.closing import registered
from retune.plan.draft import Draft
from retune.plan.observed import Job, JobPhase
from retune.plan.rollout import looking, verification
from retune.plan.run.stages import SEARCH
from retune.plan.watch.checks import pending_checks

_FINISHED = {JobPhase.SUCCEEDED, JobPhase.FAILED}


def sweep(draft: Draft) -> None:
    """Stop Jobs that nothing waits for any more, and remove finished runs beyond the limits."""
    awaited = _awaited(draft)
    for job in draft.observed.jobs.values():
        if _is_of_newer_release(job):
            continue
        superseded = _is_failed_baseline(draft, job) and draft.status.baseline is not None
        superseded = superseded or _is_failed_register(draft, job)
        if job.name not in awaited and (job.phase not in _FINISHED or superseded):
            draft.do(DeleteJob(job.name))
    for run in _beyond_limits(draft):
        draft.do(DeleteRun(run.metadata.name))


def _is_of_newer_release(job: Job) -> bool:
    """Whether a Job is asked what only a newer release knows, which may come back and wait for its result."""
    return job.command is not None and job.command not in COMMANDS


def _is_failed_baseline(draft: Draft, job: Job) -> bool:
    """Whether a Job is a baseline attempt that failed: only the newest is kept, however often it is repeated."""
    return job.phase is JobPhase.FAILED and job.name.startswith(names.baseline_job_prefix(draft.resource.metadata.name))


def _is_failed_register(draft: Draft, job: Job) -> bool:
    """Whether a Job has failed to tell the registry something: only the newest is kept."""
    prefix = names.register_job_prefix(draft.resource.metadata.name)
    return job.phase is JobPhase.FAILED and job.name.startswith(prefix)


def _awaited(draft: Draft) -> set[str]:
    """Return the names of the Jobs whose results something waits for."""
    status, awaited = draft.status, set()
    if status.baseline:
        awaited.add(status.baseline.name)
    if status.run:
        awaited |= {name(status.run.name) for name in (names.gather_job, names.search_job, names.judge_job)}
    awaited |= {job.name for job in pending_checks(draft).values()}
    if status.registry:
        awaited.add(registered.job_name(draft, status.registry))
    if status.rollout:
        awaited |= {verification.job_name(draft, status.rollout), looking.job_name(draft, status.rollout)}
    return awaited


def _beyond_limits(draft: Draft) -> list[OptimizationRun]:
    """Return the oldest ended runs beyond spec.history, without those that the status still names."""
    status = draft.status
    named = {version.run_name for version in (status.champion, status.candidate) if version}
    named |= {run.name for run in (status.run, status.last_run) if run}
    ended = [run for run in draft.observed.runs.values() if run.status.outcome and run.metadata.name not in named]
    ended.sort(key=lambda run: run.spec.number, reverse=True)
    successful = [run for run in ended if run.status.outcome and run.status.outcome.successful]
    failed = [run for run in ended if run.status.outcome and not run.status.outcome.successful]
    limits = draft.spec.history
    return successful[limits.successful_runs :] + failed[limits.failed_runs :]


def record(draft: Draft) -> None:
    """Write the status of the run under way, and of the last one, where it differs from what is stored."""
    active, last = draft.status.run, draft.status.last_run
    if active and active.name in draft.observed.runs:
        _write(draft, active.name, _running(draft))
    if last and last.name in draft.observed.runs:
        _write(draft, last.name, _ended(draft, last))


def _write(draft: Draft, name: str, status: OptimizationRunStatus) -> None:
    if draft.observed.runs[name].status.to_dict() != status.to_dict():
        draft.do(RecordRun(name, status))


def _running(draft: Draft) -> OptimizationRunStatus:
    run = draft.status.run
    if run is None:
        raise ValueError("no run is under way")
    condition = _succeeded(ConditionStatus.UNKNOWN, run.stage, f"in stage {run.stage}", since=run.start_time)
    if run.stage == SEARCH:  # while it searches, the ModelOptimization shows trials and data
        return OptimizationRunStatus(conditions=(condition,), start_time=run.start_time)
    return OptimizationRunStatus(conditions=(condition,), trials=run.trials, data=run.data, start_time=run.start_time)


def _ended(draft: Draft, last: LastRun) -> OptimizationRunStatus:
    stored, under_way = draft.observed.runs[last.name].status, draft.resource.status.run
    verdict = ConditionStatus.TRUE if last.outcome.successful else ConditionStatus.FALSE
    condition = _succeeded(verdict, last.outcome, last.message, since=last.completion_time)
    digest, comparisons = _evidence(draft, last, stored)
    known = under_way if under_way and under_way.name == last.name else stored
    return OptimizationRunStatus(
        conditions=(condition,),
        trials=known.trials,
        data=known.data,
        outcome=Outcome(last.outcome),
        message=last.message,
        candidate_digest=digest,
        comparisons=comparisons,
        report_uri=last.report_uri,
        start_time=stored.start_time,
        completion_time=last.completion_time,
    )


def _succeeded(status: ConditionStatus, reason: str, message: str, *, since: datetime) -> Condition:
    """Return the one condition of an OptimizationRun, whose spec never changes."""
    return Condition(
        type=ConditionType.SUCCEEDED,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since,
        observed_generation=1,
    )


def _evidence(draft: Draft, last: LastRun, stored: OptimizationRunStatus) -> tuple[str | None, tuple[Comparison, ...]]:
    """Return the judged digest and numbers: from the judge's result while its Job is there, else as stored."""
    job = draft.observed.jobs.get(names.judge_job(last.name))
    if job and isinstance(job.result, JudgeResult):
        digest = job.result.candidate.bundle.digest if job.result.candidate else None
        return digest, job.result.comparisons
    return stored.candidate_digest, stored.comparisons
