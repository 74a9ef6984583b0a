"""What starts a run by itself, how often, on which data, and how every decision not to start one is told."""

from datetime import UTC, datetime
from typing import Any

import pytest

from retune.api.metrics import Metric
from retune.api.objectives import Role
from retune.api.status import ConditionStatus, ConditionType, Outcome
from retune.api.watched import Verdict
from retune.contract.requests import CheckRequest, GatherRequest, JudgeRequest, SearchRequest, encode_request
from retune.contract.results import BaselineResult, GatherResult
from retune.contract.results import Verdict as Judged
from retune.plan.run.schedule import ScheduleError, due_since
from retune.plan.watch import windows
from tests.answers import DIGEST, check, stored
from tests.unit.plan.test_monitoring import HOUR, PRODUCTION, condition, judged, next_window, signal, watched
from tests.unit.plan.world import World

BAD = {"drift": Verdict.CLEAR, "quality": Verdict.BREACH}
QUICK = {"cooldown": "1s"}


def suffering(world: World, windows: int = 2) -> World:
    """Let quality be lost for so many windows."""
    for _ in range(windows):
        judged(world, **BAD)
    return world


def deliver_another(world: World, quality: Verdict | None = None) -> None:
    """Let the next window's check find another delivered file, and the baseline measure it."""
    name = next_window(world)
    world.finish(name, check(world.requests[name], artifact="sha256:another", quality=quality))
    world.reconcile()
    (baseline,) = world.active_jobs()
    measured = world.answer(baseline)
    assert isinstance(measured, BaselineResult)
    bundle = stored(world.requests[baseline].store, "second")
    world.finish(baseline, measured.model_copy(update={"bundle": bundle, "model_digest": "sha256:another"}))
    world.reconcile()


def running(world: World) -> str | None:
    """The trigger of the run under way."""
    run = world.resource.status.run
    return run.trigger if run else None


def held(world: World) -> str:
    """Why no run starts."""
    return world.resource.status.triggers.held or ""


def test_lost_quality_starts_a_run() -> None:
    """After bad windows in a row, with the reason in run, condition and event."""
    world = suffering(watched(triggers=QUICK), 1)
    assert running(world) is None
    suffering(world, 1)
    assert running(world) == "QualityDegradation"
    assert world.runs["digits-r2"].spec.trigger.message == "0.7 was seen"
    assert any(event.reason == "SaidBreach" and event.warning for event in world.events)


def test_odd_traffic_that_passes_starts_nothing() -> None:
    """A burst shorter than the limit leaves no trace but its windows."""
    world = watched(triggers=QUICK)
    for verdict in (Verdict.BREACH, Verdict.CLEAR) * 3:
        judged(world, drift=verdict, quality=verdict)
    assert running(world) is None
    assert world.resource.status.triggers.pending == ()


def test_drift_alone_is_reported_where_quality_is_seen_to_hold() -> None:
    """With labels that say all is well, a moved input is no reason; it becomes one when quality is not seen."""
    world = watched(triggers=QUICK)
    for _ in range(3):
        judged(world, drift=Verdict.BREACH, quality=Verdict.CLEAR)
    assert running(world) is None
    assert held(world).startswith("drift alone starts nothing")
    assert condition(world, ConditionType.DRIFT_DETECTED)[0] is ConditionStatus.TRUE


@pytest.mark.parametrize("said", [{}, {"quality": Verdict.BREACH, "estimated": True}])
def test_drift_starts_a_run_when_it_is_corroborated_or_nothing_else_is_seen(said: dict[str, Any]) -> None:
    """Without labels and estimates there is no second sign to wait for; an estimate that falls is one."""
    world = watched(triggers=QUICK)
    for _ in range(2):
        judged(world, drift=Verdict.BREACH, **said)
    assert running(world) == "Drift"


def test_an_estimate_that_is_not_trusted_corroborates_nothing() -> None:
    """Rows where the reference has none are no sign of a loss: drift waits, and it is told what would help."""
    world = watched(triggers=QUICK)
    for _ in range(3):
        judged(world, drift=Verdict.BREACH, quality=Verdict.UNTRUSTED, estimated=True)
    assert running(world) is None
    assert "cannot be estimated on such rows, label some" in held(world)
    judged(world, drift=Verdict.BREACH, quality=Verdict.BREACH, estimated=True)
    assert running(world) == "Drift"


