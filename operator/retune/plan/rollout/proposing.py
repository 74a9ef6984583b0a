"""Mode Propose: Git, or whoever else declares the target, changes its field; Retune says to what, and proves what came.

A version that passed the gate is proposed and waits as long as it takes. Once the target names it, by whatever hand, it
is asked its golden requests and baked as any other. One that fails is to be taken back by the same hand, which Retune
asks for; it writes nothing on the target, whatever happens.
"""

from retune.api.rolling import ActiveRollout, RolloutStep
from retune.api.spec import Mode
from retune.api.status import ConditionStatus, ConditionType, Stage, Version
from retune.plan.draft import Draft, Hold, condition_of
from retune.plan.rollout.listening import shares_before
from retune.plan.rollout.progress import present_value, show

PROPOSED, REVERT_PROPOSED = "Proposed", "RevertProposed"


def is_for_git(draft: Draft) -> bool:
    """Whether others change the target."""
    return draft.spec.mode is Mode.PROPOSE


def propose(draft: Draft, candidate: Version) -> Hold:
    """Wait for the target to name the version; as always, the champion is watched meanwhile, and runs may start."""
    accepted = condition_of(draft.status, ConditionType.CANDIDATE_ACCEPTED)
    why = accepted.message[:400].rstrip(".") if accepted else "it has passed the gate"
    message = f"version {candidate.version} is proposed: {why}. {_change(draft, candidate)}"
    draft.condition(ConditionType.ROLLED_OUT, ConditionStatus.UNKNOWN, PROPOSED, message)
    return Hold(Stage.AWAITING_APPROVAL, PROPOSED, message)


def merged(draft: Draft, candidate: Version) -> ActiveRollout:
    """Return the rollout of a version that the target has been given by others."""
    target = draft.observed.target
    return ActiveRollout(
        version=candidate.version,
        start_time=draft.now,
        step=RolloutStep.FIRST_GOLDEN.value,
        step_start_time=draft.now,
        injected=True,
        template=(target.template if target else None) or None,
        **shares_before(draft),
    )


def ask_to_revert(draft: Draft, rollout: ActiveRollout, candidate: Version, destination: Version) -> Hold:
    """Wait for the target to name the version from before again."""
    why = (rollout.rollback_message or "").rstrip(".")
    was = "is" if present_value(draft) == candidate.injected_value else "was"
    message = f"version {candidate.version} {was} on the target and failed: {why}. {_change(draft, destination)}"
    return show(draft, Stage.ROLLING_BACK, REVERT_PROPOSED, message)


def _change(draft: Draft, version: Version) -> str:
    """Return what is to be changed, as a sentence."""
    meta, injection, value = draft.resource.metadata, draft.spec.target.injection, version.injected_value
    container = f" of container {draft.container.name}" if draft.container and injection.is_variable else ""
    to = f"to {value}" if value is not None else "to nothing: take it out"
    shown = f"`kubectl retune proposal {meta.name} -n {meta.namespace}` shows the change"
    return f"Set {injection.field}{container} of {draft.target_name} {to} ({shown})"
