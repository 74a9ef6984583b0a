"""One attempt in its stages: gather data, search, judge, then the gate; at most one attempt at a time.

The status names the run and its stage before any object of it exists. A run ends exactly once, with an outcome.
"""

from retune.api.objects import OptimizationRunSpec, Trigger
from retune.api.status import ActiveRun, ConditionStatus, ConditionType, Outcome, RunStage, Stage, Trials, Version
from retune.contract.requests import GatherRequest, SearchRequest
from retune.contract.results import GatherResult, JudgeResult, SearchResult
from retune.plan import names, worth
from retune.plan.actions import CreateJob, CreateRun, EmitEvent
from retune.plan.baseline.stored import note_seen
from retune.plan.belief import data_fault
from retune.plan.draft import Draft, Hold
from retune.plan.guards import delivery
from retune.plan.hashing import snapshot, snapshot_hash
from retune.plan.jobs import JobFailure, progress_of, starting, without_result
from retune.plan.observed import Job, JobPhase, Refusal, Verb
from retune.plan.run import brakes, fresh_data, reasons, room
from retune.plan.run.conclusion import conclude, fail, recommend
from retune.plan.run.gate import Accepted, decide
from retune.plan.run.leftovers import note_removed
from retune.plan.run.requests import judge_request, name_in_store, search_request

GATHER, SEARCH, JUDGE, ROLLOUT = "Gather", "Search", "Judge", "Rollout"
_REFUSAL_RETRY_SECONDS = 30.0
_ROUTINE = {"Starting", "Queued", "Running"}
"""What is said of a Job that nothing keeps from its work."""
_CONTROL = 1
"""Trials that say nothing of a candidate: the first one is the champion itself."""


def cancel(draft: Draft) -> None:
    """End the run under way when it is no longer what the user wants."""
    why = reasons.why_cancel(draft)
    if why:
        conclude(draft, Outcome.CANCELLED, *why)
        draft.update(candidate=None)


def carry_on(draft: Draft) -> Hold | None:
    """Carry the run under way one step further, or start one that is due."""
    if draft.spec.rollout.retry is None and draft.status.observed_retry is not None:
        draft.update(observed_retry=None)
    if draft.status.run is None:
        trigger = reasons.due(draft)
        if trigger is None:
            return None
        _begin(draft, trigger)
    return _step(draft)


def _follow_retry(draft: Draft) -> None:
    """Let the version that a person wants to be tried again be found and rolled out, once for each time it is said."""
    again = reasons.retried(draft)
    if again is not None:
        rejected = tuple(entry for entry in draft.status.rejected if entry.digest != again.digest)
        last = draft.status.last_delivery
        kept = last if last is not None and last.digest != again.digest else None
        draft.update(rejected=rejected, observed_retry=again.digest, last_delivery=kept)


def _begin(draft: Draft, trigger: Trigger) -> None:
    _follow_retry(draft)
    number, delivered = max(draft.status.next_run, draft.observed.ended_before + 1), delivery.is_due(draft)
    run = ActiveRun(
        name=names.run(draft.resource.metadata.name, number),
        number=number,
        trigger=trigger.reason,
        why=trigger.message[:1024],
        spec_hash=snapshot_hash(draft.spec),
        start_time=draft.now,
        stage=JUDGE if delivered else GATHER if fresh_data.is_wanted(draft, trigger.reason) else SEARCH,
        delivered=delivered,
        trials=Trials() if delivered else Trials(total=draft.spec.search.max_trials),
    )
    draft.update(run=run, next_run=number + 1, observed_nonce=draft.spec.manual_nonce, candidate=None)
    brakes.note_start(draft, trigger.reason)
    message = f"run {run.name}: {trigger.message}"
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.TRUE, trigger.reason, message)


def _step(draft: Draft) -> Hold | None:
    run = draft.status.run
    if run is None:
        return None
    if run.stage == ROLLOUT:
        recommend(draft)
        return None
    if run.name not in draft.observed.runs and not _record(draft, run):
        return _not_started(draft, draft.refusal(Verb.CREATE_RUN))
    if run.stage not in set(RunStage):
        return _stage_unknown(draft, run)
    for stage, name_of, step in _STEPS:
        run = draft.status.run
        if run is None or run.stage != stage:
            continue
        full = room.wait(draft, run, name_of(run.name))
        hold = _holding(draft, *full) if full else step(draft, draft.status.run or run)
        if hold is not None:
            return hold
    return None