def test_a_signal_that_is_not_listed_starts_nothing() -> None:
    """What the spec leaves out is watched and told, and no more."""
    world = suffering(watched(triggers={"signals": ["Drift"], **QUICK}), 4)
    assert running(world) is None
    assert condition(world, ConditionType.QUALITY_DEGRADED)[0] is ConditionStatus.TRUE


def test_what_holds_a_reason_back_is_told_with_it() -> None:
    """A window costs two writes also when its signal may start nothing: the summary is not a write behind."""
    world = suffering(watched(triggers={"cooldown": "6h"}), 1)
    name, before = next_window(world), world.writes
    world.finish(name, check(world.requests[name], quality=Verdict.BREACH))
    world.reconcile()
    assert held(world).startswith("cooling down")
    assert (world.resource.status.message or "").endswith(held(world))
    assert world.writes == before + 1


def test_signals_wait_while_the_last_run_cools_down() -> None:
    """Runs without gain double the wait; it is told until when; then the reason that still holds starts one."""
    world = suffering(watched(triggers={"cooldown": "6h"}))
    assert running(world) is None
    assert held(world) == "cooling down until 2026-01-01 12:00:00 UTC"  # the first run brought nothing: twice 6 h
    assert [one.reason for one in world.resource.status.triggers.pending] == ["QualityDegradation"]
    world.wait(12 * HOUR)
    world.reconcile()
    assert running(world) == "QualityDegradation"


def test_the_wait_doubles_up_to_its_limit() -> None:
    """After the second run without gain it is four times the cooldown, and never more than the longest."""
    world = suffering(watched(triggers={"cooldown": "1h", "maxCooldown": "3h"}), 3)
    assert running(world) == "QualityDegradation"
    finish(world, Judged.NO_GAIN)
    until = world.resource.status.triggers.cooldown_until
    assert until is not None
    assert (until - world.now).total_seconds() == 3 * HOUR


def test_a_run_without_gain_waits_for_another_window() -> None:
    """However short the cooldown: what has not brought anything brings nothing on the same rows again."""
    world = suffering(watched(triggers=QUICK), 3)
    assert running(world) == "QualityDegradation"
    finish(world, Judged.NO_GAIN)
    until = world.resource.status.triggers.cooldown_until
    assert until is not None
    assert (until - world.now).total_seconds() == HOUR


def test_no_wait_is_longer_than_the_spec_allows() -> None:
    """Whose schedule is denser than the windows may say so."""
    world = suffering(watched(triggers=QUICK | {"maxCooldown": "20m"}), 3)
    assert running(world) == "QualityDegradation"
    finish(world, Judged.NO_GAIN)
    until = world.resource.status.triggers.cooldown_until
    assert until is not None
    assert (until - world.now).total_seconds() == 20 * 60


def finish(world: World, verdict: Judged) -> None:
    """Finish the run under way with a verdict, checks left alone."""
    for _ in range(4):
        for name in world.active_jobs():
            if "-w" not in name:
                world.finish(name, world.answer(name, verdict))
        world.reconcile()


def test_runs_that_bring_nothing_open_the_circuit() -> None:
    """Three in a row stop signals; a person's nonce lets them start again."""
    world = suffering(watched(triggers=QUICK))
    for _ in range(2):
        finish(world, Judged.NO_GAIN)
        suffering(world, 1)
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.TRUE, "Exhausted")
    world.wait(100 * HOUR)
    suffering(world, 1)
    assert running(world) is None
    assert held(world).startswith("circuit open (Exhausted)")
    world.change(manualNonce="again")
    world.reconcile()
    assert running(world) == "Manual"
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")


def test_the_circuit_closes_when_the_signals_clear() -> None:
    """What comes after a recovery is another matter."""
    world = suffering(watched(triggers=QUICK))
    for _ in range(2):
        finish(world, Judged.NO_GAIN)
        suffering(world, 1)
    judged(world, quality=Verdict.CLEAR)
    assert condition(world, ConditionType.CIRCUIT_OPEN)[0] is ConditionStatus.FALSE
    world.wait(24 * HOUR)
    suffering(world)
    assert running(world) == "QualityDegradation"


