"""A canary by example: what it gets, what it waits for, what ends it, and whose fault that is said to be."""

import pytest

from retune.api.status import ConditionType, Outcome, Stage
from retune.contract.results import Reason
from retune.metrics import ROLLBACK_REASONS
from retune.plan import Observed, Plan
from retune.plan.observed import Heard, Incident
from tests.unit.plan.reading import champion_of, is_rejected, last_of, message_of, rollout_of
from tests.unit.plan.test_loop import reason_of, stage_of
from tests.unit.plan.trial import (
    HOLD,
    answered,
    at_weight,
    hold,
    prove,
    strategy,
    to_last_weight,
    to_promotion,
    to_target,
    with_canary,
)
from tests.unit.plan.world import CrashError, World, spec

QUICK = {0.1: 9600.0, 0.5: 10000.0, float("inf"): 10000.0}
"""What a histogram of 10,000 requests holds of which nearly all are quick."""
CRASH = "pod y: container server: ended with exit code 3"


def is_over(world: World, reason: str) -> bool:
    """Whether the champion serves alone again, after a rollback for this reason, which metrics count from zero."""
    assert reason in ROLLBACK_REASONS
    alone = (world.beside, world.value, world.resource.status.rollout) == (None, None, None)
    return alone and (last_of(world).outcome, last_of(world).reason) == (Outcome.ROLLED_BACK, reason)


# --- the way up ------------------------------------------------------------------------------------------------------


def test_a_canary_takes_its_steps_in_order_and_leaves_nothing() -> None:
    """One pod is asked, then each weight is held; the target gets the version only after that, and is watched alone."""
    world = World(spec=spec(rollout=strategy()), wanted=9)
    seen: dict[tuple[str | None, int | None, int], None] = {}

    def note(_: Observed, decision: Plan) -> None:
        rollout, pods = decision.status.rollout, world.beside.replicas if world.beside else 0
        if rollout is not None and rollout.rollback_reason is None:
            seen[rollout.step, rollout.weight, pods] = None

    world.witness = note
    world.run_to_rollout()
    to_promotion(world)
    assert list(seen) == [
        ("CanaryGive", None, 0),
        ("CanaryGolden", None, 1),
        ("Weight", 10, 1),
        ("Weight", 50, 1),
        ("Weight", 50, 9),
        ("Give", None, 9),
        ("FirstGolden", None, 9),
        ("Golden", None, 9),
        ("CanaryEnd", None, 9),
        ("Bake", None, 0),
    ]
    assert champion_of(world).version == 2
    assert world.beside is None


def test_nothing_of_the_target_is_changed_before_the_last_weight_has_passed() -> None:
    """The champion's value stays while the canary is tried."""
    world = at_weight()
    to_last_weight(world)
    assert (world.value, world.served) == (None, [])
    assert rollout_of(world).weight == 50
    hold(world)
    assert len(world.served) == 1


@pytest.mark.parametrize(
    ("wanted", "weight", "surge", "pods", "effective"),
    [
        (1, 10, 100, 1, 50),
        (3, 10, 100, 1, 25),
        (9, 10, 100, 1, 10),
        (20, 10, 100, 2, 9),
        (4, 99, 100, 4, 50),
        (8, 50, 25, 2, 20),
    ],
)
def test_the_share_that_there_is_is_told_beside_the_one_that_is_wanted(
    wanted: int, weight: int, surge: int, pods: int, effective: int
) -> None:
    """Pods are whole, and no more than the surge allows: the status says what comes of that."""
    world = at_weight({"weight": weight, "hold": "5m"}, wanted=wanted, maxSurge=surge)
    assert world.beside is not None
    assert world.beside.replicas == pods
    assert (rollout_of(world).weight, rollout_of(world).effective_weight) == (weight, effective)