def _stage_unknown(draft: Draft, run: ActiveRun) -> Hold:
    """Leave a run alone that a newer release has brought to a stage of its own: that release may come back."""
    message = (
        f"run {run.name} is in stage {run.stage}, which this release of the operator does not know: go back to the "
        "release that wrote it, or set spec.manualNonce to give the run up and start another"
    )
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.TRUE, "StageUnknown", message)
    return Hold(Stage.BLOCKED, "StageUnknown", message)


def _gather(draft: Draft, run: ActiveRun) -> Hold | None:
    """Have the run's data built from recent production rows."""
    name = names.gather_job(run.name)
    job = draft.observed.jobs.get(name)
    if job is None and not fresh_data.is_wanted(draft, run.trigger):  # the spec names no labels any more
        draft.update(run=run.model_copy(update={"stage": SEARCH}))
        return None
    if job is None:
        return _start(draft, name, fresh_data.gather_request(draft, run, name_in_store(draft, run)), workers=1)
    failure = draft.failure_of(job)
    if failure is None and job.phase is not JobPhase.SUCCEEDED:
        return _holding(draft, *progress_of(job))
    if failure is None and isinstance(job.result, GatherResult) and (fault := _foreign_data(draft, run, job.result)):
        failure = JobFailure("ResultForeign", f"Job {name}: {fault}")
    if failure is None and isinstance(job.result, GatherResult):
        gathered = {"stage": SEARCH, "fresh": job.result.fresh, "data": job.result.message}
        draft.update(run=run.model_copy(update=gathered))
        draft.do(EmitEvent("DataGathered", f"run {run.name}: {job.result.message}"))
        return None
    fail(draft, failure or without_result(job, "data"))
    return None


def _foreign_data(draft: Draft, run: ActiveRun, result: GatherResult) -> str | None:
    """Return why a result's data cannot be this run's, or None."""
    expected = name_in_store(draft, run)
    if result.run != expected or result.spec_hash != run.spec_hash:
        return f"the result belongs to run {result.run} and another spec"
    return data_fault(result.fresh, store=draft.store, run=expected) if result.fresh else None


def _record(draft: Draft, run: ActiveRun) -> bool:
    """Have the OptimizationRun created; returns False when it cannot be now."""
    champion = draft.status.champion
    if draft.refusal(Verb.CREATE_RUN) or champion is None:
        return False
    spec = OptimizationRunSpec(
        number=run.number,
        trigger=Trigger(reason=run.trigger, message=run.why or f"run {run.number}"),
        spec_generation=draft.resource.metadata.generation,
        spec_hash=run.spec_hash,
        champion_version=champion.version,
        champion_digest=champion.digest,
        snapshot=snapshot(draft.spec),
    )
    draft.do(CreateRun(run.name, spec))
    return True


def _search(draft: Draft, run: ActiveRun) -> Hold | None:
    name = names.search_job(run.name)
    job = draft.observed.jobs.get(name)
    if job is None:
        return _start(draft, name, search_request(draft, run), workers=draft.spec.search.parallelism)
    run = _with_progress(draft, run)
    failure = draft.failure_of(job)
    if failure is None and job.phase is not JobPhase.SUCCEEDED:
        return _holding(draft, *progress_of(job))
    if failure and not _is_worth_judging(run, failure):
        fail(draft, failure)
        return None
    if isinstance(job.result, SearchResult):
        note_removed(draft, job.result)
    draft.update(run=run.model_copy(update={"stage": JUDGE, "trials": _final_trials(run, job, failure)}))
    return None


def _is_worth_judging(run: ActiveRun, failure: JobFailure) -> bool:
    """Whether what a failed search had stored counts: it ran out of time, or out of memory after a candidate."""
    return failure.overtime or (failure.starved and run.trials.done > _CONTROL)


def _with_progress(draft: Draft, run: ActiveRun) -> ActiveRun:
    """Return the run with the trials that its workers were last seen at; a worker may know less than another before."""
    if draft.observed.trials is None or draft.observed.trials.done < run.trials.done:
        return run
    run = run.model_copy(update={"trials": draft.observed.trials})
    draft.update(run=run)
    return run


def _final_trials(run: ActiveRun, job: Job, failure: JobFailure | None) -> Trials:
    """Return the search's progress as its last worker reported it at its end, which a scrape may have missed."""
    result = job.result
    if not isinstance(result, SearchResult):
        return run.trials.model_copy(update={"ended": failure.message[:1024] if failure else None})
    best = result.best or run.trials.best
    return Trials(total=run.trials.total, done=result.trials, failed=result.failed, best=best, ended=result.ended)