def roll_back(world: World) -> None:
    """Carry the run under way to a rollout whose pods do not become ready in time."""
    for _ in range(5):
        for name in world.active_jobs():
            if "-w" not in name:
                world.finish(name)
        world.reconcile()
    assert world.resource.status.rollout is not None
    world.wait(700)
    world.reconcile()
    world.settled = True
    world.reconcile()
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.outcome is Outcome.ROLLED_BACK


def rolled_back_twice() -> World:
    """Return a world in which two runs in a row that signals had started were rolled back."""
    world = watched(triggers=QUICK | {"maxRunsPerDay": 10})
    for _ in range(2):
        suffering(world)
        roll_back(world)
    return world


def test_one_rollback_leaves_the_circuit_closed() -> None:
    """The next signal starts a run."""
    world = suffering(watched(triggers=QUICK))
    roll_back(world)
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")
    suffering(world)
    assert running(world) == "QualityDegradation"


def test_two_rollbacks_open_the_circuit() -> None:
    """Whatever signals say, and however long: no run, and the reason is told. That they clear changes nothing."""
    world = rolled_back_twice()
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.TRUE, "RollbackLoop")
    runs = set(world.runs)
    for quality in (Verdict.BREACH, Verdict.BREACH, Verdict.CLEAR, Verdict.BREACH, Verdict.BREACH):
        world.wait(100 * HOUR)
        judged(world, quality=quality)
        assert running(world) is None
    assert held(world).startswith("circuit open (RollbackLoop)")
    assert set(world.runs) == runs


@pytest.mark.parametrize(
    ("change", "trigger"), [({"manualNonce": "again"}, "Manual"), ({"search": {"maxTrials": 5}}, "SpecChange")]
)
def test_a_person_closes_the_circuit_after_rollbacks(change: dict[str, Any], trigger: str) -> None:
    """A run is theirs to ask for; from then on two more rollbacks are needed to open it again."""
    world = rolled_back_twice()
    world.change(**change)
    world.reconcile()
    assert running(world) == trigger
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")
    roll_back(world)
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")


@pytest.mark.parametrize(
    "change",
    [
        {"rollout": {"progressDeadline": "30m"}},
        {"rollout": {"approval": "Manual", "approvedVersion": "sha256:" + "5a" * 32}},
        {"execution": {"runTimeout": "3h"}},
    ],
)
def test_any_change_of_the_spec_closes_the_circuit_and_starts_nothing(change: dict[str, Any]) -> None:
    """Whoever mends the deadline that versions failed by has acted; the next signal may start a run again."""
    world = rolled_back_twice()
    world.change(**change)
    world.reconcile()
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")
    assert running(world) is None
    suffering(world)
    assert running(world) == "QualityDegradation"


def test_a_circuit_that_an_earlier_release_opened_is_closed_by_a_change_of_the_spec() -> None:
    """Its status has no generation of that; what is told of the circuit is true of it all the same."""
    world = rolled_back_twice()
    triggers = world.resource.status.triggers.model_copy(update={"circuit_generation": None})
    world.resource = world.resource.model_copy(
        update={"status": world.resource.status.model_copy(update={"triggers": triggers})}
    )
    world.hear()
    world.reconcile()
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.TRUE, "RollbackLoop")
    world.change(rollout={"progressDeadline": "30m"})
    world.reconcile()
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")


def test_rollbacks_that_are_no_fault_of_a_version_open_the_circuit_too() -> None:
    """Where surroundings fail every rollout, trying on would replace pods for ever; nothing is rejected for it."""
    world = watched(triggers=QUICK | {"maxRunsPerDay": 10})
    for _ in range(2):
        suffering(world)
        world.weather = "pod x: Evicted"
        roll_back(world)
        world.weather = None
    assert world.resource.status.rejected == ()
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.TRUE, "RollbackLoop")


def test_a_circuit_that_opened_without_a_watch_is_told_to_close() -> None:
    """A condition that is True stays so only while it is."""
    world = rolled_back_twice()
    world.change(monitoring=None, triggers={"signals": ["Drift"]})
    world.reconcile()
    assert world.resource.status.monitoring is None
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")


