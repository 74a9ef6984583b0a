"""The planner by example: another model is delivered while a champion serves (rollout.deliveredModel)."""

from typing import Any

import pytest

from retune.api.status import ConditionStatus, ConditionType, Outcome, Stage, Version
from retune.contract.requests import JudgeRequest, SearchRequest
from retune.contract.results import BaselineResult, JudgeResult, Reason, Verdict
from retune.plan.draft import condition_of
from retune.plan.kept import kept
from tests.answers import stored
from tests.unit.plan.reading import champion_of
from tests.unit.plan.world import World, spec

FIRST = {"uri": "pvc://store/digits/model.onnx"}
SECOND = {"uri": "pvc://store/digits/week-2.onnx"}
THIRD = {"uri": "pvc://store/digits/week-3.onnx"}
GOES_LIVE = {"deliveredModel": "GoesLive"}


def world_of(*, promoted: bool, rollout: dict[str, Any] | None = None, **changes: Any) -> World:
    """Return a world in which a run's version is champion, or the first delivered model still is."""
    world = World(spec=spec(rollout=rollout if rollout is not None else GOES_LIVE, **changes))
    if promoted:
        world.run_to_promotion()
    else:
        world.settle()
    world.reconcile()
    return world


def deliver(world: World, model: dict[str, str], **changes: Any) -> str:
    """Deliver a model and measure it; returns the name of the Job that is started then."""
    world.change(model=model, **changes)
    world.reconcile()
    (baseline,) = world.active_jobs()
    world.finish(baseline)
    world.reconcile()
    (name,) = world.active_jobs()
    return name


def judge(world: World, verdict: Verdict = Verdict.PROMOTE, **told: str) -> None:
    """Let the only Job under way, a judge, give its verdict."""
    (name,) = world.active_jobs()
    result = world.answer(name, verdict)
    assert isinstance(result, JudgeResult)
    world.finish(name, result.model_copy(update=told))
    world.reconcile()


def original_of(world: World) -> Version:
    """The newest delivered model."""
    assert world.resource.status.original is not None
    return world.resource.status.original


def said(world: World) -> tuple[ConditionStatus, str]:
    """Status and reason of DeliveredLive."""
    shown = condition_of(world.resource.status, ConditionType.DELIVERED_LIVE)
    assert shown is not None
    return shown.status, shown.reason


def sentence(world: World) -> str:
    """What DeliveredLive says."""
    shown = condition_of(world.resource.status, ConditionType.DELIVERED_LIVE)
    assert shown is not None
    return shown.message


def finish_rollout(world: World) -> None:
    """Let a version that was given to the target pass all that is left."""
    world.settled = True
    world.reconcile()
    for name in [name for name in world.active_jobs() if "verify" in name]:
        world.finish(name)
        world.reconcile()
    world.wait(600)
    world.reconcile()


def test_without_the_policy_a_delivered_model_only_starts_a_search() -> None:
    """The champion serves on; the next run makes candidates from the new model and says so."""
    world = world_of(promoted=True, rollout={})
    champion, served = champion_of(world), world.value
    name = deliver(world, SECOND)
    assert name == "digits-r2-search"
    assert (champion_of(world), world.value) == (champion, served)
    assert said(world) == (ConditionStatus.FALSE, "MustWin")
    request = world.requests[name]
    assert isinstance(request, SearchRequest)
    assert request.original.digest == original_of(world).digest
    assert "DeliveredLive" not in [event.reason for event in world.events if event.warning]
    assert [event.reason for event in world.events].count("MustWin") == 1


@pytest.mark.parametrize("promoted", [True, False])
def test_a_delivered_model_is_judged_beside_the_champion_and_goes_live_by_the_same_steps(*, promoted: bool) -> None:
    """It keeps its number from baseline to champion; the champion serves until it has passed every step."""
    world = world_of(promoted=promoted)
    champion, served = champion_of(world), world.value
    name = deliver(world, SECOND)
    assert name == "digits-r2-judge"
    request = world.requests[name]
    assert isinstance(request, JudgeRequest)
    assert request.delivered
    assert (request.champion.digest, request.original.digest) == (champion.digest, original_of(world).digest)
    assert (champion_of(world), world.value, said(world)[1]) == (champion, served, "Judging")
    judge(world)
    candidate = world.resource.status.candidate
    assert candidate is not None
    assert (candidate.version, candidate.digest) == (original_of(world).version, original_of(world).digest)
    assert (champion_of(world), world.value, said(world)[1]) == (champion, candidate.uri, "Accepted")
    finish_rollout(world)
    assert (champion_of(world).digest, said(world)) == (candidate.digest, (ConditionStatus.TRUE, "Serves"))
    assert champion.version in {version.version for version in kept(world.resource.status)}
    assert world.active_jobs() == ["digits-r3-search"]


