"""Version 1: the delivered model, checked, bundled and measured before anything else may happen.

A failed attempt is tried again, ever more slowly, and at once when the spec or the way its Job runs changes.
"""

from retune.api.shown import Shown
from retune.api.status import (
    ConditionStatus,
    ConditionType,
    JobAttempt,
    ModelOptimizationStatus,
    Stage,
    Version,
)
from retune.contract.requests import BaselineRequest, BundleRef
from retune.contract.results import BaselineResult, Reason, ServedBundle
from retune.plan.actions import CreateJob
from retune.plan.baseline.attempts import FIRST_RETRY_SECONDS, current_attempt, measure_again, numbered, retry_later
from retune.plan.baseline.stored import bundle_to_look_for, note_answer
from retune.plan.belief import bundle_fault, bundle_in
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.guards.delivery import is_awaiting_verdict
from retune.plan.guards.ownership import keep_own, known_version
from retune.plan.hashing import baseline_hash
from retune.plan.jobs import JobFailure, progress_of, starting, without_result
from retune.plan.observed import Job, JobPhase, Verb


def measure_champion(draft: Draft) -> Hold | None:
    """Make sure that the delivered model has a bundle and numbers."""
    if _serves_unknown_bundle(draft):
        measure_again(draft)
        draft.update(original=None, champion=None, candidate=None)
    original = draft.status.original
    if original and original.spec_hash == baseline_hash(draft.spec):
        return None
    attempt = current_attempt(draft)
    if attempt.retry_after and draft.remaining(attempt.retry_after, 0) > 0:
        return _wait_for_retry(draft, attempt)
    if attempt.retry_after:
        attempt = numbered(draft, attempt.attempt + 1)
    draft.update(baseline=attempt)
    job = draft.observed.jobs.get(attempt.name)
    return _start(draft, attempt) if job is None else _follow(draft, attempt, job)


def _serves_unknown_bundle(draft: Draft) -> bool:
    """Whether the delivered model is said to serve, while the target names a bundle of this store that is no version.

    The status is older than the target, as after a restore, or a person has put a bundle there that was forgotten. What
    serves is never taken for the delivered model: it is verified and measured, as where there is no history.
    """
    champion, container = draft.status.champion, draft.container
    if champion is None or champion.run_name is not None or container is None or draft.status.rollout is not None:
        return False
    if container.value == champion.injected_value or known_version(draft, container.value) is not None:
        return False
    return _served(draft) is not None


def _start(draft: Draft, attempt: JobAttempt) -> Hold:
    refusal = draft.refusal(Verb.CREATE_JOB)
    if refusal:
        draft.wake(after=FIRST_RETRY_SECONDS)
        return _not_baselined(draft, refusal.reason, refusal.message)
    draft.do(CreateJob(attempt.name, _request(draft), cpu_limit=draft.cpu_limit))
    earlier_refusal = draft.refused_before(ConditionType.BASELINED)
    if earlier_refusal:
        return _not_baselined(draft, *earlier_refusal)
    return _working(draft, *starting(attempt.name))


def _request(draft: Draft) -> BaselineRequest:
    if draft.store is None:
        raise ValueError("a baseline needs a store")
    return BaselineRequest(
        resource=draft.resource.key,
        spec_hash=baseline_hash(draft.spec),
        model=draft.spec.model,
        data=draft.spec.data,
        serving=draft.spec.serving,
        store=draft.store,
        threads=draft.threads,
        serves=_served_already(draft),
        seed=draft.spec.search.seed,
    )


def _served_already(draft: Draft) -> BundleRef | None:
    """Return the bundle of this store that is to be verified, or None.

    The target names it though this resource has no history: it was restored without its status, or created again after
    one that left its champion serving. Or a Job has missed the bundle of the champion.
    """
    return _served(draft) if draft.status.original is None else bundle_to_look_for(draft)


def _follow(draft: Draft, attempt: JobAttempt, job: Job) -> Hold | None:
    failure = draft.failure_of(job)
    if job.phase is JobPhase.SUCCEEDED:
        if isinstance(job.result, BaselineResult) and job.result.spec_hash == baseline_hash(draft.spec):
            failure = _unbelieved(draft, job.name, job.result)
            if failure is None:
                _adopt(draft, job.result)
                return None
        else:
            failure = without_result(job, "a result that belongs to this spec")
    if failure:
        retry_later(draft, attempt)
        return _not_baselined(draft, failure.reason, failure.message)
    return _working(draft, *progress_of(job))


def _unbelieved(draft: Draft, name: str, result: BaselineResult) -> JobFailure | None:
    """Return why a result of this spec is not adopted, or None."""
    if draft.status.original is None and result.lost is not None:
        message = f"{result.lost.uri}: the target names this bundle, which the store does not have or which is damaged."
        cure = "Restore it, or set the target's variable back to the delivered model."
        return JobFailure(Reason.BUNDLE_NOT_FOUND, f"{message} {cure}")
    fault = bundle_fault(result.bundle, store=draft.store) or _changed_meanwhile(draft, result)
    return JobFailure("ResultForeign", f"Job {name}: {fault}") if fault else None