def test_a_promotion_between_two_rollbacks_keeps_the_circuit_closed() -> None:
    """Only rollbacks in a row count; runs without a candidate between them do not end the row."""
    world = watched(triggers=QUICK | {"maxRunsPerDay": 10})
    suffering(world)
    roll_back(world)
    suffering(world)
    world.promote()
    suffering(world)
    roll_back(world)
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.FALSE, "Closed")
    suffering(world)
    finish(world, Judged.NO_GAIN)
    suffering(world)
    roll_back(world)
    assert condition(world, ConditionType.CIRCUIT_OPEN) == (ConditionStatus.TRUE, "RollbackLoop")


def test_signals_start_so_many_runs_a_day_and_no_more() -> None:
    """The cap counts starts by signals in 24 hours, whatever came of them."""
    world = suffering(watched(triggers={"cooldown": "1s", "maxRunsPerDay": 1}))
    finish(world, Judged.GATE_FAILED)
    suffering(world, 2)
    assert running(world) is None
    assert "1 runs were started by signals in 24 hours" in held(world)
    world.wait(23 * HOUR)
    suffering(world, 1)
    assert running(world) == "QualityDegradation"


def test_signals_during_a_run_and_a_rollout_start_no_second_one() -> None:
    """They wait, coalesced, and are forgotten with the promotion that answers them."""
    world = suffering(watched(triggers=QUICK))
    suffering(world, 3)
    assert running(world) == "QualityDegradation"
    assert len(world.runs) == 2
    world.promote()
    assert world.resource.status.champion is not None
    assert world.resource.status.champion.version == 2
    assert running(world) is None
    assert world.resource.status.triggers.pending == ()


def test_a_run_that_a_signal_starts_has_data_of_its_own() -> None:
    """Gathered first; search and judge get it, and quality comes first among what better means."""
    world = suffering(watched(triggers=QUICK))
    gather = world.requests["digits-r2-gather"]
    assert isinstance(gather, GatherRequest)
    assert gather.until == int(world.now.timestamp())
    state = world.resource.status.monitoring
    assert state is not None
    assert state.window is not None
    assert gather.changed == windows.window(state.window - 1, state.window_seconds).start  # the first of two bad ones
    world.finish("digits-r2-gather")
    world.reconcile()
    search = world.requests["digits-r2-search"]
    assert isinstance(search, SearchRequest)
    assert search.data.test is not None
    assert search.data.test.uri == f"{gather.store}/runs/{gather.run}/data/test.npz"
    assert search.data.test.digest == DIGEST
    assert (search.objectives[0].metric, search.objectives[0].role) == (Metric.ACCURACY, Role.OPTIMIZE)
    world.finish("digits-r2-search")
    world.reconcile()
    assert world.requests["digits-r2-judge"].data == search.data


@pytest.mark.parametrize(("policy", "told"), [("Weighted", "1000 labelled rows of the last 168 h"), (None, None)])
def test_the_report_is_told_what_was_learned_from_if_the_image_knows_of_it(
    policy: str | None, told: str | None
) -> None:
    """A judge refuses what it does not know: only an image that names the policy is asked to show it."""
    world = suffering(watched(triggers=QUICK))
    gathered = world.answer("digits-r2-gather")
    assert isinstance(gathered, GatherResult)
    assert gathered.fresh is not None
    fresh = gathered.fresh.model_copy(update={"policy": policy})
    world.finish("digits-r2-gather", gathered.model_copy(update={"fresh": fresh}))
    world.reconcile()
    world.finish("digits-r2-search")
    world.reconcile()
    judge = world.requests["digits-r2-judge"]
    assert isinstance(judge, JudgeRequest)
    assert judge.learned_from == told
    assert ("learnedFrom" in encode_request(judge)) == (told is not None)


SPARSE = {"minRows": 2000}
"""Windows of these tests have 900 labelled rows: the change is to be learned from three of them."""


