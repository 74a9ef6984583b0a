"""One attempt: search, then judge, then the gate; at most one at a time.

The status names the run and its stage before any object of it exists. A run ends exactly once, with an outcome.
"""

from retune.api.objects import OptimizationRunSpec, Trigger
from retune.api.spec import Mode
from retune.api.status import ActiveRun, ConditionStatus, ConditionType, LastRun, Outcome, Stage, Trials, Version
from retune.contract.requests import BundleRef, GatherRequest, JudgeRequest, SearchRequest
from retune.contract.results import GatherResult, JudgeResult, Reason, SearchResult
from retune.plan import names
from retune.plan.actions import CreateJob, CreateRun, EmitEvent
from retune.plan.baseline.measurement import measure_again, threads
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.hashing import snapshot, snapshot_hash
from retune.plan.jobs import JobFailure, failure_of, progress_of, starting
from retune.plan.observed import Job, JobPhase, Verb
from retune.plan.run import fresh_data, pending, reasons
from retune.plan.run.gate import Accepted, decide
from retune.plan.run.requests import asked_of
from retune.plan.run.restoring import restoring

GATHER, SEARCH, JUDGE, ROLLOUT = "Gather", "Search", "Judge", "Rollout"
_REFUSAL_RETRY_SECONDS = 30.0
_WARM_STARTS = 5
"""Most runs that a search looks back on."""


def cancel(draft: Draft) -> None:
    """End the run under way when it is no longer what the user wants; before anything else takes its time."""
    cancelled = reasons.why_cancel(draft)
    if cancelled:
        conclude(draft, Outcome.CANCELLED, *cancelled)
        draft.update(candidate=None)


def carry_on(draft: Draft) -> Hold | None:
    """Carry the run under way one step further, or start one that is due."""
    if draft.status.run is None:
        why = reasons.due(draft)
        if why is None:
            return None
        _begin(draft, why)
    return _step(draft)


def _begin(draft: Draft, why: Trigger) -> None:
    number = draft.status.next_run
    run = ActiveRun(
        name=names.run(draft.resource.metadata.name, number),
        number=number,
        trigger=why.reason,
        why=why.message[:1024],
        spec_hash=snapshot_hash(draft.spec),
        start_time=draft.now,
        stage=GATHER if fresh_data.wanted(draft, why.reason) else SEARCH,
        trials=Trials(total=draft.spec.search.max_trials),
    )
    draft.update(run=run, next_run=number + 1, observed_nonce=draft.spec.manual_nonce, candidate=None)
    pending.started(draft, why.reason)
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.TRUE, why.reason, f"run {run.name}: {why.message}")


def _step(draft: Draft) -> Hold | None:
    run = draft.status.run
    if run is None:
        return None
    if run.stage == ROLLOUT:
        _recommend(draft)
        return None
    if run.name not in draft.observed.runs and not _record(draft, run):
        return _refused(draft, Verb.CREATE_RUN)
    for stage, step in ((GATHER, _gather), (SEARCH, _search), (JUDGE, _judge)):
        run = draft.status.run
        if run is not None and run.stage == stage and (hold := step(draft, run)) is not None:
            return hold
    return None


def _gather(draft: Draft, run: ActiveRun) -> Hold | None:
    """Have the run's data built from recent production rows."""
    name = names.gather_job(run.name)
    job = draft.observed.jobs.get(name)
    if job is None:
        return _start(draft, name, fresh_data.request(draft, run, _in_store(draft, run)), workers=1)
    failure = _failure(draft, job)
    if failure is None and job.phase is not JobPhase.SUCCEEDED:
        return _holding(draft, *progress_of(job))
    if failure is None and isinstance(job.result, GatherResult):
        said = {"stage": SEARCH, "fresh": job.result.fresh, "data": job.result.message}
        draft.update(run=run.model_copy(update=said))
        draft.do(EmitEvent("DataGathered", f"run {run.name}: {job.result.message}"))
        return None
    _fail(draft, failure or JobFailure("ResultInvalid", f"Job {name} ended without data"))
    return None