def _adopt(draft: Draft, result: BaselineResult) -> None:
    """Make the measured file version 1, or the next version where another file was delivered since."""
    status, known = draft.status, draft.status.original
    is_new_file = known is not None and known.digest != result.bundle.digest
    number = 1 if known is None else _number_of(status, result.bundle.digest) if is_new_file else known.version
    original = Version(
        version=number,
        uri=result.bundle.uri,
        digest=result.bundle.digest,
        model_digest=result.model_digest,
        spec_hash=result.spec_hash,
        size_bytes=result.size_bytes,
        metrics=result.metrics,
        reference_digest=result.reference,
        injected_value=_value_to_go_back_to(draft, known, result.bundle.uri),
    )
    if known is not None and known.model_digest != original.model_digest and is_awaiting_verdict(draft):
        keep_own(draft)
    draft.update(original=original, champion=_champion_beside(draft, original), baseline=None)
    draft.update(next_version=max(status.next_version, number + 1))
    if known is None and result.serves is not None:
        _readopt(draft, result.serves)
    note_answer(draft, result)
    numbers = ", ".join(f"{metric.name} {metric.value}" for metric in result.metrics)
    draft.condition(ConditionType.BASELINED, ConditionStatus.TRUE, "Measured", f"version {number}: {numbers}")


def _value_to_go_back_to(draft: Draft, known: Version | None, uri: str) -> str | None:
    """Return the value of the field by which the delivered model serves again.

    That is the one that it had before the first change. A key of a ConfigMap that was empty then gets the model's own
    bundle: emptied, it would have servers keep whatever they serve.
    """
    value = known.injected_value if known else draft.container.value if draft.container else None
    if draft.spec.target.injection.config_map is None:
        return value
    return uri if value is None or (known is not None and value == known.uri) else value


def _number_of(status: ModelOptimizationStatus, digest: str) -> int:
    """Return the number of a delivered model: the one that it has where it was known before, else the next one."""
    before = (*status.versions, *((status.champion,) if status.champion else ()), *status.rejected)
    numbers = (version.version for version in before if version.digest == digest and version.version is not None)
    return next(numbers, status.next_version)


def _champion_beside(draft: Draft, original: Version) -> Version:
    """Return what serves now that this model is measured: the champion, unless that is what is delivered."""
    known, champion = draft.status.original, draft.status.champion
    if known is None or champion is None:
        return original
    if champion.run_name is None:
        is_same_file = champion.model_digest == original.model_digest
        is_held_back = champion.digest != known.digest or is_awaiting_verdict(draft) or _is_named(draft, champion)
        return champion if is_held_back and not is_same_file else original
    is_of_older_release = champion.made_from is None and champion.model_digest is None
    return champion.model_copy(update={"made_from": known.model_digest}) if is_of_older_release else champion


def _is_named(draft: Draft, champion: Version) -> bool:
    """Whether a key of a ConfigMap names the delivered model's own bundle, so that no newer file serves by itself."""
    is_key = draft.spec.target.injection.config_map is not None
    return is_key and draft.container is not None and draft.container.value == champion.uri


def _changed_meanwhile(draft: Draft, result: BaselineResult) -> str | None:
    """Return that the target names another bundle than was measured; what is new there is measured in its turn."""
    measured = result.serves.bundle if result.serves else None
    if draft.status.original is not None or measured == _served(draft):
        return None
    return "the target's variable was changed while what it named was measured; what it names now is measured next"


def _readopt(draft: Draft, served: ServedBundle) -> None:
    """Make the bundle that serves already champion, under a number of its own; version 1 is given as a bundle too."""
    original, bundle = draft.status.original, served.bundle
    if original is None or served.run is None or bundle.digest == original.digest:
        return
    number = draft.status.next_version
    champion = Version(
        version=number,
        uri=bundle.uri,
        digest=bundle.digest,
        run_name=served.run,
        made_from=original.model_digest,
        spec_hash=original.spec_hash,
        techniques=served.techniques,
        size_bytes=served.size_bytes,
        metrics=served.metrics,
        reference_digest=served.reference,
        injected_value=bundle.uri,
        shown_by=Shown.NOTHING.value,
    )
    original = original.model_copy(update={"injected_value": original.uri})
    draft.update(original=original, champion=champion, next_version=number + 1)
    message = (
        f"the target names version {number} already, from run {served.run} of an earlier resource; its bundle is "
        "verified, and its pods were not asked"
    )
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.TRUE, "Readopted", message)


def _served(draft: Draft) -> BundleRef | None:
    return bundle_in(draft.container.value, store=draft.store) if draft.container else None


def _wait_for_retry(draft: Draft, attempt: JobAttempt) -> Hold:
    draft.wake(after=max(1.0, draft.remaining(attempt.retry_after or draft.now, 0)))
    failed = condition_of(draft.status, ConditionType.BASELINED)
    return Hold(Stage.BLOCKED, failed.reason if failed else "Failed", failed.message if failed else "")


def _working(draft: Draft, reason: str, message: str) -> Hold:
    """Show what the attempt does; while a failed one is repeated, its failure stays, so that nothing flaps."""
    failed = condition_of(draft.status, ConditionType.BASELINED)
    attempt = draft.status.baseline
    if failed and failed.status is ConditionStatus.FALSE and attempt and attempt.attempt > 1:
        return Hold(Stage.BLOCKED, failed.reason, failed.message)
    draft.condition(ConditionType.BASELINED, ConditionStatus.UNKNOWN, reason, message)
    return Hold(Stage.BASELINING, reason, message)


def _not_baselined(draft: Draft, reason: str, message: str) -> Hold:
    draft.condition(ConditionType.BASELINED, ConditionStatus.FALSE, reason, message)
    return Hold(Stage.BLOCKED, reason, message)
