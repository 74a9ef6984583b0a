"""Kinds of targets by example: which can be looked after, and what a controller leaves to others."""

from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.contract.results import Reason
from retune.plan.observed import Incident, LatePod
from retune.plan.told import Abort
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of
from tests.unit.plan.test_approval import waiting
from tests.unit.plan.test_loop import reason_of, state_of
from tests.unit.plan.world import World, spec

STATEFUL_SET = {"ref": {"kind": "StatefulSet", "name": "digits"}, "inference": {"modelName": "digits"}}
BOTH = frozenset({"Deployment", "StatefulSet"})


def test_a_kind_without_rights_is_told_before_anything_is_tried() -> None:
    """It names the chart's value; the target may well exist."""
    world = World(spec=spec(target=STATEFUL_SET))
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "KindNotEnabled"
    assert "kind StatefulSet: name it in targets.kinds" in message_of(world, ConditionType.TARGET_RESOLVED)
    assert world.resource.status.stage is Stage.BLOCKED
    assert not world.jobs


def test_a_target_is_called_by_its_kind() -> None:
    """Whoever reads a condition looks for the right object."""
    world = World(spec=spec(target=STATEFUL_SET), target_kinds=BOTH)
    world.run_to_promotion()
    assert message_of(world, ConditionType.TARGET_RESOLVED).startswith("StatefulSet digits")
    world.edit_field("pvc://elsewhere", "helm")
    world.reconcile()
    assert "MODEL_URI of StatefulSet digits was set" in message_of(world, ConditionType.TARGET_OWNED)


def test_git_and_people_are_told_of_a_target_by_its_kind() -> None:
    """What is proposed is for the right object, and so is what somebody has put there while it waited."""
    world = World(spec=spec(target=STATEFUL_SET, mode="Propose"), target_kinds=BOTH)
    waiting(world)
    assert "of container server of StatefulSet digits to pvc://" in message_of(world, ConditionType.ROLLED_OUT)
    world.change(mode="RecommendOnly")
    world.reconcile()
    candidate = world.resource.status.candidate
    assert candidate is not None
    world.edit_field(candidate.injected_value, "kubectl-set")
    world.reconcile()
    assert "was given to StatefulSet digits by hand (kubectl-set)" in message_of(world, ConditionType.ROLLED_OUT)


def test_a_broken_pod_of_a_version_that_git_has_taken_back_is_replaced() -> None:
    """Not before: what failed is asked back, and its pods are what Git wants until then."""
    world = World(spec=spec(target=STATEFUL_SET, mode="Propose"), target_kinds=BOTH)
    waiting(world)
    candidate = world.resource.status.candidate
    assert candidate is not None
    world.edit_field(candidate.injected_value, "kustomize-controller")
    world.settled = False
    world.reconcile()
    world.wait(3600)
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "RevertProposed"
    assert "version 2 is on the target and failed" in message_of(world, ConditionType.ROLLED_OUT)
    world.edit_field(None, "kustomize-controller")
    world.settled, world.behind = False, (LatePod("digits-2", "c", candidate.injected_value),)
    world.reconcile()
    left: tuple[LatePod, ...] = world.behind
    assert left == ()
    world.settled = True
    world.reconcile()
    assert last_of(world).reason == "ProgressDeadlineExceeded"


def test_strategy_canary_is_refused_for_what_is_no_deployment() -> None:
    """The API refuses it too; one that was stored without the rule is told all the same."""
    world = World(spec=spec(target=STATEFUL_SET, rollout={"strategy": "Canary"}), target_kinds=BOTH)
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "StrategyUnfit"
    assert "not for StatefulSet digits: take RollingUpdate" in message_of(world, ConditionType.TARGET_RESOLVED)


def test_a_target_that_does_not_bring_the_field_to_its_pods_gets_nothing() -> None:
    """Blocked in the words of the kind, and on as soon as that is mended."""
    world = World(unfit="its updateStrategy OnDelete replaces no pod by itself: take RollingUpdate")
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "NotFollowable"
    assert "Deployment digits: its updateStrategy OnDelete" in message_of(world, ConditionType.TARGET_RESOLVED)
    world.unfit = None
    world.run_to_promotion()
    assert state_of(world, ConditionType.READY) is ConditionStatus.TRUE


def test_a_target_that_becomes_unfit_has_its_version_taken_back_all_the_same() -> None:
    """What a rollout has begun is undone, whatever others do to the target meanwhile."""
    world = World()
    world.run_to_rollout()
    original = champion_of(world).injected_value
    world.unfit = "its rollingUpdate.partition 1 keeps earlier pods as they are: set it to 0"
    world.wait(3600)
    world.reconcile()
    assert world.value == original
    world.settled = True
    world.reconcile()
    assert last_of(world).reason == "ProgressDeadlineExceeded"
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "NotFollowable"