def _record(draft: Draft, run: ActiveRun) -> bool:
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
        return _start(draft, name, _search_request(draft, run), workers=draft.spec.search.parallelism)
    _take_progress(draft, run)
    failure = _failure(draft, job)
    if failure is None and job.phase is not JobPhase.SUCCEEDED:
        return _holding(draft, *progress_of(job))
    if failure and not failure.overtime:
        _fail(draft, failure)
        return None
    current = draft.status.run or run
    draft.update(run=current.model_copy(update={"stage": JUDGE, "trials": _last_word(current, job)}))
    return None


def _take_progress(draft: Draft, run: ActiveRun) -> None:
    if draft.observed.trials is not None:
        draft.update(run=run.model_copy(update={"trials": draft.observed.trials}))


def _last_word(run: ActiveRun, job: Job) -> Trials:
    """Return the search's progress as its last worker told it, which no scrape has to be lucky enough to see."""
    told = job.result
    if not isinstance(told, SearchResult):
        return run.trials
    best = told.best or run.trials.best
    return Trials(total=run.trials.total, done=told.trials, failed=told.failed, best=best, ended=told.ended)


def _judge(draft: Draft, run: ActiveRun) -> Hold | None:
    name = names.judge_job(run.name)
    job = draft.observed.jobs.get(name)
    if job is None:
        return _start(draft, name, _judge_request(draft, run), workers=1)
    failure = _failure(draft, job)
    if failure is None and job.phase is not JobPhase.SUCCEEDED:
        return _holding(draft, *progress_of(job))
    if failure is None and isinstance(job.result, JudgeResult):
        _pass_gate(draft, run, job.result)
        return None
    _fail(draft, failure or JobFailure("ResultInvalid", f"Job {name} ended without a verdict"))
    return None


def _failure(draft: Draft, job: Job) -> JobFailure | None:
    return failure_of(job, now=draft.now, pull_seconds=draft.observed.defaults.image_pull_seconds)


def _search_request(draft: Draft, run: ActiveRun) -> SearchRequest:
    return SearchRequest.model_validate(_request_fields(draft, run))


def _judge_request(draft: Draft, run: ActiveRun) -> JudgeRequest:
    return JudgeRequest.model_validate(_request_fields(draft, run) | {"trigger": run.trigger})


def _request_fields(draft: Draft, run: ActiveRun) -> dict[str, object]:
    spec, status = draft.spec, draft.status
    if status.champion is None or status.original is None or draft.store is None:
        raise ValueError("a run needs a measured champion and a store")
    return {
        "resource": draft.resource.key,
        "run": _in_store(draft, run),
        "spec_hash": run.spec_hash,
        **asked_of(spec),
        "data": fresh_data.data_of(draft, run),
        "objectives": restoring(spec.better, spec.model.task) if run.fresh else spec.better,
        "champion": _bundle(status.champion),
        "original": _bundle(status.original),
        "rejected": tuple(entry.digest for entry in status.rejected),
        "warm_start": _earlier(draft, run),
        "store": draft.store,
        "threads": threads(draft),
    }


def _earlier(draft: Draft, run: ActiveRun) -> tuple[str, ...]:
    """Return the runs before as the store names them, newest first; what they found best is tried first."""
    if not draft.spec.search.warm_start:
        return ()
    before = [one for one in draft.observed.runs.values() if one.spec.number < run.number]
    newest = sorted(before, key=lambda one: one.spec.number, reverse=True)[:_WARM_STARTS]
    return tuple(names.run_in_store(one.metadata.name, uid=draft.resource.metadata.uid) for one in newest)


def _in_store(draft: Draft, run: ActiveRun) -> str:
    return names.run_in_store(run.name, uid=draft.resource.metadata.uid)


def _bundle(version: Version) -> BundleRef:
    return BundleRef(uri=version.uri, digest=version.digest)


def _start(draft: Draft, name: str, request: GatherRequest | SearchRequest, *, workers: int) -> Hold:
    if draft.refusal(Verb.CREATE_JOB):
        return _refused(draft, Verb.CREATE_JOB)
    cpu = draft.container.cpu_limit if draft.container else None
    draft.do(CreateJob(name, request, cpu_limit=cpu, workers=workers))
    return _holding(draft, *(draft.refused_before(ConditionType.OPTIMIZING) or starting(name)))