def test_candidates_follow_and_the_one_that_wins_is_known_to_be_made_from_it() -> None:
    """After the delivered model its optimized form takes over, and nothing starts after that by itself."""
    world = world_of(promoted=True)
    deliver(world, SECOND)
    judge(world)
    finish_rollout(world)
    world.promote()
    champion = champion_of(world)
    assert (champion.made_from, champion.run_name) == (original_of(world).model_digest, "digits-r3")
    assert said(world) == (ConditionStatus.TRUE, "OptimizedServes")
    world.wait(3600)
    assert world.reconcile() == 0
    assert world.active_jobs() == []


@pytest.mark.parametrize("promoted", [True, False])
def test_a_worse_delivered_model_stays_off_with_the_judges_sentence_and_candidates_follow(*, promoted: bool) -> None:
    """Condition and Event have the reason; what served serves, and what follows must win against it."""
    world = world_of(promoted=promoted)
    champion, served = champion_of(world), world.value
    deliver(world, SECOND)
    judge(world, Verdict.GATE_FAILED, reason="AccuracyBelowMargin", message="Accuracy 0.90 is below the limit of 0.96.")
    assert (champion_of(world), world.value) == (champion, served)
    assert said(world) == (ConditionStatus.FALSE, "AccuracyBelowMargin")
    assert "stays off" in sentence(world)
    assert "Accuracy 0.90 is below the limit of 0.96." in sentence(world)
    assert ("AccuracyBelowMargin", True) in [(event.reason, event.warning) for event in world.events]
    assert world.active_jobs() == ["digits-r3-search"]
    world.end_run(Verdict.NO_GAIN)
    assert (champion_of(world), world.active_jobs()) == (champion, [])
    assert "Accuracy 0.90" in sentence(world), "the search's own end does not hide why"
    assert world.reconcile() == 0


def test_a_broken_file_leaves_the_champion_and_is_told() -> None:
    """The baseline fails and nothing else happens; a revert is measured at once."""
    world = world_of(promoted=True)
    champion, served = champion_of(world), world.value
    world.change(model=SECOND)
    world.reconcile()
    (baseline,) = world.active_jobs()
    world.fail(baseline, Reason.MODEL_INVALID)
    world.reconcile()
    assert (champion_of(world), world.value, world.active_jobs()) == (champion, served, [])
    baselined = condition_of(world.resource.status, ConditionType.BASELINED)
    assert baselined is not None
    assert (baselined.status, baselined.reason) == (ConditionStatus.FALSE, "ModelInvalid")
    world.change(model=FIRST)
    world.reconcile()
    assert (champion_of(world), world.active_jobs()) == (champion, [])


def test_models_that_cannot_be_compared_end_the_run_and_nothing_follows() -> None:
    """A model of another kind is refused in the Job's words; only a person goes on from there."""
    world = world_of(promoted=True)
    champion = champion_of(world)
    world.fail(deliver(world, SECOND), Reason.MODELS_DIFFER)
    world.reconcile()
    assert (champion_of(world), world.active_jobs()) == (champion, [])
    assert said(world) == (ConditionStatus.FALSE, "ModelsDiffer")
    assert world.reconcile() == 0
    world.change(manualNonce="again")
    world.reconcile()
    assert world.active_jobs() == ["digits-r3-judge"]


def test_a_delivered_model_that_fails_on_the_target_is_rejected_like_any_version() -> None:
    """The champion returns, no candidate is made from it by itself, and retry lets it be judged again."""
    world = world_of(promoted=True)
    champion, served = champion_of(world), world.value
    deliver(world, SECOND)
    judge(world)
    world.settled = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.reconcile()
    world.settled = True
    world.reconcile()
    status, digest = world.resource.status, original_of(world).digest
    assert (champion_of(world), world.value) == (champion, served)
    assert [entry.digest for entry in status.rejected] == [digest]
    assert said(world) == (ConditionStatus.FALSE, "GoldenMismatch")
    assert world.active_jobs() == []
    world.change(rollout=GOES_LIVE | {"retry": digest})
    world.reconcile()
    assert world.active_jobs() == ["digits-r3-judge"]


