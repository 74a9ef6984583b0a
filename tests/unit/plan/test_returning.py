"""A person's rollback by example: any kept version, at once and safely, and it stays while the field is there."""

import pytest

from retune.api.status import ConditionType, Outcome, Stage, Version
from retune.contract.requests import SearchRequest, VerifyRequest
from retune.contract.results import Reason, Verdict
from retune.metrics import ROLLBACK_REASONS
from retune.plan.observed import Incident
from tests.answers import digest_of
from tests.kstatus import Kstatus, kstatus, seen_by_kstatus
from tests.unit.plan.reading import champion_of, last_of, message_of
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.world import World, spec


@pytest.fixture
def world() -> World:
    """A world whose champion is version 3, after version 2 and the delivered model."""
    world = World()
    world.run_to_promotion()
    world.change(manualNonce="again")
    world.reconcile()
    world.promote()
    assert champion_of(world).version == 3
    return world


def kept(world: World, number: int) -> Version:
    """Return an earlier version."""
    return next(version for version in world.resource.status.versions if version.version == number)


def waits(world: World) -> bool:
    """Whether a candidate waits."""
    return world.resource.status.candidate is not None


def ask(world: World, name: str | None) -> None:
    """A person names a version to be put back, or takes the field out."""
    world.change(rollout={"rollbackTo": name} if name else {})
    world.reconcile()


def carry_out(world: World) -> None:
    """Let Jobs answer and pods be ready until nothing moves."""
    for _ in range(4):
        for name in world.active_jobs():
            world.finish(name)
        world.settled = True
        world.reconcile()


@pytest.mark.parametrize("by_digest", [False, True])
def test_an_earlier_version_serves_again_at_once(world: World, *, by_digest: bool) -> None:
    """By number or digest; what it replaces is rejected, and the last run says what has become of it."""
    second, third = kept(world, 2), champion_of(world)
    ask(world, second.digest if by_digest else "2")
    carry_out(world)
    status = world.resource.status
    assert (champion_of(world).version, world.value) == (2, second.injected_value)
    assert [entry.digest for entry in status.rejected] == [third.digest]
    assert reason_of(world, ConditionType.ROLLED_OUT) == "RolledBackByPerson"
    assert "a person put version 2 back in place of version 3" in last_of(world).message
    assert (last_of(world).outcome, status.triggers.rollback_streak) == (Outcome.PROMOTED, 0)
    assert status.last_rollback is not None
    assert (status.last_rollback.failed, status.last_rollback.replaced_version) == (None, 3)
    assert kstatus(seen_by_kstatus(world.resource)) is Kstatus.CURRENT
    assert world.reconcile() == 0


def test_the_steps_of_a_rollback_are_those_that_show_the_version(world: World) -> None:
    """Its bundle is looked for before anything is touched; then golden requests, by Jobs of its own."""
    value = world.value
    ask(world, "2")
    (look,) = world.active_jobs()
    request = world.requests[look]
    assert isinstance(request, VerifyRequest)
    assert request.bundle_alone
    assert (request.bundle.digest, world.value) == (kept(world, 2).digest, value)
    assert stage_of(world) is Stage.ROLLING_BACK
    world.finish(look)
    world.settled = False
    world.reconcile()
    assert world.value == kept(world, 2).injected_value
    world.settled = True
    world.reconcile()
    assert world.active_jobs() == ["digits-back1-verify1"]
    world.finish("digits-back1-verify1")
    world.reconcile()
    assert champion_of(world).shown_by == "Digest"
    assert champion_of(world).version == 2


def test_the_delivered_model_is_a_version_that_can_be_put_back(world: World) -> None:
    """The field gets its first value back; no bundle answers for a server's own model, so nobody asks it."""
    ask(world, "1")
    assert world.active_jobs() == []
    carry_out(world)
    assert (champion_of(world), world.value) == (world.resource.status.original, None)
    assert reason_of(world, ConditionType.TARGET_OWNED) == "LeaseHeld"