def test_a_run_waits_for_enough_labelled_rows_of_after_the_change() -> None:
    """Sooner it would learn from rows of before the change and bring nothing; why it waits is told."""
    world = suffering(watched(triggers=QUICK, refresh=SPARSE))
    assert running(world) is None
    assert "2000 rows of after the change" in held(world)
    began = signal(world, "Quality").first_bad
    assert began is not None
    enough = (began + 3) * HOUR
    assert world.look_again == pytest.approx(enough - world.now.timestamp())
    world.wait(enough - world.now.timestamp())
    world.reconcile()
    assert running(world) == "QualityDegradation"
    gather = world.requests["digits-r2-gather"]
    assert isinstance(gather, GatherRequest)
    assert gather.changed == began * HOUR
    assert gather.until == enough


def test_a_run_waits_for_labels_as_long_as_they_may_take() -> None:
    """Rows of after the change cannot be learned from before their labels are there."""
    labels = {"uri": "pvc://store/labels", "maxDelay": "6h"}
    production = {"uri": "pvc://store/production", "labels": labels}
    triggers = QUICK | {"corroboration": "None"}
    world = watched(triggers=triggers, monitoring={"production": production, "window": "1h", "delay": "1m"})
    for _ in range(2):
        judged(world, drift=Verdict.BREACH)
    began = signal(world, "Drift").first_bad
    assert began is not None
    assert f"{datetime.fromtimestamp((began + 8) * HOUR, tz=UTC):%Y-%m-%d %H:%M}" in held(world)
    assert running(world) is None


def test_a_wait_is_reckoned_from_rows_with_labels_not_from_the_independent_ones_among_them() -> None:
    """Quality is judged by fewer rows than have a label, where rows depend on each other; all of them teach."""
    world = watched(triggers=QUICK, refresh=SPARSE)
    for _ in range(2):
        judged(world, quality=Verdict.BREACH, independent=90, labelled=700)
    began = signal(world, "Quality").first_bad
    assert began is not None
    assert f"{datetime.fromtimestamp((began + 3) * HOUR, tz=UTC):%Y-%m-%d %H:%M}" in held(world)
    assert running(world) is None


def test_a_run_for_drift_waits_by_the_labels_of_windows_before_it() -> None:
    """As soon as any window's labels have come, they say how many rows have one."""
    world = watched(triggers=QUICK | {"corroboration": "None"}, refresh=SPARSE)
    for _ in range(2):
        judged(world, drift=Verdict.BREACH, quality=Verdict.CLEAR, independent=90, labelled=500)
    began = signal(world, "Drift").first_bad
    assert began is not None
    assert f"{datetime.fromtimestamp((began + 4) * HOUR, tz=UTC):%Y-%m-%d %H:%M}" in held(world)
    assert running(world) is None


@pytest.mark.parametrize("labelled", [None, 0], ids=["not said", "none yet"])
def test_where_no_label_was_seen_yet_every_row_may_get_one(labelled: int | None) -> None:
    """A check of an older image says nothing of them."""
    world = watched(triggers=QUICK, refresh=SPARSE)
    for _ in range(2):
        judged(world, quality=Verdict.BREACH, independent=90, labelled=labelled)
    began = signal(world, "Quality").first_bad
    assert began is not None
    assert f"{datetime.fromtimestamp((began + 3) * HOUR, tz=UTC):%Y-%m-%d %H:%M}" in held(world)


def test_a_run_waits_longer_than_the_span_because_all_rows_since_the_change_are_gathered() -> None:
    """`span` is for runs that no change has started: it bounds neither the rows nor the wait for them."""
    world = suffering(watched(triggers=QUICK, refresh=SPARSE | {"span": "1h"}))
    assert "2000 rows of after the change" in held(world)
    assert running(world) is None