def test_a_revert_to_the_model_that_the_champion_was_made_from_judges_nothing_anew() -> None:
    """An unoptimized model never takes the place of what was made from it."""
    world = world_of(promoted=True)
    champion = champion_of(world)
    deliver(world, SECOND)
    world.change(model=FIRST)
    world.reconcile()
    assert world.active_jobs() == ["digits-r3-search"], "its baseline has its answer already"
    assert (champion_of(world), said(world)) == (champion, (ConditionStatus.TRUE, "OptimizedServes"))


def test_a_revert_while_the_first_model_serves_makes_it_the_delivered_one_again() -> None:
    """Version 1 served all the time: it is original and champion, by its own number."""
    world = world_of(promoted=False)
    first = champion_of(world)
    deliver(world, SECOND)
    assert (champion_of(world), original_of(world).version) == (first, 2)
    world.change(model=FIRST)
    world.reconcile()
    assert champion_of(world) == original_of(world)
    assert (champion_of(world).version, world.value) == (1, None)
    assert said(world) == (ConditionStatus.TRUE, "Serves")


@pytest.mark.parametrize(("promoted", "back"), [(False, "1"), (True, "1"), (True, "2")])
def test_a_person_puts_back_what_served_before_a_delivered_model(*, promoted: bool, back: str) -> None:
    """Version 1 returns in the target's own way, version 2 by its bundle; what they replace is not proposed again."""
    world = world_of(promoted=promoted)
    deliver(world, SECOND)
    judge(world)
    finish_rollout(world)
    live = champion_of(world)
    known = {str(version.version): version.injected_value for version in kept(world.resource.status)}
    world.change(rollout=GOES_LIVE | {"rollbackTo": back})
    world.promote()
    assert (str(champion_of(world).version), world.value) == (back, known[back])
    assert live.digest in {entry.digest for entry in world.resource.status.rejected}
    world.change(rollout=GOES_LIVE)
    world.reconcile()
    assert all("judge" not in name for name in world.active_jobs())


@pytest.mark.parametrize(("promoted", "known"), [(False, [1, 2]), (True, [1, 2, 3])])
def test_the_first_model_is_put_back_in_the_targets_own_way(*, promoted: bool, known: list[int]) -> None:
    """Once a delivered model serves by its bundle, an empty variable still means version 1, whoever empties it."""
    world = world_of(promoted=promoted)
    deliver(world, SECOND)
    judge(world)
    finish_rollout(world)
    live = champion_of(world)
    assert [version.version for version in kept(world.resource.status)] == known
    world.edit_field(None, None)
    world.reconcile()
    assert (champion_of(world).version, champion_of(world).injected_value) == (1, None)
    assert live.digest in {entry.digest for entry in world.resource.status.rejected}


@pytest.mark.parametrize("promoted", [True, False])
def test_a_model_that_never_served_cannot_be_rolled_back_to(*, promoted: bool) -> None:
    """What was judged worse is no earlier version: the name is told to be unknown, and nothing moves."""
    world = world_of(promoted=promoted)
    champion, served = champion_of(world), world.value
    deliver(world, SECOND)
    judge(world, Verdict.GATE_FAILED)
    world.end_run(Verdict.NO_GAIN)
    world.change(rollout=GOES_LIVE | {"rollbackTo": str(original_of(world).version)})
    world.reconcile()
    assert (champion_of(world), world.value) == (champion, served)
    followed = condition_of(world.resource.status, ConditionType.COMMANDS_FOLLOWED)
    assert followed is not None
    assert followed.reason == "RollbackUnknown"


def test_model_and_data_may_change_at_once() -> None:
    """Both models are judged on the data that the spec names now."""
    world = world_of(promoted=True)
    data = world.spec.data.model_dump(mode="json", by_alias=True, exclude_none=True)
    name = deliver(world, SECOND, data=data | {"test": {"uri": "pvc://store/digits/test-2.npz"}})
    request = world.requests[name]
    assert isinstance(request, JudgeRequest)
    assert request.data.test is not None
    assert request.data.test.uri == "pvc://store/digits/test-2.npz"


