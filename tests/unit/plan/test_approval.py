"""A person's approval by example: it is for one version, nothing is touched before it, and waiting holds nothing up."""

from typing import Any

import pytest

from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage
from retune.contract.results import Verdict
from retune.plan.draft import condition_of
from tests.kstatus import Kstatus, kstatus, seen_by_kstatus
from tests.unit.plan.reading import champion_of, last_of, message_of
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.world import World, spec

WEEK = 168 * 3600.0
UNKNOWN = "sha256:" + "9" * 64


def asked_for(**rollout: Any) -> World:
    """A world in which every version waits for a person."""
    return World(spec=spec(rollout={"approval": "Manual"} | rollout))


def waiting(world: World) -> str:
    """Let a run find a version, and return its digest."""
    for _ in range(4):
        for name in world.active_jobs():
            world.finish(name)
        world.reconcile()
    candidate = world.resource.status.candidate
    assert candidate is not None
    return candidate.digest


def is_running(world: World) -> bool:
    """Whether a run is under way."""
    return world.resource.status.run is not None


def approve(world: World, digest: str) -> None:
    """A person names a version."""
    world.change(rollout={"approval": "Manual", "approvedVersion": digest})
    world.reconcile()


def test_a_version_waits_untouched_until_a_person_approves_it() -> None:
    """The target keeps its value, the resource is at rest, and the sentence names digest, reason and command."""
    world = asked_for()
    digest = waiting(world)
    assert (stage_of(world), world.value, world.served) == (Stage.AWAITING_APPROVAL, None, [])
    words = world.resource.status.message or ""
    assert "version 2 waits for approval: 4x smaller." in words
    assert "`kubectl retune approve digits 2 -n ml`" in words
    assert f"spec.rollout.approvedVersion to {digest}" in words
    assert kstatus(seen_by_kstatus(world.resource)) is Kstatus.CURRENT
    assert world.reconcile() == 0
    approve(world, digest)
    assert world.value in world.approved


def test_an_approved_version_is_promoted_by_the_usual_steps() -> None:
    """Approval replaces none of the proofs."""
    world = asked_for()
    approve(world, waiting(world))
    world.promote()
    world.wait(600)
    world.reconcile()
    assert (champion_of(world).version, last_of(world).outcome) == (2, Outcome.PROMOTED)


def test_an_approval_is_for_one_version() -> None:
    """A later version waits anew, though the field still names the one before."""
    world = asked_for()
    first = waiting(world)
    approve(world, first)
    world.promote()
    world.wait(600)
    world.reconcile()
    world.change(manualNonce="again")
    world.reconcile()
    assert waiting(world) != first
    assert stage_of(world) is Stage.AWAITING_APPROVAL
    assert "names another version now" in message_of(world, ConditionType.ROLLED_OUT)
    assert reason_of(world, ConditionType.COMMANDS_FOLLOWED) != "ApprovalUnknown"


def test_approving_what_does_not_wait_does_nothing_and_says_so() -> None:
    """It is told in a condition, and taken back there once the field names something known."""
    world = asked_for()
    digest = waiting(world)
    approve(world, UNKNOWN)
    assert (stage_of(world), world.served) == (Stage.AWAITING_APPROVAL, [])
    assert reason_of(world, ConditionType.COMMANDS_FOLLOWED) == "ApprovalUnknown"
    assert UNKNOWN in message_of(world, ConditionType.COMMANDS_FOLLOWED)
    approve(world, digest)
    assert reason_of(world, ConditionType.COMMANDS_FOLLOWED) == "Followed"


def test_a_version_that_nobody_approves_in_time_is_kept_and_may_still_be_approved() -> None:
    """The run ends, so that signals may start others; the version has lost nothing by the absence of a person."""
    world = asked_for()
    digest = waiting(world)
    world.wait(WEEK - 1)
    world.reconcile()
    assert is_running(world)
    world.wait(2)
    world.reconcile()
    assert not is_running(world)
    assert (last_of(world).outcome, last_of(world).reason) == (Outcome.RECOMMENDED, "ApprovalExpired")
    assert stage_of(world) is Stage.AWAITING_APPROVAL
    assert world.reconcile() == 0
    approve(world, digest)
    world.promote()
    world.wait(600)
    world.reconcile()
    assert (champion_of(world).version, last_of(world).outcome) == (2, Outcome.PROMOTED)


def test_a_version_that_an_earlier_release_accepted_waits_no_longer_than_others() -> None:
    """Its status has no moment of that: the wait counts from when it is seen first, and is not written about."""
    world = asked_for()
    waiting(world)
    status = world.resource.status
    assert status.candidate is not None
    accepted = status.candidate.model_copy(update={"accepted_at": None})
    world.resource = world.resource.model_copy(update={"status": status.model_copy(update={"candidate": accepted})})
    world.hear()
    world.reconcile()
    world.wait(3600)
    assert world.reconcile() == 0
    world.wait(WEEK)
    world.reconcile()
    assert (is_running(world), last_of(world).reason) == (False, "ApprovalExpired")


def test_an_approval_that_is_taken_back_before_the_target_was_touched_counts_no_more() -> None:
    """A refused write must not be repeated by a word that nobody says any more."""
    world = asked_for()
    digest = waiting(world)
    world.inject_refused = "Forbidden"
    approve(world, digest)
    assert world.resource.status.rollout is not None
    approve(world, UNKNOWN)
    world.inject_refused = None
    world.reconcile()
    assert (stage_of(world), world.served) == (Stage.AWAITING_APPROVAL, [])
    assert world.resource.status.rollout is None


def test_waiting_for_a_person_holds_nothing_else_up() -> None:
    """Others who change the field are noticed, as at any time."""
    world = asked_for()
    waiting(world)
    world.edit_field("file:///other", "neighbour")
    world.reconcile()
    assert stage_of(world) is Stage.BLOCKED
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldConflict"


def test_a_version_that_another_run_replaces_waits_no_more() -> None:
    """Nothing is said to wait that is gone."""
    world = asked_for()
    waiting(world)
    world.change(manualNonce="again")
    world.reconcile()
    assert world.resource.status.candidate is None
    assert reason_of(world, ConditionType.ROLLED_OUT) == "NotApproved"
    world.end_run(Verdict.NO_GAIN)
    assert stage_of(world) is Stage.MONITORING


@pytest.mark.parametrize("mode", ["RecommendOnly", "ObserveOnly"])
def test_a_mode_that_rolls_nothing_out_is_stronger_than_an_approval(mode: str) -> None:
    """The mode says how far the operator goes; approval says which version."""
    world = asked_for()
    digest = waiting(world)
    world.change(mode=mode)
    approve(world, digest)
    assert world.served == []
    assert world.resource.status.rollout is None


def test_a_retry_of_what_was_never_rejected_says_so() -> None:
    """A mistyped digest is no silent wish."""
    world = World(spec=spec(rollout={"retry": UNKNOWN}))
    world.settle()
    shown = condition_of(world.resource.status, ConditionType.COMMANDS_FOLLOWED)
    assert shown is not None
    assert (shown.status, shown.reason) == (ConditionStatus.FALSE, "RetryUnknown")
    assert UNKNOWN in shown.message
    assert world.active_jobs() == []