def _judge(draft: Draft, run: ActiveRun) -> Hold | None:
    name = names.judge_job(run.name)
    job = draft.observed.jobs.get(name)
    if job is None:
        return _start(draft, name, judge_request(draft, run), workers=1)
    failure = draft.failure_of(job)
    if failure is None and job.phase is not JobPhase.SUCCEEDED:
        return _holding(draft, *progress_of(job))
    if failure is None and isinstance(job.result, JudgeResult):
        _pass_gate(draft, run, job.result)
        return None
    fail(draft, failure or without_result(job, "a verdict"))
    return None


def _start(draft: Draft, name: str, request: GatherRequest | SearchRequest, *, workers: int) -> Hold:
    refusal = draft.refusal(Verb.CREATE_JOB)
    if refusal:
        return _not_started(draft, refusal)
    draft.do(CreateJob(name, request, cpu_limit=draft.cpu_limit, workers=workers))
    return _holding(draft, *(draft.refused_before(ConditionType.OPTIMIZING) or starting(name)))


def _not_started(draft: Draft, refusal: Refusal | None) -> Hold:
    draft.wake(after=_REFUSAL_RETRY_SECONDS)
    if refusal is None:
        return _holding(draft, "Waiting", "no champion yet")
    return _holding(draft, refusal.reason, refusal.message)


def _holding(draft: Draft, reason: str, message: str) -> Hold:
    if reason in _ROUTINE:
        reason, message = room.shown_meanwhile(draft) or (reason, message)
    judging = draft.status.run is not None and draft.status.run.stage == JUDGE
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.TRUE, reason, message)
    return Hold(Stage.GATING if judging else Stage.OPTIMIZING, reason, message)


def _pass_gate(draft: Draft, run: ActiveRun, result: JudgeResult) -> None:
    champion, original = draft.status.champion, draft.status.original
    if champion is None or original is None:
        return
    answer = decide(
        result,
        run=name_in_store(draft, run),
        spec_hash=run.spec_hash,
        champion=champion,
        store=draft.store,
        rejected=draft.status.rejected,
        delivered=original.digest if run.delivered else None,
    )
    if result.champion_digest == champion.digest:
        note_seen(draft)
    if not isinstance(answer, Accepted):
        message = f"{answer.message}{_cut_short(draft, run)}"
        draft.condition(ConditionType.CANDIDATE_ACCEPTED, ConditionStatus.FALSE, answer.reason, message)
        conclude(draft, answer.outcome, answer.reason, message, report=result.report)
        return
    _accept(draft, run, original, answer, result)
    draft.update(run=run.model_copy(update={"stage": ROLLOUT}))
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.FALSE, "CandidateFound", answer.message)
    recommend(draft)


def _cut_short(draft: Draft, run: ActiveRun) -> str:
    """Return a sentence on a search whose Job failed midway, which the judge cannot know; empty where none did."""
    job = draft.observed.jobs.get(names.search_job(run.name))
    failed = job is not None and draft.failure_of(job) is not None
    return f" The search was cut short: {run.trials.ended}" if failed and run.trials.ended else ""


def _accept(draft: Draft, run: ActiveRun, original: Version, answer: Accepted, result: JudgeResult) -> None:
    candidate = Version(
        version=original.version if run.delivered else draft.status.next_version,
        uri=answer.candidate.bundle.uri,
        digest=answer.candidate.bundle.digest,
        model_digest=original.model_digest if run.delivered else None,
        run_name=run.name,
        made_from=None if run.delivered else original.model_digest,
        spec_hash=run.spec_hash,
        techniques=answer.candidate.techniques,
        size_bytes=answer.candidate.size_bytes,
        metrics=tuple(row.candidate for row in result.comparisons),
        reference_digest=answer.candidate.reference,
        injected_value=answer.candidate.bundle.uri,
        accepted_at=draft.now,
    )
    draft.update(candidate=candidate, next_version=max(draft.status.next_version, candidate.version + 1))
    worth.note_accepted(draft, candidate, result.worth)
    draft.condition(ConditionType.CANDIDATE_ACCEPTED, ConditionStatus.TRUE, answer.reason, answer.message)


_STEPS = (
    (GATHER, names.gather_job, _gather),
    (SEARCH, names.search_job, _search),
    (JUDGE, names.judge_job, _judge),
)
"""The stages of a run that are a Job's work, in order."""