def test_a_weight_is_held_from_when_all_of_its_pods_are_ready() -> None:
    """Pods that come late do not shorten it."""
    world = at_weight()
    world.beside_slow = True
    hold(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "ScalingCanary"
    assert (rollout_of(world).weight, rollout_of(world).effective_weight) == (50, 0)
    hold(world)
    world.beside_settled = True
    world.reconcile()
    assert rollout_of(world).weight_start_time == world.now
    assert rollout_of(world).effective_weight == 50


def test_a_weight_waits_for_its_requests() -> None:
    """Time alone is no evidence where requests are counted; those of the weight before do not count again."""
    world = with_canary()
    world.beside_counts = answered(8)
    prove(world)
    hold(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "AwaitingRequests"
    world.wait(HOLD * 10)
    world.reconcile()
    assert rollout_of(world).weight == 10
    world.beside_counts = answered(108)
    world.reconcile()
    assert (rollout_of(world).weight, rollout_of(world).requests_before) == (50, "108")
    world.beside_counts = answered(207)
    hold(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "AwaitingRequests"
    world.beside_counts = answered(208)
    world.reconcile()
    assert rollout_of(world).injected


def test_requests_that_cannot_be_read_for_a_moment_are_still_waited_for() -> None:
    """Pods that were heard to count are not taken for pods that do not count."""
    world = with_canary()
    world.beside_counts = answered(0)
    prove(world)
    world.beside_counts = Heard(trouble="pod y: no answer")
    hold(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "AwaitingRequests"


def test_pods_that_count_no_requests_are_held_for_the_time_alone() -> None:
    """A server without counters is not waited for for ever."""
    world = at_weight()
    world.beside_counts = Heard(trouble="pod y: no answer")
    hold(world)
    assert rollout_of(world).weight == 50


def test_counters_that_begin_again_count_from_nothing() -> None:
    """Pods that were replaced within a weight have answered what they say."""
    world = with_canary()
    world.beside_counts = answered(5000)
    prove(world)
    world.beside_counts = answered(99)
    hold(world)
    assert rollout_of(world).weight == 10
    world.beside_counts = answered(100)
    world.reconcile()
    assert rollout_of(world).weight == 50


def test_large_numbers_of_requests_are_told_apart() -> None:
    """The seven-digit total of one weight is not rounded away at the next."""
    world = with_canary()
    world.beside_counts = answered(1234567)
    prove(world)
    world.beside_counts = answered(1234566 + 100)
    hold(world)
    assert (rollout_of(world).weight, rollout_of(world).requests_before) == (10, "1234567")
    world.beside_counts = answered(1234567 + 100)
    world.reconcile()
    assert rollout_of(world).weight == 50


def test_a_trial_in_which_nothing_changes_is_not_written_about() -> None:
    """Looking again is no reason for a write."""
    world = at_weight()
    world.beside_counts = answered(50)
    world.reconcile()
    world.beside_counts = answered(60)
    world.wait(5)
    assert world.reconcile() == 0
    assert world.look_again is not None


# --- what ends it ----------------------------------------------------------------------------------------------------


def test_a_wrong_answer_of_the_canary_ends_it_before_any_weight() -> None:
    """Golden requests are asked of the one pod; the version is rejected, and the target was never touched."""
    world = with_canary()
    world.fail("digits-r1-verify1", Reason.GOLDEN_MISMATCH)
    world.reconcile()
    assert is_over(world, "GoldenMismatch")
    assert is_rejected(world)
    assert world.served == []


@pytest.mark.parametrize("is_last", [False, True])
def test_a_canary_that_crashes_ends_it_and_rejects(*, is_last: bool) -> None:
    """Whatever the weight is."""
    world = at_weight()
    if is_last:
        to_last_weight(world)
    world.wait(5)
    world.beside_settled, world.beside_crash = False, Incident(CRASH, world.now)
    world.reconcile()
    assert is_over(world, "CanaryUnhealthy")
    assert is_rejected(world)


def test_a_canary_that_hangs_ends_it_and_rejects() -> None:
    """Its container runs and is never ready."""
    world = World(spec=spec(rollout=strategy()), wanted=9, beside_settled=False)
    world.run_to_rollout()
    assert rollout_of(world).step == "CanaryReady"
    world.wait(601)
    world.reconcile()
    assert is_over(world, "ProgressDeadlineExceeded")
    assert is_rejected(world)


def test_a_canary_that_gets_no_pod_is_not_to_blame() -> None:
    """A full cluster says nothing of the version."""
    world = World(spec=spec(rollout=strategy()), wanted=9, beside_settled=False, beside_trouble="pod y: Unschedulable")
    world.run_to_rollout()
    world.wait(601)
    world.reconcile()
    assert is_over(world, "ProgressDeadlineExceeded")
    assert not is_rejected(world)
    assert "Not rejected" in message_of(world, ConditionType.OPTIMIZING) + last_of(world).message


def test_pods_of_a_weight_that_never_come_end_it_and_are_not_held_against_the_version() -> None:
    """As a quota would have it."""
    world = at_weight()
    hold(world)
    world.beside_settled, world.beside_trouble = False, "pod y: Unschedulable"
    world.reconcile()
    world.wait(601)
    world.reconcile()
    assert is_over(world, "CanaryUnhealthy")
    assert not is_rejected(world)


def test_errors_of_the_canary_end_it_at_once_and_reject() -> None:
    """The sentence has the numbers, and says that it was a canary."""
    world = at_weight()
    world.beside_counts, world.champion_counts = answered(400, 200), answered(4000, 4)
    world.wait(5)
    world.reconcile()
    assert is_over(world, "LiveErrors")
    assert "as a canary, version 2: 200 of 400 requests failed" in last_of(world).message
    assert is_rejected(world)


def test_errors_that_the_champion_has_in_the_same_time_are_not_the_canary_s() -> None:
    """Where a database is down, both fail."""
    world = at_weight()
    world.beside_counts, world.champion_counts = answered(400, 200), answered(4000, 2000)
    world.wait(5)
    world.reconcile()
    assert rollout_of(world).step == "Weight"


def test_more_errors_than_the_champion_s_end_it_below_every_limit() -> None:
    """Four in a hundred keep the limit of five, and are far more than the champion's one in a thousand."""
    world = at_weight()
    world.beside_counts, world.champion_counts = answered(2000, 80), answered(20000, 20)
    world.wait(5)
    world.reconcile()
    assert is_over(world, "LiveErrors")
    assert "20 of 20000 of the champion's in the same time" in last_of(world).message


def test_a_canary_that_refuses_what_the_champion_answers_goes_back_and_is_not_rejected() -> None:
    """Some servers answer 400 where their model has failed. One client of its pods alone may be the cause as well."""
    world = at_weight()
    world.beside_counts = Heard(pods=1, requests=1000, errors=0, refused=100)
    world.champion_counts = Heard(pods=9, requests=9000, errors=0, refused=900)
    world.wait(5)
    world.reconcile()
    assert rollout_of(world).step == "Weight"
    world.champion_counts = Heard(pods=9, requests=9000, errors=0, refused=90)
    world.wait(5)
    world.reconcile()
    assert is_over(world, "LiveErrors")
    assert not is_rejected(world)
    message = message_of(world, ConditionType.ROLLED_OUT)
    assert "100 of 1000 requests were refused (with a status of 400 to 499), 90 of 9000 of the champion's" in message
    assert "one client that sends what no version takes" in message


def test_a_canary_that_is_much_slower_than_the_champion_ends_at_the_end_of_its_weight() -> None:
    """A new pod's first requests may be slow; a third of all are not. Its node may be to blame: it is not rejected."""
    world = at_weight()
    quick = {0.1: 960.0, 0.5: 1000.0, float("inf"): 1000.0}
    slow = {0.1: 600.0, 0.5: 1000.0, float("inf"): 1000.0}
    world.champion_counts = Heard(pods=9, requests=1000, errors=0, buckets=quick)
    world.beside_counts = Heard(pods=1, requests=1000, errors=0, buckets=slow)
    world.wait(5)
    world.reconcile()
    assert rollout_of(world).step == "Weight"
    world.beside_counts = Heard(pods=1, requests=2000, errors=0, buckets={key: 2 * slow[key] for key in slow})
    hold(world)
    assert is_over(world, "LiveLatency")
    assert not is_rejected(world)
    assert "the nodes that they run on" in message_of(world, ConditionType.ROLLED_OUT)


def test_a_canary_that_seems_slower_when_its_weight_ends_is_taken_back_and_not_rejected() -> None:
    """Few requests prove nothing, and are no reason to give it more users."""
    world = at_weight({"weight": 10, "hold": f"{HOLD}s", "minRequests": 0})
    world.champion_counts = Heard(pods=9, requests=10000, errors=0, buckets=QUICK)
    slow = {0.1: 210.0, 0.5: 300.0, float("inf"): 300.0}
    world.beside_counts = Heard(pods=1, requests=300, errors=0, buckets={key: 0.4 * slow[key] for key in slow})
    world.reconcile()
    hold(world)
    assert is_over(world, "LiveLatency")
    assert "seems worse by more than 10 % of all requests, which is not proved" in last_of(world).message
    assert not is_rejected(world)


def test_a_canary_as_fast_as_the_champion_goes_on() -> None:
    """Guards the test above."""
    world = at_weight()
    quick = {0.1: 950.0, 0.5: 1000.0, float("inf"): 1000.0}
    world.champion_counts = Heard(pods=9, requests=1000, errors=0, buckets=quick)
    world.beside_counts = Heard(pods=1, requests=100, errors=0, buckets={0.1: 93.0, 0.5: 100.0, float("inf"): 100.0})
    world.reconcile()
    world.beside_counts = Heard(
        pods=1, requests=1000, errors=0, buckets={0.1: 930.0, 0.5: 1000.0, float("inf"): 1000.0}
    )
    hold(world)
    assert rollout_of(world).weight == 50


def test_a_canary_is_not_doubted_for_what_the_champion_breaks_too() -> None:
    """Where both are slower than a limit, or fail more than it allows, only what is proved worse counts."""
    signals = [
        {"name": "p95-latency", "kind": "Latency", "limit": "0.1"},
        {"name": "errors", "kind": "ErrorRate", "limit": "0.05"},
    ]
    monitoring = {"performance": {"signals": signals}}
    world = at_weight({"weight": 10, "hold": f"{HOLD}s", "minRequests": 0}, monitoring=monitoring)
    theirs = {0.1: 900.0, 0.5: 1000.0, float("inf"): 1000.0}
    world.champion_counts = Heard(pods=9, requests=1000, errors=100, buckets=theirs)
    ours = {0.1: 890.0, 0.5: 1000.0, float("inf"): 1000.0}
    world.beside_counts = Heard(pods=1, requests=1000, errors=110, buckets=ours)
    world.reconcile()
    hold(world)
    assert rollout_of(world).injected


@pytest.mark.parametrize(
    ("requests", "errors", "slow", "words"),
    [
        (
            10000,
            10,
            400,
            "10 of 10000 requests failed, 10 of 10000 of the champion's in the same time: proved not worse",
        ),
        (
            10000,
            10,
            400,
            "400 of 10000 requests took longer than 0.1 s, 400 of 10000 of the champion's in the same time",
        ),
        (200, 2, 8, "2 of 200 requests failed, 10 of 10000 of the champion's in the same time: not shown to be worse"),
        (99, 1, 4, "too few to compare, 100 of both are needed"),
        (10000, 10, None, "latency was not compared: the pods tell no histogram"),
    ],
)
def test_a_weight_that_is_left_says_what_it_has_shown(requests: int, errors: int, slow: int | None, words: str) -> None:
    """Proved not worse, not shown to be worse, too little and unread are four things; the promotion says so too."""
    world = at_weight({"weight": 10, "hold": f"{HOLD}s", "minRequests": 0})
    ours = {0.1: 0.0 + requests - slow, 0.5: 0.0 + requests, float("inf"): 0.0 + requests} if slow is not None else {}
    world.champion_counts = Heard(pods=9, requests=10000, errors=10, buckets=QUICK)
    world.beside_counts = Heard(pods=1, requests=requests, errors=errors, buckets=ours)
    hold(world)
    shown = rollout_of(world).analysis
    assert shown is not None
    assert shown.startswith("At 10 % of the requests: ")
    assert words in shown
    to_promotion(world)
    assert words in message_of(world, ConditionType.ROLLED_OUT)


def test_the_champion_s_usual_time_is_that_of_before_where_it_is_known() -> None:
    """So that what is compared does not choose the bound that it is compared by."""
    world = at_weight()
    world.usual_seconds = 0.5
    world.beside_counts = world.champion_counts = Heard(pods=1, requests=10000, errors=10, buckets=QUICK)
    hold(world)
    world.beside_counts = Heard(pods=1, requests=20000, errors=10, buckets=QUICK)
    world.reconcile()
    assert "0 of 10000 requests took longer than 0.5 s" in (rollout_of(world).analysis or "")


@pytest.mark.parametrize(
    ("ours", "theirs", "why"),
    [
        ({0.2: 9000.0, float("inf"): 10000.0}, QUICK, "the version's histogram has no bound of 0.1 s"),
        (QUICK, {0.1: 9000.0, float("inf"): 10000.0}, "most of the champion's requests take longer"),
    ],
)
def test_histograms_that_cannot_be_compared_are_told(
    ours: dict[float, float], theirs: dict[float, float], why: str
) -> None:
    """What lies between two bounds is never guessed in a comparison."""
    world = at_weight({"weight": 10, "hold": f"{HOLD}s", "minRequests": 0})
    world.beside_counts = Heard(pods=1, requests=10000, errors=10, buckets=ours)
    world.champion_counts = Heard(pods=9, requests=10000, errors=10, buckets=theirs)
    hold(world)
    assert f"latency was not compared: {why}" in (rollout_of(world).analysis or "")


def test_a_weight_whose_pods_cannot_be_read_says_so() -> None:
    """That is an error, and no success."""
    world = at_weight()
    world.beside_counts, world.champion_counts = Heard(trouble="pod y: no answer"), answered(1000)
    hold(world)
    assert "errors were not compared: pod y: no answer" in (rollout_of(world).analysis or "")


# --- what it waits for -----------------------------------------------------------------------------------------------


def impatient(then: str, **analysis: str) -> World:
    """Return a world with a canary at a weight that waits for ten minutes for what is missing, and no longer."""
    rollout = strategy()
    rollout["canary"] |= {"evidenceTimeout": "10m", "onEvidenceTimeout": then}
    world = World(spec=spec(rollout=rollout | {"analysis": analysis}), wanted=9)
    world.run_to_rollout()
    world.beside_counts = answered(0)
    prove(world)
    hold(world)
    return world


def test_a_wait_without_limit_says_what_would_limit_it() -> None:
    """The owner is told where to bound it."""
    world = at_weight()
    world.beside_counts = answered(0)
    world.reconcile()
    hold(world)
    assert "evidenceTimeout would bound this wait" in message_of(world, ConditionType.ROLLED_OUT)


def test_a_version_that_gets_no_requests_in_time_is_taken_back_and_not_rejected() -> None:
    """Nobody knows whose doing it is."""
    world = impatient("Return")
    assert reason_of(world, ConditionType.ROLLED_OUT) == "AwaitingRequests"
    assert "for 10m at most, and then is taken back" in message_of(world, ConditionType.ROLLED_OUT)
    assert world.reconcile() == 0
    world.wait(599)
    world.reconcile()
    assert rollout_of(world).weight == 10
    world.wait(1)
    world.reconcile()
    assert is_over(world, "EvidenceMissing")
    assert not is_rejected(world)
    assert world.served == []


def test_a_version_that_gets_no_requests_in_time_may_go_on() -> None:
    """As its owner has chosen; what it was left without is told."""
    world = impatient("Proceed")
    assert "for 10m at most, and then goes on" in message_of(world, ConditionType.ROLLED_OUT)
    world.wait(600)
    world.reconcile()
    assert rollout_of(world).weight == 50
    shown = rollout_of(world).analysis or ""
    assert "it was left without waiting longer until its pods have answered 100 of them" in shown


def test_a_share_grows_only_with_proof_where_its_owner_wants_that() -> None:
    """Time and requests are not enough, and both errors and latency are named until they are proved."""
    rollout = strategy() | {"analysis": {"require": "ProvenNotWorse"}}
    world = World(spec=spec(rollout=rollout), wanted=9)
    world.run_to_rollout()
    world.champion_counts = Heard(pods=9, requests=10000, errors=10, buckets=QUICK)
    world.beside_counts = Heard(pods=1, requests=0, errors=0)
    prove(world)
    world.beside_counts = Heard(pods=1, requests=10000, errors=10)
    hold(world)
    assert (rollout_of(world).weight, reason_of(world, ConditionType.ROLLED_OUT)) == (10, "AwaitingProof")
    assert "not worse than the champion in latency" in message_of(world, ConditionType.ROLLED_OUT)
    assert world.reconcile() == 0
    world.beside_counts = Heard(pods=1, requests=10000, errors=10, buckets=QUICK)
    world.reconcile()
    assert rollout_of(world).weight == 50


def test_harm_that_shows_while_proof_is_awaited_ends_it() -> None:
    """The wait is under watch, of latency too."""
    world = impatient("Return", require="ProvenNotWorse")
    world.champion_counts = Heard(pods=9, requests=10000, errors=10, buckets=QUICK)
    slow = {0.1: 600.0, 0.5: 1000.0, float("inf"): 1000.0}
    world.beside_counts = Heard(pods=1, requests=1000, errors=1, buckets=slow)
    world.reconcile()
    assert is_over(world, "LiveLatency")


@pytest.mark.parametrize(("margin", "is_worse"), [("0.01", True), ("0.1", False)])
def test_owners_say_how_much_worse_is_harm(margin: str, *, is_worse: bool) -> None:
    """Four in a hundred failing, beside one in a thousand, is more than a point and less than ten."""
    rollout = strategy() | {"analysis": {"errorMargin": margin}}
    world = World(spec=spec(rollout=rollout), wanted=9)
    world.run_to_rollout()
    prove(world)
    world.beside_counts, world.champion_counts = answered(2000, 80), answered(20000, 20)
    world.reconcile()
    assert rollout_of(world).step == "Weight" if not is_worse else is_over(world, "LiveErrors")


def test_requests_that_were_not_heard_at_a_weight_are_waited_for() -> None:
    """An operator that is new has nothing to compare yet, though the canary's own counters are high enough."""
    world = with_canary()
    world.beside_counts = answered(8)
    prove(world)
    world.beside_counts, world.beside_held = answered(5000), answered(3)
    hold(world)
    assert reason_of(world, ConditionType.ROLLED_OUT) == "AwaitingRequests"
    world.beside_held = answered(100)
    world.reconcile()
    assert rollout_of(world).weight == 50


def test_the_canary_goes_first_when_a_rollout_turns_back() -> None:
    """Before the owned field is put back, and before the run is said to be over."""
    world = at_weight()
    to_target(world)
    assert world.beside is not None
    world.early = True
    world.reconcile()
    world.fail(world.active_jobs()[0], Reason.GOLDEN_MISMATCH)
    world.crash_after = 2  # the status that names the rollback, and the write after it
    with pytest.raises(CrashError):
        world.reconcile()
    assert (world.traffic.canary, world.value is None) == (None, False)
    for _ in range(2):
        world.settled = True
        world.reconcile()
    assert is_over(world, "GoldenMismatch")


def test_a_canary_that_may_not_be_removed_is_told_of_until_it_is() -> None:
    """The champion does not serve alone before that, and the run is not said to be over."""
    world = at_weight()
    world.beside_refused = ("Forbidden", "Retune may not delete deployments.apps")
    world.beside_counts = answered(400, 200)
    world.wait(5)
    world.reconcile()
    assert (stage_of(world), reason_of(world, ConditionType.ROLLED_OUT)) == (Stage.ROLLING_BACK, "Forbidden")
    assert reason_of(world, ConditionType.STALLED) == "Forbidden"
    assert world.reconcile() == 0
    assert world.look_again is not None
    world.beside_refused = None
    world.reconcile()
    assert is_over(world, "LiveErrors")


# --- whether one can be ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["CanaryImpossible", "NameConflict", "Forbidden", "QuotaExceeded"])
def test_a_canary_that_cannot_be_made_waits_for_a_person(reason: str) -> None:
    """Nothing of the target is changed, and the reason is in a condition of its own."""
    world = World(spec=spec(rollout=strategy()), wanted=9, beside_refused=(reason, "a sentence"))
    world.run_to_rollout()
    assert (stage_of(world), reason_of(world, ConditionType.CANARY_POSSIBLE)) == (Stage.BLOCKED, reason)
    assert reason_of(world, ConditionType.STALLED) == reason
    assert (world.beside, world.value) == (None, None)
    assert world.reconcile() == 0
    world.beside_refused = None
    world.wait(61)
    world.reconcile()
    assert world.beside is not None
    assert reason_of(world, ConditionType.CANARY_POSSIBLE) == "Possible"


def test_a_person_may_take_the_other_strategy_instead() -> None:
    """The version is rolled out at once, and nothing is said of a canary any more."""
    world = World(spec=spec(rollout=strategy()), wanted=9, beside_refused=("CanaryImpossible", "a sentence"))
    world.run_to_rollout()
    world.change(rollout={"strategy": "RollingUpdate"})
    world.reconcile()
    assert rollout_of(world).injected
    assert all(condition.type != "CanaryPossible" for condition in world.resource.status.conditions)


def test_who_scales_the_target_is_told_before_anything_is_tried() -> None:
    """An autoscaler changes the share."""
    world = World(spec=spec(rollout=strategy()), wanted=9, autoscaler="digits-hpa")
    world.run_to_rollout()
    assert reason_of(world, ConditionType.CANARY_POSSIBLE) == "Autoscaled"
    assert "HorizontalPodAutoscaler digits-hpa" in message_of(world, ConditionType.CANARY_POSSIBLE)


def test_a_target_that_is_not_well_gets_no_canary() -> None:
    """What failed then could not be told from the version's doing."""
    world = World(spec=spec(rollout=strategy()), wanted=9, paused=True)
    world.run_to_rollout()
    assert (world.beside, world.resource.status.rollout) == (None, None)


def test_a_step_is_looked_at_again_without_an_event() -> None:
    """Time passes unseen otherwise."""
    world = at_weight()
    assert world.look_again is not None
    assert world.look_again <= 5


def test_a_hold_of_nothing_still_asks_golden_requests() -> None:
    """The fastest canary there is goes to the target in one pass after its answers."""
    world = with_canary({"weight": 50, "hold": "0s", "minRequests": 0})
    assert rollout_of(world).step == "CanaryGolden"
    prove(world)
    world.reconcile()
    assert rollout_of(world).injected
    to_promotion(world)
    assert champion_of(world).version == 2