KEPT_SHORTLY = {
    "production": {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels"}, "retention": "26h"},
    "window": "1h",
    "delay": "1m",
}
"""Labels may take a day, and files are removed two hours later."""


@pytest.mark.parametrize(
    "changes",
    [{"refresh": SPARSE, "monitoring": KEPT_SHORTLY}, {"refresh": SPARSE | {"policy": "Never"}}],
    ids=["removed before they are enough", "not wanted"],
)
def test_no_run_waits_for_rows_that_will_never_be_enough_or_are_not_wanted(changes: dict[str, Any]) -> None:
    """Where rows are removed before there are enough, or no production rows are used, waiting would gain nothing."""
    world = watched(triggers=QUICK | {"corroboration": "None"}, **changes)
    for _ in range(2):
        judged(world, drift=Verdict.BREACH)
    assert running(world) == "Drift"


def test_another_reason_does_not_wait_behind_one_that_does() -> None:
    """A delivered file is optimized at once, while rows of after a change are being collected."""
    model = {"uri": "pvc://store/digits/model.onnx", "updatePolicy": "Follow"}
    world = suffering(watched(model=model, triggers=QUICK, refresh={"minRows": 20000}))
    assert running(world) is None
    deliver_another(world, quality=Verdict.BREACH)
    assert running(world) == "ArtifactChange"


@pytest.mark.parametrize("uri", ["pvc://payroll/salaries.npz", "pvc://store/digits/runs/other/data/test.npz"])
def test_gathered_data_outside_the_folder_of_the_run_is_not_believed(uri: str) -> None:
    """Fault 22: what a Job names would become a volume of the next one, and what the judge takes for the truth."""
    world = suffering(watched(triggers=QUICK))
    honest = world.answer("digits-r2-gather")
    assert isinstance(honest, GatherResult)
    assert honest.fresh is not None
    forged = honest.fresh.model_copy(update={"test": honest.fresh.test.model_copy(update={"uri": uri})})
    world.finish("digits-r2-gather", honest.model_copy(update={"fresh": forged}))
    world.reconcile()
    assert "digits-r2-search" not in world.requests
    assert world.resource.status.last_run is not None
    assert world.resource.status.last_run.reason == "ResultForeign"


def test_too_few_labels_leave_a_run_with_the_data_of_the_spec() -> None:
    """Why is told, and the run goes on."""
    world = suffering(watched(triggers=QUICK))
    gather = world.requests["digits-r2-gather"]
    little = GatherResult(spec_hash=gather.spec_hash, run=gather.run, message="120 labelled rows; 1000 are needed")
    world.finish("digits-r2-gather", little)
    world.reconcile()
    assert world.requests["digits-r2-search"].data == world.resource.spec.data
    assert any(event.message.endswith("120 labelled rows; 1000 are needed") for event in world.events)
    assert world.resource.status.run is not None
    assert world.resource.status.run.data == "120 labelled rows; 1000 are needed"
    world.promote()
    assert world.runs["digits-r2"].status.data == "120 labelled rows; 1000 are needed"


@pytest.mark.parametrize(
    "changes",
    [
        {"refresh": {"policy": "Never"}},
        {"monitoring": {"production": {"uri": "pvc://store/production"}, "window": "1h", "delay": "1m"}},
    ],
)
def test_without_a_policy_or_labels_nothing_is_gathered(changes: dict[str, Any]) -> None:
    """The run starts at its search."""
    world = watched(triggers=QUICK, **changes)
    for _ in range(2):
        judged(world, drift=Verdict.BREACH)
    assert world.active_jobs() == ["digits-r2-search"]


@pytest.mark.parametrize("change", [{"monitoring": None}, {"refresh": {"policy": "Never"}}])
def test_a_run_whose_data_cannot_be_gathered_any_more_uses_those_of_the_spec(change: dict[str, Any]) -> None:
    """Labels are taken out of the spec before the Job that gathers could start: the run goes on, and no pass fails."""
    world = watched(triggers=QUICK)
    world.quota = True
    world.change(manualNonce="now")
    world.reconcile()
    assert (running(world), world.active_jobs()) == ("Manual", [])
    world.quota = False
    world.change(**change)
    world.reconcile()
    assert world.active_jobs() == ["digits-r2-search"]
    assert world.requests["digits-r2-search"].data == world.resource.spec.data


def test_a_failed_gathering_fails_the_run() -> None:
    """As a search would; the champion serves on, and the next run waits for its time."""
    world = suffering(watched(triggers=QUICK))
    world.fail("digits-r2-gather")
    world.reconcile()
    last = world.resource.status.last_run
    assert last is not None
    assert last.outcome is Outcome.FAILED
    assert world.resource.status.triggers.no_gain_streak == 2


def test_a_schedule_starts_a_run_at_its_time() -> None:
    """Once, and not for times that had passed before the last run."""
    world = watched(triggers={"signals": ["Schedule"], "schedule": "0 3 * * *", **QUICK})
    world.wait(2.9 * HOUR)
    world.reconcile()
    assert running(world) is None
    world.wait(0.2 * HOUR)
    world.reconcile()
    assert running(world) == "Schedule"
    finish(world, Judged.NO_GAIN)
    world.wait(HOUR)
    world.reconcile()
    assert running(world) is None


def test_a_schedule_means_local_time() -> None:
    """Three in the morning in Berlin is two in the morning in winter."""
    world = watched()
    moment = due_since("0 3 * * *", "Europe/Berlin", since=world.now, now=world.now.replace(hour=12))
    assert moment == world.now.replace(hour=2)


@pytest.mark.parametrize(
    ("expression", "zone", "says"), [("0 3 * * noon", "Etc/UTC", "no cron"), ("0 3 * * *", "Mars", "not known")]
)
def test_a_schedule_that_means_nothing_is_told(expression: str, zone: str, says: str) -> None:
    """In words, where waiting is told; nothing else suffers."""
    now = watched().now
    with pytest.raises(ScheduleError, match=says):
        due_since(expression, zone, since=now, now=now)
    world = watched(triggers={"signals": ["Schedule"], "schedule": expression, "timeZone": zone})
    world.reconcile()
    assert says in held(world)


def test_another_delivered_file_is_measured_and_optimized() -> None:
    """Follow looks once a window; the new file becomes the original, and a run starts from it."""
    model = {"uri": "pvc://store/digits/model.onnx", "updatePolicy": "Follow"}
    world = watched(model=model, triggers=QUICK, monitoring={"window": "1h", "delay": "1m"})
    judged(world)
    deliver_another(world)
    assert world.resource.status.original is not None
    assert world.resource.status.original.version == 2
    assert running(world) == "ArtifactChange"


@pytest.mark.parametrize(("format_", "folder"), [("ONNX", None), ("HuggingFace", True)])
def test_a_check_is_told_whether_it_follows_a_file_or_a_folder(format_: str, *, folder: bool | None) -> None:
    """The digest of a folder is that of several files, and the check does not know the spec."""
    model = {"uri": "pvc://store/digits/net", "format": format_, "updatePolicy": "Follow"}
    world = watched(model=model, triggers=QUICK, monitoring={"window": "1h", "delay": "1m"})
    request = world.requests[next_window(world)]
    assert isinstance(request, CheckRequest)
    assert request.followed is not None
    assert request.followed.folder is folder


@pytest.mark.parametrize(("uri", "format_"), [("mlflow://digits@champion", "Skops"), ("pvc://store/digits/net", None)])
def test_a_check_is_told_which_file_of_a_registry_it_follows(uri: str, format_: str | None) -> None:
    """One name stands for files of several formats there; elsewhere the URI says it all, to older images too."""
    model = {"uri": uri, "format": "Skops", "updatePolicy": "Follow"}
    world = watched(model=model, triggers=QUICK, monitoring={"window": "1h", "delay": "1m"})
    request = world.requests[next_window(world)]
    assert isinstance(request, CheckRequest)
    assert request.followed is not None
    assert request.followed.format == format_


def test_a_manual_run_does_not_wait() -> None:
    """A person's word skips cooldown and circuit, and nothing else."""
    world = suffering(watched(triggers={"cooldown": "6h"}))
    world.change(manualNonce="now")
    world.reconcile()
    assert running(world) == "Manual"
    assert signal(world, "Quality").raised


def test_a_mode_that_only_watches_starts_nothing() -> None:
    """ObserveOnly tells everything and runs nothing."""
    world = watched(triggers=QUICK)
    world.change(mode="ObserveOnly")
    suffering(world, 3)
    assert running(world) is None
    assert condition(world, ConditionType.QUALITY_DEGRADED)[0] is ConditionStatus.TRUE


def test_suspended_nothing_is_checked() -> None:
    """Frozen means frozen; afterwards the newest window is judged."""
    world = watched()
    world.change(suspend=True)
    world.wait(5 * HOUR)
    world.reconcile()
    assert world.active_jobs() == []
    world.change(suspend=False)
    judged(world)
    assert PRODUCTION["uri"] == world.requests[f"digits-w{signal(world, 'Drift').window}"].production.uri