def test_a_model_that_is_replaced_while_it_is_judged_gives_way() -> None:
    """The run is cancelled, the next delivered model is measured and judged against the same champion."""
    world = world_of(promoted=True)
    champion = champion_of(world)
    deliver(world, SECOND)
    assert deliver(world, THIRD) == "digits-r3-judge"
    assert world.runs["digits-r2"].status.outcome is Outcome.CANCELLED
    judge(world)
    finish_rollout(world)
    assert champion_of(world).version > champion.version
    assert champion_of(world).digest == stored("pvc://retune-artifacts/digits", THIRD["uri"]).digest


def test_an_approval_is_asked_for_a_delivered_model_too() -> None:
    """It waits for its own digest; nothing is given to the target before, and candidates wait for it."""
    world = world_of(promoted=True)
    served = world.value
    world.change(rollout=GOES_LIVE | {"approval": "Manual"})
    deliver(world, SECOND)
    judge(world)
    assert (world.resource.status.stage, world.value) == (Stage.AWAITING_APPROVAL, served)
    approved = GOES_LIVE | {"approval": "Manual", "approvedVersion": original_of(world).digest}
    world.change(rollout=approved)
    world.reconcile()
    finish_rollout(world)
    assert champion_of(world).digest == original_of(world).digest


def test_a_delivered_model_is_proposed_where_git_changes_the_target() -> None:
    """Mode Propose says what to set, proves it once it is there, and then makes candidates from it."""
    world = world_of(promoted=True)
    served = world.value
    world.change(mode="Propose")
    deliver(world, SECOND)
    judge(world)
    assert (world.resource.status.stage, world.value) == (Stage.AWAITING_APPROVAL, served)
    assert world.active_jobs() == [], "no search of its own takes its place"
    world.edit_field(original_of(world).uri, "flux")
    world.reconcile()
    finish_rollout(world)
    assert (champion_of(world).digest, world.active_jobs()) == (original_of(world).digest, ["digits-r3-search"])


def test_a_canary_tries_a_delivered_model_first() -> None:
    """Strategy Canary gives it its share before the target is given it."""
    world = world_of(promoted=True)
    served = world.value
    world.change(rollout=GOES_LIVE | {"strategy": "Canary"})
    deliver(world, SECOND)
    judge(world)
    assert world.value == served
    assert world.beside is not None
    assert world.beside.value == original_of(world).uri


def test_a_policy_that_is_taken_back_ends_the_judging_and_starts_the_search() -> None:
    """MustWin holds from the moment that it is written, and back again at the next run."""
    world = world_of(promoted=True)
    deliver(world, SECOND)
    world.change(rollout={"deliveredModel": "MustWin"})
    world.reconcile()
    assert world.runs["digits-r2"].status.outcome is Outcome.CANCELLED
    assert (world.active_jobs(), said(world)[1]) == (["digits-r3-search"], "MustWin")


def test_a_verdict_on_another_bundle_is_not_believed() -> None:
    """A judge of the delivered model may promote nothing else."""
    world = world_of(promoted=True)
    champion = champion_of(world)
    name = deliver(world, SECOND)
    result = world.answer(name)
    assert isinstance(result, JudgeResult)
    assert result.candidate is not None
    other = result.candidate.model_copy(update={"bundle": stored("pvc://retune-artifacts/digits", "other")})
    world.finish(name, result.model_copy(update={"candidate": other}))
    world.reconcile()
    assert (champion_of(world), world.resource.status.candidate) == (champion, None)
    assert said(world) == (ConditionStatus.FALSE, "ResultForeign")


@pytest.mark.parametrize("writes", [0, 1, 2, 4, 7, 11, 16])
def test_the_operator_may_die_at_a_write_of_a_delivery(writes: int) -> None:
    """Whatever was written last, the next process goes on and ends with the delivered model as champion."""
    world = world_of(promoted=False)
    world.change(model=SECOND)
    world.crash_after = writes
    for _ in range(9):
        world.survive()
        for name in world.active_jobs():
            if "search" not in name:
                world.finish(name)
        world.settled = True
        world.wait(60)
    assert champion_of(world).digest == original_of(world).digest
    assert sorted(world.runs) == ["digits-r1", "digits-r2", "digits-r3"]


def test_a_target_without_a_run_of_ours_and_a_file_that_is_followed_serves_the_file() -> None:
    """Where the target loads the followed file itself, a new one serves as soon as a pod restarts: nothing is held."""
    world = world_of(promoted=False, model=FIRST | {"updatePolicy": "Follow"}, monitoring={"window": "1h"})
    world.change(model=SECOND | {"updatePolicy": "Follow"})
    world.reconcile()
    for name in world.active_jobs():
        if "-b" in name:
            world.finish(name)
    world.reconcile()
    assert champion_of(world).digest == original_of(world).digest