def undone(world: World) -> str:
    """Have a version taken back after a wrong answer; returns its value."""
    world.run_to_rollout()
    value = world.value
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.settled = False
    world.reconcile()
    assert value is not None
    return value


def test_a_broken_pod_of_a_version_that_is_undone_is_replaced() -> None:
    """Its controller would wait for it for ever. Nobody else's pod is, nor one of the champion's."""
    world = World()
    value = undone(world)
    others: tuple[LatePod, ...] = (
        LatePod("digits-0", "a", champion_of(world).injected_value),
        LatePod("digits-1", "b", "pvc://theirs/x"),
    )
    world.behind = (*others, LatePod("digits-2", "c", value))
    world.reconcile()
    left: tuple[LatePod, ...] = world.behind
    assert left == others
    world.settled = True
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "RolledBack"


def test_a_broken_pod_that_may_not_be_deleted_is_named() -> None:
    """A person can delete it; until then the same is said, and nothing flaps."""
    world = World(pods_kept=True)
    value = undone(world)
    world.behind = (LatePod("digits-2", "c", value),)
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Forbidden"
    assert "waits for a broken pod: delete digits-2" in message_of(world, ConditionType.ROLLED_OUT)
    assert world.reconcile() == 0


def test_without_a_rollout_no_pod_is_touched() -> None:
    """A pod that is not ready may be anything."""
    world = World()
    world.run_to_promotion()
    world.behind = (LatePod("digits-2", "c", world.value),)
    world.reconcile()
    assert world.behind


PAUSE = "it is paused by step 2 of 4 of its own: whoever owns it lets it go on"


def test_the_deadline_waits_while_the_owner_has_the_word_and_is_whole_afterwards() -> None:
    """A person may take a week to promote, and the pods of the steps after it get their time all the same."""
    world = World(spec=spec(target={"ref": {"name": "digits"}}))
    world.run_to_rollout()
    world.wait(300)
    world.reconcile()
    world.held = PAUSE
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "HeldByTarget"
    assert PAUSE in message_of(world, ConditionType.ROLLED_OUT)
    for _ in range(7):
        world.wait(24 * 3600)
        assert world.reconcile() == 0
    world.held = None
    world.reconcile()
    world.wait(590)
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "Progressing"
    world.wait(20)
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "ProgressDeadlineExceeded"
    assert world.value == champion_of(world).injected_value


def test_the_first_pods_are_asked_while_the_owner_has_the_word() -> None:
    """A wrong answer takes the version back before it gets more pods."""
    world = World()
    world.run_to_rollout()
    world.held, world.early = PAUSE, True
    world.reconcile()
    (name,) = world.active_jobs()
    assert "verify" in name
    world.fail(name, Reason.GOLDEN_MISMATCH)
    world.held = None
    world.reconcile()
    assert world.value == champion_of(world).injected_value
    assert is_rejected(world)


def given_up(*, by_analysis: bool, crash: bool = False) -> World:
    """A rollout whose target has gone back by itself."""
    world = World()
    world.run_to_rollout()
    world.reconcile()
    if crash:
        world.crash = Incident("pod x: container server: ended with exit code 1", world.now)
    world.aborted = Abort("Rollout aborted update to revision 2", by_analysis=by_analysis)
    world.reconcile()
    assert world.value == champion_of(world).injected_value
    world.settled, world.aborted, world.crash = True, None, None
    world.reconcile()
    return world


def test_a_version_that_the_target_s_own_analysis_failed_is_rejected() -> None:
    """The owner has written down what a version must keep."""
    world = given_up(by_analysis=True)
    assert last_of(world).reason == "RolloutAborted"
    assert "Rollout aborted update to revision 2" in last_of(world).message
    assert is_rejected(world)


def test_a_version_that_was_given_up_for_no_known_reason_is_not_held_to_blame() -> None:
    """A person, or a deadline: the sentence says that nothing shows whose doing it was."""
    world = given_up(by_analysis=False)
    assert not is_rejected(world)
    assert "Not rejected: nothing shows" in last_of(world).message


def test_a_version_that_crashed_before_it_was_given_up_is_rejected() -> None:
    """Its own container says whose doing it was."""
    assert is_rejected(given_up(by_analysis=False, crash=True))


def test_a_rollback_that_the_owner_s_steps_hold_says_who_ends_it() -> None:
    """The value is put back; the steps are not Retune's to take."""
    world = World()
    undone(world)
    world.weather = PAUSE
    world.reconcile()
    assert PAUSE in (world.resource.status.message or "")