def _refused(draft: Draft, verb: Verb) -> Hold:
    refused = draft.refusal(verb)
    draft.wake(after=_REFUSAL_RETRY_SECONDS)
    return _holding(draft, refused.reason if refused else "Waiting", refused.message if refused else "no champion yet")


def _holding(draft: Draft, reason: str, message: str) -> Hold:
    judging = draft.status.run is not None and draft.status.run.stage == JUDGE
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.TRUE, reason, message)
    return Hold(Stage.GATING if judging else Stage.OPTIMIZING, reason, message)


def _pass_gate(draft: Draft, run: ActiveRun, result: JudgeResult) -> None:
    champion = draft.status.champion
    if champion is None:
        return
    answer = decide(
        result,
        run=_in_store(draft, run),
        spec_hash=run.spec_hash,
        champion=champion,
        rejected=draft.status.rejected,
    )
    if not isinstance(answer, Accepted):
        draft.condition(ConditionType.CANDIDATE_ACCEPTED, ConditionStatus.FALSE, answer.reason, answer.message)
        conclude(draft, answer.outcome, answer.reason, answer.message, report=result.report)
        return
    _accept(draft, run, answer, result)
    draft.update(run=run.model_copy(update={"stage": ROLLOUT}))
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.FALSE, "CandidateFound", answer.message)
    _recommend(draft)


def _recommend(draft: Draft) -> None:
    """End a run whose candidate may not go live by itself; the candidate waits for the mode to change."""
    accepted = condition_of(draft.status, ConditionType.CANDIDATE_ACCEPTED)
    if draft.spec.mode is Mode.RECOMMEND_ONLY and accepted:
        message = f"{accepted.message} Set spec.mode to Automatic to roll it out."
        conclude(draft, Outcome.RECOMMENDED, accepted.reason, message)


def _accept(draft: Draft, run: ActiveRun, answer: Accepted, result: JudgeResult) -> None:
    candidate = Version(
        version=draft.status.next_version,
        uri=answer.candidate.bundle.uri,
        digest=answer.candidate.bundle.digest,
        run_name=run.name,
        spec_hash=run.spec_hash,
        techniques=answer.candidate.techniques,
        size_bytes=answer.candidate.size_bytes,
        metrics=tuple(row.candidate for row in result.comparisons),
        injected_value=answer.candidate.bundle.uri,
    )
    draft.update(candidate=candidate, next_version=candidate.version + 1)
    draft.condition(ConditionType.CANDIDATE_ACCEPTED, ConditionStatus.TRUE, answer.reason, answer.message)


def _fail(draft: Draft, failure: JobFailure) -> None:
    outcome = Outcome.GATE_FAILED if failure.infeasible else Outcome.FAILED
    conclude(draft, outcome, failure.reason, failure.message)
    if failure.reason in {Reason.BUNDLE_NOT_FOUND, Reason.BUNDLE_CORRUPT}:
        measure_again(draft)


def conclude(draft: Draft, outcome: Outcome, reason: str, message: str, *, report: str | None = None) -> None:
    """End the run under way, or give an ended run whose candidate waited its final outcome."""
    name, spec_hash = _subject(draft)
    report = report or _known_report(draft, name)
    draft.update(
        run=None,
        last_run=LastRun(
            name=name, outcome=outcome, reason=reason, message=message[:1024],
            spec_hash=spec_hash, completion_time=draft.now, report_uri=report,
            original_version=draft.status.original.version if draft.status.original else None,
        ),
    )  # fmt: skip
    pending.ended(draft, outcome)
    told = reason if outcome is Outcome.FAILED else outcome.value
    draft.condition(ConditionType.OPTIMIZING, ConditionStatus.FALSE, told, f"run {name}: {message}")


def _subject(draft: Draft) -> tuple[str, str]:
    run, candidate = draft.status.run, draft.status.candidate
    if run is not None:
        return run.name, run.spec_hash
    if candidate is None or candidate.run_name is None:
        raise ValueError("there is no run to conclude")
    return candidate.run_name, candidate.spec_hash or ""


def _known_report(draft: Draft, name: str) -> str | None:
    job = draft.observed.jobs.get(names.judge_job(name))
    if job and isinstance(job.result, JudgeResult):
        return job.result.report
    last = draft.status.last_run
    return last.report_uri if last and last.name == name else None
