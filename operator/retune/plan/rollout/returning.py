"""A version that a person wants back: spec.rollout.rollbackTo names an earlier champion, or what was delivered.

It is put back at once, whatever is on trial, and in any mode: the word is a person's. While the field is there it pins,
so that Git and the cluster agree: nothing else goes live, and no run starts. A name that fits nothing changes nothing.
A version that cannot be put back leaves the champion where it is, and is tried again once the spec has been edited.
"""

from retune.api.rolling import ActiveRollout, RolloutStep
from retune.api.status import Outcome, Stage, Version
from retune.plan.draft import Draft, Hold
from retune.plan.guards.ownership import field_conflict, reject
from retune.plan.kept import kept, named
from retune.plan.rollout.progress import blocked, present_value
from retune.plan.rollout.proposing import is_for_git
from retune.plan.rollout.returned import BY_PERSON, has_failed
from retune.plan.rollout.undo import conclude_rolled_back
from retune.plan.run.conclusion import conclude
from retune.plan.run.reasons import PINNED

PIN = "Pinned"


def roll_back(draft: Draft) -> Hold | None:
    """Begin to put back the version that a person names, in place of whatever is on trial."""
    version = named(draft.status, draft.spec.rollout.rollback_to)
    if version is None or not _is_due(draft, version):
        return None
    conflict = field_conflict(draft)
    if conflict:
        return blocked(draft, "FieldConflict", conflict)
    _end_what_is_under_way(draft, version)
    champion = draft.status.champion
    if champion is not None and champion.digest == version.digest and present_value(draft) == champion.injected_value:
        return None
    _begin(draft, version)
    return None


def _is_due(draft: Draft, version: Version) -> bool:
    """Whether the version is not there and not on its way, and nothing has shown that it cannot be."""
    rollout, champion = draft.status.rollout, draft.status.champion
    if champion is None or draft.container is None or has_failed(draft, version) or is_for_git(draft):
        return False
    if rollout is None:  # another one who put it there is believed, as at any time
        return present_value(draft) != version.injected_value
    if rollout.rollback_number is not None and rollout.version == version.version:
        return False
    return rollout.rollback_reason is None or champion.digest != version.digest


def _end_what_is_under_way(draft: Draft, version: Version) -> None:
    """End run and rollout: what has served already is rejected, because a person has taken it back."""
    rollout, candidate = draft.status.rollout, draft.status.candidate
    message = f"spec.rollout.rollbackTo asks for version {version.version}"
    if rollout is not None and candidate is not None and rollout.rollback_reason is not None:
        conclude_rolled_back(draft, rollout, candidate)  # before the person's word
    elif rollout is not None and candidate is not None and _was_given(draft, rollout, candidate):
        message = f"a person took version {candidate.version} back: {message}"
        reject(draft, candidate, BY_PERSON, message)
        conclude(draft, Outcome.CANCELLED, BY_PERSON, message)
    elif draft.status.run is not None:
        conclude(draft, Outcome.CANCELLED, PINNED, message)
    draft.update(rollout=None, candidate=None)


def _was_given(draft: Draft, rollout: ActiveRollout, candidate: Version) -> bool:
    """Whether the target was given the candidate of a rollout."""
    return rollout.injected or present_value(draft) == candidate.injected_value


def _begin(draft: Draft, version: Version) -> None:
    target, number = draft.observed.target, draft.status.next_rollback
    rollout = ActiveRollout(
        version=version.version,
        rollback_number=number,
        start_time=draft.now,
        step=RolloutStep.LOOK.value,
        step_start_time=draft.now,
        template=(target.template if target else None) or None,
    )
    draft.update(rollout=rollout, next_rollback=number + 1)


def stay_pinned(draft: Draft) -> Hold | None:
    """Hold an idle pass while a person keeps a version, so that nothing else goes live."""
    name, last = draft.spec.rollout.rollback_to, draft.status.last_rollback
    if name is None:
        return None
    version = named(draft.status, name)
    if version is None:
        return Hold(Stage.BLOCKED, "RollbackUnknown", unknown(draft))
    if last is not None and has_failed(draft, version):
        return Hold(Stage.BLOCKED, "RollbackFailed", f"{last.message} It is tried again once the spec has been edited.")
    message = f"version {version.version} stays, as spec.rollout.rollbackTo says: {_until_unpinned(draft)}"
    return Hold(Stage.MONITORING, PIN, message)


def _until_unpinned(draft: Draft) -> str:
    meta = draft.resource.metadata
    command = f"kubectl retune unpin {meta.name} -n {meta.namespace}"
    return f"nothing else goes live and no run starts until the field is taken out, as by `{command}`"


def unknown(draft: Draft) -> str:
    """Return the sentence on a name that fits no version."""
    name, status = draft.spec.rollout.rollback_to, draft.status
    known = ", ".join(str(version.version) for version in kept(status)) or "none yet"
    rejected = {str(entry.version) for entry in status.rejected} | {entry.digest for entry in status.rejected}
    why = "was taken back before it was champion" if name in rejected else "is not kept"
    return f"spec.rollout.rollbackTo names version {name}, which {why} (kept: {known}): nothing is changed"
