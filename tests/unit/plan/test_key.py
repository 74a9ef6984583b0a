"""A key of a ConfigMap as the owned field, by example: going back names a bundle, and agents turn a rollout back."""

import pytest

from retune.api.status import ConditionStatus, ConditionType, Stage
from retune.contract.results import Reason
from retune.plan.told import Abort, Obstacle
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of
from tests.unit.plan.test_loop import reason_of, state_of
from tests.unit.plan.world import World, spec

FIELD = "key uri of ConfigMap wanted"
TARGET = {
    "ref": {"name": "digits"},
    "injection": {"type": "ConfigMap", "configMap": {"name": "wanted", "key": "uri"}, "takeover": "Force"},
    "inference": {"modelName": "digits"},
}


def followed(**more: object) -> World:
    """A target whose agents follow an empty key, which a person has made."""
    return World(spec=spec(target=TARGET, **more), manager="kubectl-create")


def test_an_empty_key_is_the_delivered_model_and_nothing_is_written() -> None:
    """The server keeps what it serves; what would be written to go back is the model's own bundle."""
    world = followed()
    world.settle()
    assert (world.value, world.served) == (None, [])
    assert champion_of(world).injected_value == champion_of(world).uri
    assert state_of(world, ConditionType.READY) is ConditionStatus.TRUE
    assert world.reconcile() == 0


def test_a_version_goes_live_and_is_said_to_own_the_key() -> None:
    """By the steps of any rollout."""
    world = followed()
    world.run_to_promotion()
    assert world.value == champion_of(world).uri
    assert message_of(world, ConditionType.TARGET_OWNED) == f"{FIELD} names version 2 and is owned by Retune"
    assert world.reconcile() == 0


def test_going_back_from_the_first_version_names_the_delivered_models_bundle() -> None:
    """An emptied key would have servers keep the version that failed."""
    world = followed()
    world.run_to_rollout()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    assert world.value == champion_of(world).uri
    world.settled = True
    world.reconcile()
    assert (reason_of(world, ConditionType.ROLLED_OUT), champion_of(world).version) == ("RolledBack", 1)
    assert state_of(world, ConditionType.READY) is ConditionStatus.TRUE
    assert world.reconcile() == 0


@pytest.mark.parametrize("blamed", [True, False])
def test_an_agents_fault_turns_the_rollout_back_in_its_words(*, blamed: bool) -> None:
    """Rejected only where the fault is the version's own."""
    world = followed()
    world.run_to_rollout()
    words = "pod x: its agent says: model.onnx has digest sha256:0, and not sha256:1"
    world.aborted = Abort(words, by_analysis=blamed, reason="AgentFault")
    world.reconcile()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "AgentFault"
    assert words in message_of(world, ConditionType.ROLLED_OUT)
    assert world.value == champion_of(world).uri
    world.settled, world.aborted = True, None
    world.reconcile()
    assert (last_of(world).reason, is_rejected(world)) == ("AgentFault", blamed)
    assert ("Not rejected: nothing shows" in last_of(world).message) is not blamed


@pytest.mark.parametrize("value", [None, "pvc://elsewhere/of/others"])
def test_a_key_that_others_change_is_not_fought_over(value: str | None) -> None:
    """Emptied, too: the server keeps what it serves then, and the sentence says what to restore."""
    world = followed()
    world.run_to_promotion()
    world.edit_field(value, "kubectl-edit")
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldChanged"
    changed = f"{FIELD} of Deployment digits was set to {value or 'nothing'} by"
    assert message_of(world, ConditionType.TARGET_OWNED).startswith(changed)
    assert (world.value, world.reconcile()) == (value, 0)


def test_the_delivered_models_bundle_put_back_by_hand_is_a_decision() -> None:
    """As the variable's first value would be."""
    world = followed()
    world.run_to_promotion()
    original = world.resource.status.original
    assert original is not None
    world.edit_field(original.uri, "kubectl-edit")
    world.reconcile()
    assert (champion_of(world).version, last_of(world).reason) == (1, "RevertedByOthers")
    assert is_rejected(world)


def test_restoring_the_original_names_its_bundle() -> None:
    """The key was empty before, and is not emptied."""
    world = followed(deletionPolicy="RestoreOriginal")
    world.run_to_promotion()
    original = world.resource.status.original
    world.delete()
    world.reconcile()
    assert original is not None
    assert world.value == original.uri


def test_a_person_puts_the_delivered_model_back_by_its_bundle() -> None:
    """Golden requests can be asked of it then."""
    world = followed()
    world.run_to_promotion()
    world.change(rollout={"rollbackTo": "1"})
    world.promote()
    assert (champion_of(world).version, world.value) == (1, champion_of(world).uri)
    assert [name for name in world.jobs if "-back1-verify" in name]


@pytest.mark.parametrize("when", ["before", "during", "after"])
def test_a_key_that_is_not_there_is_told_and_nothing_is_done(when: str) -> None:
    """Before a Job runs, in a rollout and after one; the loop goes on once it is there."""
    world = followed()
    if when == "during":
        world.run_to_rollout()
    elif when == "after":
        world.run_to_promotion()
    served = list(world.served)
    world.obstacle = Obstacle("ConfigMapKeyNotFound", "ConfigMap wanted has no key uri below data")
    world.reconcile()
    assert reason_of(world, ConditionType.TARGET_RESOLVED) == "ConfigMapKeyNotFound"
    assert "Deployment digits: ConfigMap wanted has no key uri" in message_of(world, ConditionType.TARGET_RESOLVED)
    assert world.resource.status.stage is Stage.BLOCKED
    assert (world.served, world.reconcile()) == (served, 0)
    world.obstacle = None
    world.reconcile()
    assert state_of(world, ConditionType.TARGET_RESOLVED) is ConditionStatus.TRUE


def test_a_resource_whose_key_is_gone_can_be_deleted_in_a_rollout() -> None:
    """There is nothing to undo where nobody reads a key any more."""
    world = followed()
    world.run_to_rollout()
    world.obstacle = Obstacle("ConfigMapNotFound", "ConfigMap wanted does not exist")
    world.delete()
    world.reconcile()
    assert not world.resource.metadata.finalizers


def test_a_new_file_is_not_said_to_serve_where_the_key_names_a_bundle() -> None:
    """The agents follow the key, and the bundle of the model before it serves on."""
    world = followed()
    world.settle()
    first = champion_of(world)
    world.edit_field(first.uri, "kubectl-edit")
    world.change(model={"uri": "pvc://models/other.onnx", "format": "ONNX", "task": "Classification"})
    world.reconcile()
    for name in world.active_jobs():
        world.finish(name)
    world.reconcile()
    original = world.resource.status.original
    assert original is not None
    assert (champion_of(world).digest, original.injected_value) == (first.digest, original.uri)
    assert original.digest != first.digest
