"""How a rollback ends that a person has asked for: the version is champion again, or what served before serves on.

No run has an outcome by it. What the version replaces is rejected, so that no run brings it back without a word.
"""

from retune.api.rolling import ActiveRollout, LastRollback
from retune.api.shown import Shown
from retune.api.status import ConditionStatus, ConditionType, Version
from retune.plan.draft import Draft
from retune.plan.guards.ownership import reject, remember, say_stored, tell_of_run
from retune.plan.kept import is_shown
from retune.plan.watch.state import begin_anew

BY_PERSON, FAILED = "RolledBackByPerson", "RollbackFailed"


def has_failed(draft: Draft, version: Version) -> bool:
    """Whether this version could not be put back, and nobody has edited the spec since."""
    last = draft.status.last_rollback
    if last is None or last.failed is None or last.digest != version.digest:
        return False
    return last.spec_generation >= draft.resource.metadata.generation


def succeed(draft: Draft, rollout: ActiveRollout, version: Version, replaced: Version) -> None:
    """Make the version champion again."""
    message = f"a person put version {version.version} back"
    if replaced.digest != version.digest:
        message += f" in place of version {replaced.version}"
        if replaced.run_name is not None:
            message += ", which is not proposed again without rollout.retry"
            reject(draft, replaced, BY_PERSON, message)
        remember(draft)
    rejected = tuple(entry for entry in draft.status.rejected if entry.digest != version.digest)
    draft.update(champion=_as_champion(draft, rollout, version, replaced), candidate=None, rejected=rejected)
    tell_of_run(draft, replaced, BY_PERSON, message)
    say_stored(draft, version)
    _end(draft, version, replaced, message=message)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, BY_PERSON, message)


def _as_champion(draft: Draft, rollout: ActiveRollout, version: Version, replaced: Version) -> Version:
    """Return the version as it serves now; what was delivered is what it always was."""
    if version.run_name is None:
        return version
    nothing_new = rollout.shown_by in {None, Shown.NOTHING.value} and replaced.digest == version.digest
    shown = version.shown_by if nothing_new else rollout.shown_by
    return version.model_copy(update={"promoted_at": draft.now, "shown_by": shown})


def fail(draft: Draft, rollout: ActiveRollout, version: Version, destination: Version) -> None:
    """Note why the version could not be put back; `destination` serves."""
    why = rollout.rollback_message or ""
    stays = "serves" if is_shown(destination) else "is champion but not shown to serve"
    message = f"version {version.version} could not be put back: {why}. Version {destination.version} {stays}."
    _end(draft, version, destination, message=message, failed=rollout.rollback_reason or FAILED)
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.FALSE, FAILED, message)


def _end(draft: Draft, version: Version, replaced: Version, *, message: str, failed: str | None = None) -> None:
    last = LastRollback(
        version=version.version,
        digest=version.digest,
        replaced_version=replaced.version,
        spec_generation=draft.resource.metadata.generation,
        failed=failed,
        message=message[:1024],
        completion_time=draft.now,
    )
    draft.update(rollout=None, last_rollback=last)
    begin_anew(draft)