@pytest.mark.parametrize("mode", ["Automatic", "RecommendOnly", "ObserveOnly"])
def test_a_person_is_obeyed_in_every_mode(world: World, mode: str) -> None:
    """The mode says how far the operator goes by itself."""
    world.change(mode=mode)
    ask(world, "2")
    carry_out(world)
    assert champion_of(world).version == 2


def test_a_lost_bundle_changes_nothing(world: World) -> None:
    """Fault 23: told in words, as something that waits for a person, and tried again once the spec was edited."""
    world.lost.add(kept(world, 2).digest)
    ask(world, "2")
    carry_out(world)
    assert (champion_of(world).version, stage_of(world)) == (3, Stage.BLOCKED)
    assert len(world.served) == 2
    assert "version 2 could not be put back" in (world.resource.status.message or "")
    assert reason_of(world, ConditionType.COMMANDS_FOLLOWED) == "RollbackFailed"
    assert reason_of(world, ConditionType.READY) == "ChampionServing"
    assert world.reconcile() == 0
    world.lost.clear()
    world.change(manualNonce="restored")
    world.reconcile()
    carry_out(world)
    assert champion_of(world).version == 2


def test_a_store_that_nobody_can_ask_does_not_keep_a_person_waiting(world: World) -> None:
    """A quota that admits no Job must not keep a bad version serving: pods show whether the bundle opens."""
    world.quota = True
    ask(world, "2")
    assert world.value == kept(world, 2).injected_value


@pytest.mark.parametrize("name", ["9", digest_of("nothing")])
def test_a_name_that_fits_nothing_changes_nothing(world: World, name: str) -> None:
    """The sentence says which versions are kept."""
    ask(world, name)
    assert (champion_of(world).version, stage_of(world)) == (3, Stage.BLOCKED)
    assert reason_of(world, ConditionType.COMMANDS_FOLLOWED) == "RollbackUnknown"
    assert "kept: 1, 2, 3" in message_of(world, ConditionType.COMMANDS_FOLLOWED)
    ask(world, None)
    assert stage_of(world) is Stage.MONITORING
    assert reason_of(world, ConditionType.COMMANDS_FOLLOWED) == "Followed"


@pytest.mark.parametrize("is_baking", [False, True])
def test_a_name_that_fits_nothing_lets_no_trial_go_on(*, is_baking: bool) -> None:
    """Who mistypes the version to go back to gets the champion, and the version on trial is not held to be bad."""
    world = World()
    world.run_to_bake() if is_baking else world.run_to_rollout()
    champion = champion_of(world)
    ask(world, "99")
    carry_out(world)
    assert (world.value, champion_of(world)) == (champion.injected_value, champion)
    assert world.resource.status.rollout is None
    assert not world.resource.status.rejected
    assert reason_of(world, ConditionType.COMMANDS_FOLLOWED) == "RollbackUnknown"
    assert last_of(world).reason in ROLLBACK_REASONS
    assert world.reconcile() == 0


def test_a_version_that_answers_wrongly_is_not_put_back(world: World) -> None:
    """What served before serves on, and nothing is tried again without a person."""
    third = champion_of(world)
    ask(world, "2")
    world.finish(world.active_jobs()[0])
    world.reconcile()
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    carry_out(world)
    assert (champion_of(world), world.value) == (third, third.injected_value)
    assert world.resource.status.rejected == ()
    assert reason_of(world, ConditionType.ROLLED_OUT) == "RollbackFailed"
    last = world.resource.status.last_rollback
    assert last is not None
    assert last.failed == "GoldenMismatch"
    assert world.reconcile() == 0


def test_what_serves_already_is_kept_and_not_touched(world: World) -> None:
    """A rollbackTo that is served does nothing but pin."""
    served = list(world.served)
    ask(world, "3")
    assert (world.served, world.active_jobs()) == (served, [])
    assert "version 3 stays, as spec.rollout.rollbackTo says" in (world.resource.status.message or "")
    assert "`kubectl retune unpin digits -n ml`" in (world.resource.status.message or "")


