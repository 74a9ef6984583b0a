"""Mode Propose by example: Git changes the target, Retune says to what, proves what came, and asks for it back."""

from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage
from retune.contract.results import Reason
from retune.plan.draft import condition_of
from tests.kstatus import Kstatus, kstatus, seen_by_kstatus
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of
from tests.unit.plan.test_approval import waiting
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.world import World, spec

GIT = "kustomize-controller"


def proposed() -> tuple[World, str]:
    """A world in which a version is proposed, and the value that is asked for."""
    world = World(spec=spec(mode="Propose"))
    waiting(world)
    candidate = world.resource.status.candidate
    assert candidate is not None
    assert candidate.injected_value is not None
    return world, candidate.injected_value


def merged() -> World:
    """A world in which Git has given the target what was proposed; its pods are not replaced yet."""
    world, value = proposed()
    world.edit_field(value, GIT)
    world.settled = False
    world.reconcile()
    return world


def test_a_version_is_proposed_and_the_target_left_alone() -> None:
    """The run ends well, the resource is at rest, and words say what to set and which command shows the patch."""
    world, value = proposed()
    assert (world.value, world.served) == (None, [])
    assert (stage_of(world), last_of(world).outcome) == (Stage.AWAITING_APPROVAL, Outcome.RECOMMENDED)
    words = message_of(world, ConditionType.ROLLED_OUT)
    assert "version 2 is proposed: 4x smaller." in words
    assert f"of Deployment digits to {value}" in words
    assert "`kubectl retune proposal digits -n ml`" in words
    assert kstatus(seen_by_kstatus(world.resource)) is Kstatus.CURRENT
    assert world.reconcile() == 0


def test_what_git_has_merged_is_proven_like_any_version() -> None:
    """Golden requests, then a bake; then it is champion, its field stays Git's, and nothing was written there."""
    world = merged()
    assert (stage_of(world), champion_of(world).version) == (Stage.ROLLING_OUT, 1)
    world.settled = True
    world.reconcile()
    world.finish(world.active_jobs()[0])
    world.reconcile()
    assert stage_of(world) is Stage.BAKING
    world.wait(600)
    world.reconcile()
    assert (champion_of(world).version, last_of(world).outcome) == (2, Outcome.PROMOTED)
    assert champion_of(world).shown_by in {"Digest", "Answers"}
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldSetByOthers"
    assert "as mode Propose leaves it to them" in message_of(world, ConditionType.TARGET_OWNED)
    assert world.manager == GIT
    assert world.reconcile() == 0


def test_one_that_fails_is_asked_back_from_git() -> None:
    """It is rejected at once; a person is needed until Git has put the version from before back."""
    world = merged()
    value = world.value
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    assert (stage_of(world), world.value, world.manager) == (Stage.ROLLING_BACK, value, GIT)
    assert is_rejected(world)
    rolled_out = condition_of(world.resource.status, ConditionType.ROLLED_OUT)
    assert rolled_out is not None
    assert (rolled_out.status, rolled_out.reason) == (ConditionStatus.UNKNOWN, "RevertProposed")
    assert "version 2 is on the target and failed" in rolled_out.message
    assert "of Deployment digits to nothing: take it out" in rolled_out.message
    assert kstatus(seen_by_kstatus(world.resource)) is Kstatus.FAILED
    assert world.reconcile() == 0
    world.edit_field(None, GIT)
    world.reconcile()
    assert (champion_of(world).version, last_of(world).outcome) == (1, Outcome.ROLLED_BACK)
    assert reason_of(world, ConditionType.READY) == "ChampionServing"
    assert world.reconcile() == 0


def test_a_revert_while_it_is_proven_is_respected() -> None:
    """Whoever takes it back has decided: it is not asked for again, and not held against the version."""
    world = merged()
    world.edit_field(None, GIT)
    world.reconcile()
    assert (last_of(world).outcome, last_of(world).reason) == (Outcome.CANCELLED, "FieldChanged")
    assert not is_rejected(world)
    assert champion_of(world).version == 1


def test_a_third_value_in_place_of_the_revert_is_theirs() -> None:
    """It is neither what failed nor what served before: nothing more is asked for."""
    world = merged()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    world.edit_field("pvc://models/another", GIT)
    world.reconcile()
    assert world.resource.status.rollout is None
    assert reason_of(world, ConditionType.TARGET_OWNED) in {"FieldChanged", "LeaseHeld"}


def test_a_proposal_holds_up_neither_the_watch_nor_another_run() -> None:
    """A newer version takes the place of one that nobody has merged."""
    world, value = proposed()
    world.bundles = 7
    world.change(manualNonce="again")
    world.reconcile()
    waiting(world)
    candidate = world.resource.status.candidate
    assert candidate is not None
    assert candidate.injected_value != value
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Proposed"


def test_a_proposal_goes_live_by_the_operator_once_the_mode_says_so() -> None:
    """Nothing has to be searched again."""
    world, value = proposed()
    world.change(mode="Automatic")
    world.reconcile()
    assert world.value == value


def test_a_deletion_leaves_the_target_to_git() -> None:
    """Also while a version is being proven, which a deletion would take back in other modes."""
    world = merged()
    value = world.value
    world.delete()
    world.reconcile()
    assert (world.value, world.manager) == (value, GIT)
