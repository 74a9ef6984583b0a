"""What the registry of spec.registry is told: which version serves, and which is accepted and waits to.

The planner compares what the registry is to say with what it was told last, and where these differ one Job tells it.
Whatever comes of that Job holds up neither run nor rollout: a failure is a condition, and is repeated ever more slowly.
The number of the Job is in the status before the Job exists, so that a restart finds it.
"""

from dataclasses import dataclass
from datetime import timedelta

from retune.api.objects import Comparison
from retune.api.registered import RegisteredVersion, RegistryStatus, Role
from retune.api.registry import Registry
from retune.api.status import ConditionStatus, ConditionType, Version
from retune.contract.paths import is_below
from retune.contract.requests import RegisterRequest, RegistryEntry
from retune.contract.results import JudgeResult, RegisterResult
from retune.plan import names
from retune.plan.actions import CreateJob
from retune.plan.belief import bundle_fault
from retune.plan.draft import Draft, bundle_of, condition_of
from retune.plan.hashing import registry_hash
from retune.plan.jobs import JobFailure, progress_of, starting, without_result
from retune.plan.observed import Job, JobPhase, Verb

_FIRST_RETRY_SECONDS, _LAST_RETRY_SECONDS = 60.0, 3600.0
_REFUSAL_RETRY_SECONDS = 60.0


@dataclass(frozen=True)
class _Wanted:
    """What the registry is to say."""

    registry: Registry
    store: str
    champion: Version | None
    challenger: Version | None

    @property
    def hash(self) -> str:
        """Hash of all of it."""
        champion = self.champion.digest if self.champion else None
        challenger = self.challenger.digest if self.challenger else None
        return registry_hash(self.registry, champion=champion, challenger=challenger)


def keep(draft: Draft) -> None:
    """Carry one step further what the registry is told, and set the condition Registered."""
    if draft.spec.registry is None:
        _forget(draft)
        return
    wanted = _wanted(draft, draft.spec.registry)
    if wanted is None:
        return
    record = draft.status.registry or RegistryStatus(uri=wanted.registry.uri)
    if record.wanted is not None and record.retry_after is None:
        record = _follow(draft, record, wanted)
    if record.wanted is None and record.state != wanted.hash:
        record = _begin(draft, record, wanted)
    elif record.retry_after is not None:
        record = _wait(draft, record, wanted)
    if record != draft.status.registry:
        draft.update(registry=record)


def job_name(draft: Draft, record: RegistryStatus) -> str:
    """Return the name of the last Job that was to tell the registry something."""
    return names.register_job(draft.resource.metadata.name, record.job)


def _forget(draft: Draft) -> None:
    """Drop what was said of a registry that the spec does not name any more."""
    others = tuple(each for each in draft.status.conditions if each.type != ConditionType.REGISTERED)
    if draft.status.registry is not None or others != draft.status.conditions:
        draft.update(registry=None, conditions=others)


def _wanted(draft: Draft, registry: Registry) -> _Wanted | None:
    """Return what the registry is to say; None while that is nothing, or may not be said.

    A delivered model that serves is told of only once a version of a run had the alias: it takes that back then.
    """
    champion, record, target = draft.status.champion, draft.status.registry, draft.observed.target
    is_held = draft.resource.metadata.deletion_timestamp is not None or draft.spec.suspend
    if is_held or champion is None or draft.store is None or target is None or draft.container is None:
        return None
    if draft.status.target_uid != target.uid or draft.refusal(Verb.ACQUIRE_LEASE) is not None:
        return None
    was_told = record is not None and record.champion_told
    serves = champion if champion.run_name is not None or was_told else None
    waits = draft.status.candidate
    if serves is None and waits is None and record is None:
        return None
    return _Wanted(registry, draft.store, _stored(draft, serves), _stored(draft, waits))


def _stored(draft: Draft, version: Version | None) -> Version | None:
    """Return a version unless its bundle lies in another store than the present one, which no Job here can read."""
    return version if version is not None and bundle_fault(bundle_of(version), store=draft.store) is None else None


def _begin(draft: Draft, record: RegistryStatus, wanted: _Wanted) -> RegistryStatus:
    """Have the next Job made."""
    failures = record.failures if record.wanted == wanted.hash else 0
    begun = {"job": record.job + 1, "wanted": wanted.hash, "failures": failures, "retry_after": None}
    told = record.champion_told or wanted.champion is not None
    record = record.model_copy(update={"uri": wanted.registry.uri, "champion_told": told, **begun})
    while job_name(draft, record) in draft.observed.jobs:  # of a registry that was named before
        record = record.model_copy(update={"job": record.job + 1})
    _create(draft, record, wanted)
    return record


def _create(draft: Draft, record: RegistryStatus, wanted: _Wanted) -> None:
    refusal, name = draft.refusal(Verb.CREATE_JOB), job_name(draft, record)
    if refusal is not None:
        draft.condition(ConditionType.REGISTERED, ConditionStatus.FALSE, refusal.reason, refusal.message)
        draft.wake(after=_REFUSAL_RETRY_SECONDS)
        return
    draft.do(CreateJob(name, _request(draft, wanted), cpu_limit=None))
    if draft.refused_before(ConditionType.REGISTERED) is None:
        _show_progress(draft, record, *starting(name))