def test_restore_original_gives_back_what_the_target_had_before() -> None:
    """Deletion returns the value of before the first rollout, however many models were delivered since."""
    world = world_of(promoted=False, deletionPolicy="RestoreOriginal")
    deliver(world, SECOND)
    judge(world)
    finish_rollout(world)
    assert (world.value, world.gone) == (original_of(world).uri, False)
    world.reconcile()
    world.delete()
    world.reconcile()
    assert (world.value, world.gone) == (None, True)


def test_a_lost_bundle_of_what_the_target_serves_itself_stops_comparisons_and_changes_nothing() -> None:
    """Nothing can be judged beside it: a person restores it, or says that the newest delivered model is what serves."""
    world = world_of(promoted=False)
    world.lose()
    deliver(world, SECOND)
    for _ in range(4):
        for name in world.active_jobs():
            world.finish(name)
        world.reconcile()
    assert (champion_of(world).version, world.value) == (1, None)
    lost = condition_of(world.resource.status, ConditionType.BUNDLE_AVAILABLE)
    assert lost is not None
    assert (lost.status, lost.reason, world.active_jobs()) == (ConditionStatus.FALSE, "BundleLost", [])
    assert "in its own way" in lost.message
    world.change(rollout={"deliveredModel": "MustWin"})
    world.reconcile()
    assert (champion_of(world).version, world.value) == (2, None)


def test_a_proposal_that_gave_way_to_another_run_is_judged_again() -> None:
    """While it waits, a person may start a search; where that brings nothing, the next run has the model again."""
    world = world_of(promoted=True)
    world.change(mode="RecommendOnly")
    deliver(world, SECOND)
    judge(world)
    assert (world.resource.status.candidate is not None, world.active_jobs(), said(world)[1]) == (True, [], "Accepted")
    world.change(manualNonce="one")
    world.reconcile()
    assert world.active_jobs() == ["digits-r3-search"]
    world.end_run(Verdict.NO_GAIN)
    assert said(world) == (ConditionStatus.FALSE, "NotJudged")
    world.change(manualNonce="two")
    world.reconcile()
    assert world.active_jobs() == ["digits-r4-judge"]


@pytest.mark.parametrize("promoted", [True, False])
def test_other_data_make_no_newly_delivered_model(*, promoted: bool) -> None:
    """The bundle of the same file is another one then; it takes the place of nothing, and a search follows."""
    world = world_of(promoted=promoted)
    served = world.value
    data = world.spec.data.model_dump(mode="json", by_alias=True, exclude_none=True)
    world.change(data=data | {"validation": {"uri": "pvc://store/digits/validation-2.npz"}})
    world.reconcile()
    (baseline,) = world.active_jobs()
    result = world.answer(baseline)
    assert isinstance(result, BaselineResult)
    other = result.model_copy(update={"bundle": stored("pvc://retune-artifacts/digits", "other rows")})
    world.finish(baseline, other)
    world.reconcile()
    assert (world.active_jobs(), world.value) == (["digits-r2-search"], served)
    assert said(world)[0] is ConditionStatus.TRUE


def test_what_has_become_of_the_delivered_model_is_told_from_the_first_one_on() -> None:
    """Nobody need know whether another one was delivered before: the word is the same after any history."""
    assert said(world_of(promoted=False)) == (ConditionStatus.TRUE, "Serves")
    assert said(world_of(promoted=True)) == (ConditionStatus.TRUE, "OptimizedServes")


def test_nothing_is_told_of_a_champion_whose_origin_an_older_release_did_not_note() -> None:
    """Whether it was made from the delivered model is not known, and a guess could be wrong."""
    world = world_of(promoted=True)
    status = world.resource.status
    unnoted = original_of(world).model_copy(update={"model_digest": None})
    champion = champion_of(world).model_copy(update={"made_from": None})
    conditions = [shown for shown in status.conditions if shown.type != ConditionType.DELIVERED_LIVE]
    older = {"original": unnoted, "champion": champion, "conditions": conditions}
    world.resource = world.resource.model_copy(update={"status": status.model_copy(update=older)})
    world.reconcile()
    assert condition_of(world.resource.status, ConditionType.DELIVERED_LIVE) is None
