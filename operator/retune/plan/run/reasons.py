"""Why a run starts now, and why the one under way is cancelled."""

from retune.api.objects import Trigger
from retune.api.spec import Mode
from retune.api.status import Outcome, Rejected, RunStage
from retune.plan.draft import Draft
from retune.plan.guards import delivery
from retune.plan.hashing import snapshot_hash
from retune.plan.kept import named
from retune.plan.run import pending
from retune.plan.run.brakes import SIGNAL_REASONS

MODE_CHANGED = "ModeChanged"
"""Reason of a run that was cancelled because spec.mode allows none."""
PINNED = "Pinned"
"""Reason of a run that was cancelled because a person keeps a version by spec.rollout.rollbackTo."""
POLICY_CHANGED = "PolicyChanged"
"""Reason of a run that was cancelled because delivered models do not go live themselves any more."""
_LET_AGAIN = {
    MODE_CHANGED: "the mode lets runs start again",
    PINNED: "no version is kept by rollbackTo any more",
    POLICY_CHANGED: "candidates are made from the delivered model, as rollout.deliveredModel says",
}
"""Reasons of cancelled runs, and what is said once they hold no more."""


def due(draft: Draft) -> Trigger | None:
    """Return the reason to start a run, or None."""
    if draft.spec.mode is Mode.OBSERVE_ONLY:
        return None
    if draft.spec.rollout.rollback_to is not None:
        pending.show_held(draft, f"spec.rollout.rollbackTo keeps version {draft.spec.rollout.rollback_to}")
        return None
    if nonce_is_new(draft):
        return Trigger(reason="Manual", message=f"manualNonce was set to {draft.spec.manual_nonce}")
    again = retried(draft)
    if again is not None:
        name = f"version {again.version}" if again.version else again.digest
        return Trigger(reason="Manual", message=f"rollout.retry lets {name} be rolled out again")
    return _of_the_spec(draft) or pending.due(draft)


def _of_the_spec(draft: Draft) -> Trigger | None:
    """Return what in the spec asks for a run that the last one was not for."""
    last = draft.status.last_run
    if last is None:
        return Trigger(reason="Initial", message="the model was never optimized under this resource")
    if last.spec_hash != snapshot_hash(draft.spec):
        return Trigger(reason="SpecChange", message="model, data, objectives, techniques or search changed")
    if last.reason in _LET_AGAIN:
        return Trigger(reason="SpecChange", message=_LET_AGAIN[last.reason])
    if delivery.is_followed(draft) and (trigger := _of_the_delivered(draft)) is not None:
        return trigger
    if last.outcome is Outcome.FAILED and _edited_since(draft, last.name):
        return Trigger(reason="SpecChange", message=f"the spec was edited after run {last.name} had failed")
    return None


def _of_the_delivered(draft: Draft) -> Trigger | None:
    """Return the run that follows the verdict on a delivered model; one that a signal asked for waits as signals do."""
    last = draft.status.last_delivery
    if last is None or last.trigger in SIGNAL_REASONS or draft.status.triggers.circuit is not None:
        return None
    message = f"version {last.version}, as delivered, was judged: candidates are made from it now"
    return Trigger(reason=last.trigger, message=message)


def retried(draft: Draft) -> Rejected | None:
    """Return the rejected version that a person wants to be tried again; None where that was followed already."""
    retry = draft.spec.rollout.retry
    if retry is None or retry == draft.status.observed_retry:
        return None
    return next((entry for entry in draft.status.rejected if entry.digest == retry), None)


def _edited_since(draft: Draft, run_name: str) -> bool:
    """Whether the spec was edited after a run began: perhaps the cause of its failure is mended."""
    run = draft.observed.runs.get(run_name)
    return run is not None and draft.resource.metadata.generation > run.spec.spec_generation


def nonce_is_new(draft: Draft) -> bool:
    """Whether spec.manualNonce asks for a run that was not started yet."""
    return draft.spec.manual_nonce is not None and draft.spec.manual_nonce != draft.status.observed_nonce


def why_cancel(draft: Draft) -> tuple[str, str] | None:
    """Return reason and sentence when the run under way is no longer what the user wants; else None."""
    run = draft.status.run
    if run is None:
        return None
    if draft.spec.mode is Mode.OBSERVE_ONLY:
        return MODE_CHANGED, "mode became ObserveOnly"
    pinned = named(draft.status, draft.spec.rollout.rollback_to)
    if pinned is not None:
        return PINNED, f"spec.rollout.rollbackTo keeps version {pinned.version}"
    if run.spec_hash != snapshot_hash(draft.spec):
        return "SpecChanged", "the spec changed while the run was under way"
    if run.delivered and not delivery.may_go_live(draft):
        return POLICY_CHANGED, "rollout.deliveredModel became MustWin while the delivered model was judged"
    if nonce_is_new(draft):
        return "Restarted", "manualNonce asked for a new run"
    if run.stage == RunStage.ROLLOUT and draft.status.candidate is None:
        return "CandidateDropped", "its candidate was dropped, because others changed what serves"
    return None