def _follow(draft: Draft, record: RegistryStatus, wanted: _Wanted) -> RegistryStatus:
    """Look how the Job stands; one that has not begun is given up for another that says what is wanted by now."""
    job = draft.observed.jobs.get(job_name(draft, record))
    if job is None:
        if record.wanted != wanted.hash:
            return _given_up(record)
        _create(draft, record, wanted)
        return record
    failure = draft.failure_of(job)
    if failure is None and job.phase is JobPhase.SUCCEEDED:
        if isinstance(job.result, RegisterResult) and job.result.state == record.wanted:
            return _adopt(draft, record, wanted, job.result)
        failure = without_result(job, "an answer of the registry")
    if failure is not None:
        return _retry_later(draft, record, failure)
    if record.wanted != wanted.hash and job.phase is not JobPhase.RUNNING:
        return _given_up(record)
    _show_progress(draft, record, *progress_of(job))
    return record


def _given_up(record: RegistryStatus) -> RegistryStatus:
    """Return that nobody waits for the Job any more. It may have told a part, so that all is told anew."""
    return record.model_copy(update={"wanted": None, "state": None})


def _adopt(draft: Draft, record: RegistryStatus, wanted: _Wanted, result: RegisterResult) -> RegistryStatus:
    """Note what the registry says by now, which may be what was wanted when the Job began and is not any more."""
    draft.condition(ConditionType.REGISTERED, ConditionStatus.TRUE, "Registered", result.message)
    told = {"state": record.wanted, "wanted": None, "failures": 0}
    if record.wanted != wanted.hash:
        return record.model_copy(update={**told, "versions": ()})
    return record.model_copy(update={**told, "versions": _versions(wanted, result)})


def _versions(wanted: _Wanted, result: RegisterResult) -> tuple[RegisteredVersion, ...]:
    aliases = wanted.registry.aliases
    roles = (
        (Role.CHAMPION, aliases.champion, wanted.champion, result.champion),
        (Role.CHALLENGER, aliases.challenger, wanted.challenger, result.challenger),
    )
    return tuple(
        RegisteredVersion(role=role, alias=alias, digest=version.digest, version=number)
        for role, alias, version, number in roles
        if version is not None and number is not None
    )


def _retry_later(draft: Draft, record: RegistryStatus, failure: JobFailure) -> RegistryStatus:
    """Have it repeated: after a minute at first, after an hour at last."""
    seconds = min(_LAST_RETRY_SECONDS, _FIRST_RETRY_SECONDS * 2 ** min(record.failures, 16))
    draft.condition(ConditionType.REGISTERED, ConditionStatus.FALSE, failure.reason, failure.message)
    draft.wake(after=seconds)
    after = draft.now + timedelta(seconds=seconds)
    return record.model_copy(update={"failures": record.failures + 1, "retry_after": after})


def _wait(draft: Draft, record: RegistryStatus, wanted: _Wanted) -> RegistryStatus:
    """Wait before a failed Job is repeated; what is wanted only since then is told at once."""
    left = draft.remaining(record.retry_after or draft.now, 0)
    if left > 0 and record.wanted == wanted.hash:
        draft.wake(after=max(1.0, left))
        return record
    return _begin(draft, record, wanted)


def _show_progress(draft: Draft, record: RegistryStatus, reason: str, message: str) -> None:
    """Show what the Job does; while a failed one is repeated, its failure stays, so that nothing flaps."""
    shown = condition_of(draft.status, ConditionType.REGISTERED)
    if record.failures and shown is not None and shown.status is ConditionStatus.FALSE:
        return
    draft.condition(ConditionType.REGISTERED, ConditionStatus.UNKNOWN, reason, message)


def _request(draft: Draft, wanted: _Wanted) -> RegisterRequest:
    return RegisterRequest(
        resource=draft.resource.key,
        state=wanted.hash,
        store=wanted.store,
        registry=wanted.registry,
        champion=_entry(draft, wanted.champion),
        challenger=_entry(draft, wanted.challenger),
    )


def _entry(draft: Draft, version: Version | None) -> RegistryEntry | None:
    if version is None:
        return None
    verdict, comparisons, report = _evidence(draft, version)
    is_own = report is not None and draft.store is not None and is_below(report, draft.store) and ".." not in report
    return RegistryEntry(
        bundle=bundle_of(version),
        version=version.version,
        run=version.run_name,
        verdict=verdict,
        metrics=version.metrics,
        comparisons=comparisons,
        report=report if is_own else None,
    )


def _evidence(draft: Draft, version: Version) -> tuple[str | None, tuple[Comparison, ...], str | None]:
    """Return verdict, numbers and report of the run that a version comes from, as far as they are known still."""
    if version.run_name is None:
        return None, (), None
    job: Job | None = draft.observed.jobs.get(names.judge_job(version.run_name))
    judged = job.result if job else None
    if isinstance(judged, JudgeResult) and judged.candidate and judged.candidate.bundle.digest == version.digest:
        return judged.message, judged.comparisons, judged.report
    run = draft.observed.runs.get(version.run_name)
    if run is None or run.status.candidate_digest != version.digest:
        return None, (), None
    return run.status.message, run.status.comparisons, run.status.report_uri