def test_while_a_version_is_kept_no_run_starts_and_none_goes_on(world: World) -> None:
    """A promotion that a stale field undoes, or a field that a promotion makes stale: neither happens."""
    world.change(manualNonce="more")
    world.reconcile()
    assert world.active_jobs() == ["digits-r3-search"]
    ask(world, "3")
    assert world.active_jobs() == []
    assert (last_of(world).outcome, last_of(world).reason) == (Outcome.CANCELLED, "Pinned")
    world.change(manualNonce="still more")
    world.reconcile()
    assert world.active_jobs() == []
    assert world.resource.status.triggers.held == "spec.rollout.rollbackTo keeps version 3"
    ask(world, None)
    assert world.active_jobs() == ["digits-r4-search"]


def test_the_version_that_was_rolled_back_from_does_not_come_back_without_a_word() -> None:
    """A search is told to leave it out; rollout.retry lets it be found again."""
    world = World(bundles=1)
    world.run_to_promotion()
    second = champion_of(world)
    ask(world, "1")
    carry_out(world)
    ask(world, None)
    assert world.active_jobs() == []
    world.change(manualNonce="again")
    world.reconcile()
    search = world.requests[world.active_jobs()[0]]
    assert isinstance(search, SearchRequest)
    assert search.rejected == (second.digest,)
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    assert (last_of(world).reason, world.value) == ("RejectedBefore", None)
    world.change(rollout={"retry": second.digest})
    world.reconcile()
    world.promote()
    world.wait(600)
    world.reconcile()
    assert champion_of(world).digest == second.digest


def test_a_version_on_trial_gives_way_to_the_one_that_a_person_wants() -> None:
    """Straight from one to the other, and not by way of the champion; it is rejected by the person's word."""
    world = World()
    world.run_to_promotion()
    second = champion_of(world)
    world.change(manualNonce="again")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    third = world.resource.status.candidate
    assert third is not None
    assert world.value == third.injected_value
    world.settled = False
    ask(world, "1")
    assert world.value is None
    assert (last_of(world).outcome, last_of(world).reason) == (Outcome.CANCELLED, "RolledBackByPerson")
    carry_out(world)
    assert champion_of(world).version == 1
    assert {entry.digest for entry in world.resource.status.rejected} == {second.digest, third.digest}
    assert second.injected_value not in world.served[-2:]


@pytest.mark.parametrize("is_excused", [False, True])
def test_a_version_that_had_failed_before_a_person_spoke_is_not_said_to_be_taken_back_by_one(
    world: World, *, is_excused: bool
) -> None:
    """Run and rejection tell why it was on its way back; one that was not to blame is not rejected for the person."""
    world.change(manualNonce="more")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    world.inject_refused, world.settled, world.weather = "Forbidden", False, "pod x: Evicted" if is_excused else None
    world.wait(601)
    world.reconcile()
    ask(world, "2")
    last, rejected = last_of(world), world.resource.status.rejected
    assert (last.outcome, last.reason) == (Outcome.ROLLED_BACK, "ProgressDeadlineExceeded")
    assert last.message.startswith("version 4 was rolled back: version 4 was not ready within 10m")
    assert [entry.reason for entry in rejected] == ([] if is_excused else ["ProgressDeadlineExceeded"])
    world.inject_refused = world.weather = None
    carry_out(world)
    assert (champion_of(world).version, world.value) == (2, champion_of(world).injected_value)


def test_a_rollback_to_the_champion_ends_a_trial(world: World) -> None:
    """That is how a person aborts; the champion was and stays the same."""
    third = champion_of(world)
    world.change(manualNonce="more")
    world.reconcile()
    for _ in range(2):
        world.finish(world.active_jobs()[0])
        world.reconcile()
    assert world.value != third.injected_value
    ask(world, "3")
    carry_out(world)
    assert (champion_of(world).version, world.value) == (3, third.injected_value)
    assert [entry.version for entry in world.resource.status.rejected] == [4]
    assert stage_of(world) is Stage.MONITORING


def test_a_person_who_names_another_version_meanwhile_gets_that_one(world: World) -> None:
    """The field counts as it is now."""
    ask(world, "2")
    world.finish(world.active_jobs()[0])
    world.settled = False
    world.reconcile()
    ask(world, "1")
    carry_out(world)
    assert champion_of(world).version == 1


