"""Versions by example: what is told of them, what shows that they serve, and how one comes back."""

from typing import Any

import pytest

from retune.api.status import ConditionType, Outcome
from retune.contract.results import Reason, Verdict, VerifyResult
from tests.answers import digest_of
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, settle_back
from tests.unit.plan.test_loop import reason_of
from tests.unit.plan.world import World, spec


def reject_first(world: World) -> None:
    """Have the first run's version rolled back for wrong answers."""
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    settle_back(world)


def test_a_run_that_finds_a_rejected_version_again_says_which_and_why() -> None:
    """The sentence names version, day, reason, and how to try it again."""
    world = World(bundles=1)
    reject_first(world)
    world.change(manualNonce="again")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    last = last_of(world)
    assert (last.outcome, last.reason) == (Outcome.GATE_FAILED, "RejectedBefore")
    assert "Version 2 was taken back on 2026-01-01, because" in last.message
    assert f"set rollout.retry to {world.resource.status.rejected[0].digest}" in last.message


def test_a_search_that_leaves_rejected_versions_out_is_told_with_them() -> None:
    """That nothing differs from the champion is not said where something does."""
    world = World()
    reject_first(world)
    world.change(manualNonce="again")
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    (name,) = world.active_jobs()
    found = world.answer(name, Verdict.NO_GAIN)
    known = found.model_copy(update={"reason": "RejectedBefore", "message": "All of it was rolled back before."})
    world.finish(name, known)
    world.reconcile()
    assert "Version 2 was taken back" in last_of(world).message


def test_a_person_lets_a_rejected_version_be_tried_again_once() -> None:
    """rollout.retry starts a run in which it may win; what fails again is rejected again, and stays so."""
    world = World(bundles=1)
    reject_first(world)
    digest = world.resource.status.rejected[0].digest
    world.change(rollout={"retry": digest})
    world.reconcile()
    assert not world.resource.status.rejected
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    assert world.value in world.approved
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    settle_back(world)
    assert [entry.digest for entry in world.resource.status.rejected] == [digest]
    assert world.active_jobs() == []
    assert world.reconcile() == 0


@pytest.mark.parametrize("promoted_before", [False, True])
@pytest.mark.parametrize(
    "waits", [{"mode": "RecommendOnly"}, {"rollout": {"approval": "Manual"}}], ids=["mode", "approval"]
)
def test_a_version_that_waits_and_that_a_person_sets_is_his_promotion(
    waits: dict[str, Any], *, promoted_before: bool
) -> None:
    """Whatever served before, and whatever it waited for: it is champion, and words say by whose hand."""
    world = World()
    if promoted_before:
        world.run_to_promotion()
    world.change(**waits, manualNonce="to wait")
    world.reconcile()
    world.promote()
    before, candidate = champion_of(world), world.resource.status.candidate
    assert candidate is not None
    world.edit_field(candidate.injected_value, "kubectl-set")
    world.reconcile()
    assert champion_of(world).digest == candidate.digest
    assert world.resource.status.candidate is None
    assert (last_of(world).outcome, last_of(world).reason) == (Outcome.PROMOTED, "PromotedByHand")
    assert "by hand (kubectl-set)" in message_of(world, ConditionType.ROLLED_OUT)
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldSetByOthers"
    assert champion_of(world).shown_by == "Nothing"
    assert not world.resource.status.rejected
    assert [version.digest for version in world.resource.status.versions] == [before.digest] * promoted_before
    assert world.reconcile() == 0


def test_what_retune_itself_has_given_is_no_promotion_by_hand() -> None:
    """A status from before a rollout does not make the version champion that the rollout was about to prove."""
    world = World()
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    before = world.resource.status
    assert before.candidate is None
    waiting: list[Any] = []
    world.witness = lambda _, decision: waiting.append(decision.status)
    world.finish(world.active_jobs()[0])
    world.reconcile()
    assert world.value == waiting[-1].candidate.injected_value
    world.update(status=waiting[-1].model_copy(update={"rollout": None}))
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) != "PromotedByHand"
    assert last_of(world).outcome is Outcome.CANCELLED


