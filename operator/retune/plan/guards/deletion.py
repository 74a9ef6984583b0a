"""Deleting a ModelOptimization must never break serving: undo what is half done, then let go.

The garbage collector removes Jobs and runs by their owner references. The finalizer is there only while a rollout is
in flight or the original is to be restored, so that a deletion waits for nothing else; it never needs the store.
"""

from retune.api.spec import DeletionPolicy, Mode
from retune.api.status import Stage, Version
from retune.plan.actions import InjectModel, SetFinalizer
from retune.plan.draft import Draft, Hold
from retune.plan.observed import Verb

FINALIZER = "retune.dev/undo"
_RETRY_SECONDS = 30.0


def undo(draft: Draft) -> Hold | None:
    """Give the target back as the deletion policy says."""
    if draft.resource.metadata.deletion_timestamp is None:
        return None
    if FINALIZER in draft.resource.metadata.finalizers:
        _restore(draft)
    return Hold(Stage.TERMINATING, "Terminating", "the resource is being deleted; the target keeps a proven model")


def _restore(draft: Draft) -> None:
    container, version = draft.container, _version_to_leave(draft)
    refusal = draft.refusal(Verb.INJECT_MODEL)
    taken = refusal is not None and refusal.reason == "FieldConflict"
    if container is None or version is None or taken or container.value == version.injected_value:
        _let_go(draft)
    elif refusal is not None:  # an unproven model must not stay behind: try until it may be taken back
        draft.wake(after=_RETRY_SECONDS)
    else:
        draft.do(InjectModel(container.name, draft.spec.target.injection.field, version.injected_value))


def _let_go(draft: Draft) -> None:
    """Let the resource go, once no route of others gives a share to what goes with it."""
    if draft.status.canary_route is None:
        draft.do(SetFinalizer(present=False))


def _version_to_leave(draft: Draft) -> Version | None:
    """Return the version that the owned field is to name when the resource is gone; None leaves the field alone."""
    status = draft.status
    if draft.spec.mode is Mode.PROPOSE:
        return None
    if draft.spec.deletion_policy is DeletionPolicy.RESTORE_ORIGINAL and status.original:
        return status.original
    return status.champion if status.rollout else None


def needs_finalizer(draft: Draft) -> bool:
    """Whether deletion would now leave something to undo."""
    champion = draft.status.champion
    changed = champion is not None and champion.run_name is not None
    restore = draft.spec.deletion_policy is DeletionPolicy.RESTORE_ORIGINAL
    under_way = draft.status.rollout is not None or draft.status.canary_route is not None
    return under_way or (restore and changed)