def test_a_field_that_others_own_is_not_fought_over(world: World) -> None:
    """Without takeover, a person's word to Retune is none to a neighbour."""
    world.edit_field("file:///other", "neighbour")
    ask(world, "2")
    assert (world.value, stage_of(world)) == ("file:///other", Stage.BLOCKED)
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldConflict"


def test_a_rollback_that_others_kept_from_the_field_ends_once_nobody_wants_it(world: World) -> None:
    """They came between its look into the store and its write: what they set stays, and no wish outlives its field."""
    ask(world, "2")
    world.edit_field("file:///other", "neighbour")
    carry_out(world)
    assert (stage_of(world), world.value) == (Stage.BLOCKED, "file:///other")
    ask(world, None)
    assert world.resource.status.rollout is None
    assert reason_of(world, ConditionType.TARGET_OWNED) == "FieldChanged"
    assert world.value == "file:///other"


def test_a_rollback_whose_pods_do_not_come_is_given_up(world: World) -> None:
    """The champion's pods serve on, and the sentence has the pods' own trouble."""
    ask(world, "2")
    world.finish(world.active_jobs()[0])
    world.settled, world.crash = False, Incident("pod x: ended with exit code 3", world.now)
    world.reconcile()
    world.wait(700)
    world.reconcile()
    world.crash = None
    carry_out(world)
    assert champion_of(world).version == 3
    assert "was not ready within 10m" in message_of(world, ConditionType.COMMANDS_FOLLOWED)


@pytest.mark.parametrize("writes", range(7))
def test_killed_after_any_write_the_version_serves_all_the_same(world: World, writes: int) -> None:
    """Fault 1: the status names the rollback and its Jobs before there are any, and the next process goes on."""
    world.change(rollout={"rollbackTo": "2"})
    world.crash_after = writes
    for _ in range(6):
        world.survive()
        world.settled = True
        for name in world.active_jobs():
            world.finish(name)
    assert (champion_of(world).version, world.value) == (2, kept(world, 2).injected_value)
    assert world.resource.status.next_rollback == 2
    assert world.reconcile() == 0


def test_the_watch_begins_anew_with_the_version_that_serves() -> None:
    """Windows of the version before say nothing of this one."""
    world = World(spec=spec(monitoring={"production": {"uri": "pvc://store/production"}, "window": "1h"}))
    world.run_to_promotion()
    ask(world, "1")
    carry_out(world)
    watched, original = world.resource.status.monitoring, world.resource.status.original
    assert watched is not None
    assert original is not None
    assert watched.champion_digest == original.digest
    assert watched.since == world.now


def test_a_version_that_a_person_sets_by_hand_is_said_to_be_put_back(world: World) -> None:
    """What is known is recognized, whoever has set it."""
    world.edit_field(kept(world, 2).injected_value, "kubectl-edit")
    world.settled = True
    world.reconcile()
    assert champion_of(world).version == 2
    assert "version 2 was put back by hand (kubectl-edit)" in message_of(world, ConditionType.ROLLED_OUT)


def test_a_candidate_that_waits_is_dropped_with_the_champion_that_it_was_compared_with(world: World) -> None:
    """A verdict is about two versions."""
    world.change(mode="RecommendOnly", manualNonce="more")
    world.reconcile()
    world.end_run(Verdict.PROMOTE)
    assert waits(world)
    ask(world, "2")
    carry_out(world)
    assert not waits(world)
    assert champion_of(world).version == 2


def test_a_candidate_waits_while_the_champion_is_kept(world: World) -> None:
    """It was compared with the version that stays, and may go live once nothing is kept any more."""
    third = champion_of(world)
    world.change(mode="RecommendOnly", manualNonce="more")
    world.reconcile()
    world.end_run(Verdict.PROMOTE)
    world.change(mode="Automatic", rollout={"rollbackTo": "3"})
    world.reconcile()
    assert world.value == third.injected_value
    ask(world, None)
    assert world.value not in {third.injected_value, None}