def test_a_known_version_that_a_person_sets_is_champion_again() -> None:
    """Not fought: the condition tells who did it, and the last run what has become of its version."""
    world = World()
    world.run_to_promotion()
    first = champion_of(world)
    world.change(manualNonce="again")
    world.reconcile()
    world.promote()
    assert champion_of(world).version == 3
    world.edit_field(first.injected_value, "kubectl-set")
    world.settled = True
    world.reconcile()
    status = world.resource.status
    assert champion_of(world) == first
    assert reason_of(world, ConditionType.ROLLED_OUT) == "RevertedByOthers"
    assert "version 2 was put back by hand (kubectl-set)" in message_of(world, ConditionType.ROLLED_OUT)
    assert "version 2 was put back by hand (kubectl-set)" in last_of(world).message
    assert "version 2 was put back by hand (kubectl-set)" in message_of(world, ConditionType.OPTIMIZING)
    assert [entry.version for entry in status.rejected] == [3]
    assert world.value == first.injected_value
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldSetByOthers"
    assert world.reconcile() == 0


def test_the_bundle_of_the_delivered_model_is_known_too() -> None:
    """A person may name version 1 by its bundle; what the field had before is still what deletion restores."""
    world = World()
    world.run_to_promotion()
    original = world.resource.status.original
    assert original is not None
    world.edit_field(original.uri, "kubectl-edit")
    world.settled = True
    world.reconcile()
    assert (champion_of(world).version, champion_of(world).injected_value) == (1, original.uri)
    assert world.resource.status.original == original


def test_a_version_that_was_reverted_may_be_put_back_by_hand() -> None:
    """What a person set last counts; it is not taken for the delivered model."""
    world = World()
    world.run_to_promotion()
    second = champion_of(world)
    world.edit_field(None, None)
    world.reconcile()
    assert champion_of(world).version == 1
    world.edit_field(second.injected_value, "kubectl")
    world.reconcile()
    assert champion_of(world).version == 2
    assert not world.resource.status.rejected
    assert world.resource.status.original is not None
    assert world.resource.status.original.injected_value is None


def test_a_version_that_was_taken_back_is_named_where_somebody_sets_it_by_hand() -> None:
    """It is not believed in, and not fought over: the sentence says which one it is, and how it may be tried again."""
    world = World()
    world.run_to_promotion()
    world.change(manualNonce="again")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    third = world.value
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    settle_back(world)
    world.edit_field(third, "kubectl-edit")
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldChanged"
    assert "which is version 3, taken back before it was champion" in message_of(world, ConditionType.TARGET_OWNED)
    assert (world.value, champion_of(world).version) == (third, 2)


@pytest.mark.parametrize("is_asked", [True, False])
def test_what_nobody_showed_to_serve_is_not_said_to_serve(*, is_asked: bool) -> None:
    """A server that ignores the variable may answer all the same."""
    target = {"ref": {"name": "digits"}} | ({"inference": {"modelName": "digits"}} if is_asked else {})
    world = World(spec=spec(target=target))
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    if is_asked:
        answer = VerifyResult(bundle_digest=digest_of("digits-r1"), pods=1, requests=8)
        world.finish(world.active_jobs()[0], answer)
        world.reconcile()
    assert "is not shown to serve" in (world.resource.status.message or "")
    world.wait(600)
    world.reconcile()
    assert champion_of(world).shown_by == "Nothing"
    assert "champion but not shown to serve" in last_of(world).message
    assert "not shown to serve" in message_of(world, ConditionType.READY)


def test_a_rollback_to_what_nobody_showed_to_serve_does_not_say_that_it_serves_again() -> None:
    """The version before is given back, and that is all that is known of it."""
    world = World(spec=spec(target={"ref": {"name": "digits"}}))
    world.run_to_rollout()
    world.settled = True
    for _ in range(2):
        world.reconcile()
        world.wait(600)
    world.reconcile()
    assert "is given to the target and not shown to serve" in (world.resource.status.message or "")
    world.change(manualNonce="again")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    world.settled = False
    world.wait(3600)
    world.reconcile()
    settle_back(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "RolledBack"
    message = message_of(world, ConditionType.ROLLED_OUT)
    assert "Version 2 is given to the target again and not shown to serve." in message


@pytest.mark.parametrize("reason", [Reason.VARIABLE_IGNORED, Reason.PROTOCOL_MISMATCH])
def test_a_server_that_does_not_answer_for_the_version_is_not_held_against_it(reason: Reason) -> None:
    """It ignores the variable, or does not speak the protocol: the version has never answered."""
    world = World()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], reason)
    world.reconcile()
    settle_back(world)
    assert last_of(world).reason == reason
    assert not is_rejected(world)
