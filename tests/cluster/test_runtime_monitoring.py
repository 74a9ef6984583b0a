"""The watch over a champion on a real API server: one check a window, adopted once, and what follows from it.

Windows of 30 s, the shortest there are, pass on a clock that the tests move; Jobs are finished as a node would.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from retune.api.monitoring import Monitoring
from retune.api.watched import MonitoringStatus, Verdict
from retune.cluster.client import Request
from retune.contract.paths import REQUEST_ANNOTATION
from retune.contract.requests import CheckRequest, GatherRequest, JobRequest, JudgeRequest, SearchRequest, parse_request
from retune.contract.results import JobResult
from retune.contract.results import Verdict as Judged
from retune.plan import names
from retune.plan.watch import windows
from retune.runtime import Operator
from tests.answers import answer, check
from tests.cluster.harness import Bench, Clock, Crash, Spy, settle
from tests.faults.stagehand import Stagehand

Json = dict[str, Any]
BATCH, CORE = "/apis/batch/v1", "/api/v1"
WINDOW, DELAY = 30, 60
MONITORING = {
    "production": {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "0s"}},
    "window": f"{WINDOW}s",
    "delay": f"{DELAY}s",
    "quality": {"consecutive": 1},
}
BAD = {"quality": Verdict.BREACH}
COOLED = 13 * 3600.0
"""Longer than signals rest after one run without gain."""


@dataclass
class Watched:
    """A resource whose first run brought nothing and whose delivered model is watched; checks say what `said` says."""

    bench: Bench
    key: str
    clock: Clock = field(default_factory=Clock)
    said: Json = field(default_factory=dict)
    verdict: Judged = Judged.NO_GAIN

    def operator(self, spy: Spy | None = None) -> Operator:
        """A new process at this clock."""
        return self.clock.drive(self.bench.operator(spy))

    def reply(self, request: JobRequest) -> JobResult:
        """Answer as an honest Job would; no candidate is worth a rollout, unless told otherwise."""
        if isinstance(request, CheckRequest):
            return check(request, **self.said)
        return answer(request, verdict=self.verdict)

    def finish(self) -> None:
        """Let every Job that runs succeed."""
        for job in self.bench.jobs:
            Stagehand(self.bench.api, reply=self.reply).finish(job)

    async def play(self, operator: Operator) -> None:
        """Take passes and finish Jobs until nothing is left to do."""
        changed = True
        while changed:
            self.finish()
            changed, _ = await settle(operator, self.key)

    def next_window(self, **timing: str) -> int:
        """Let the next window of the watch end, and its delay; returns its number."""
        state, timing = self.status, {"delay": f"{DELAY}s"} | timing
        first = windows.first_since(state.since, WINDOW)
        index = first if state.window is None else max(first, state.window + 1)
        delay = windows.own_delay(self.key, Monitoring.model_validate(timing), WINDOW)
        self.clock.now = windows.end_of(index, WINDOW) + timedelta(seconds=delay)
        return index

    @property
    def status(self) -> MonitoringStatus:
        """status.monitoring as the server holds it."""
        return MonitoringStatus.model_validate(self.bench.resource()["status"]["monitoring"])

    @property
    def checks(self) -> dict[int, Json]:
        """Jobs that check windows, by window."""
        found = {names.checked_window("digits", job["metadata"]["name"]): job for job in self.bench.jobs}
        return {index: job for index, job in found.items() if index is not None}

    @property
    def told(self) -> list[str]:
        """Reasons of the events, in order."""
        events = self.bench.items("events", api=CORE)
        return [each["reason"] for each in sorted(events, key=lambda each: each["metadata"]["name"])]


@pytest.fixture
async def watched(bench: Bench) -> Watched:
    """A champion that is watched since now."""
    bench.deploy()
    found = Watched(bench, bench.declare(execution={}, monitoring=MONITORING))
    await found.play(found.operator())
    assert bench.resource()["status"]["lastRun"]["outcome"] == "NoGain"
    assert found.checks == {}
    return found


def request_of(job: Json) -> Any:
    """What a Job is asked."""
    return parse_request(job["spec"]["template"]["metadata"]["annotations"][REQUEST_ANNOTATION])


async def test_a_window_costs_two_writes_and_nothing_is_written_between(watched: Watched) -> None:
    """One Job when it is over, one status when its word is in; no pass between writes anything."""
    operator, key = watched.operator(), watched.key
    index = watched.next_window()
    watched.clock.wait(-1)
    assert not (await settle(operator, key))[0]
    watched.clock.wait(1)
    await settle(operator, key)
    assert watched.bench.spy.writes == ["POST jobs"]
    for _ in range(3):
        watched.clock.wait(5)
        assert not (await settle(operator, key))[0]
    watched.finish()
    await settle(operator, key)
    assert watched.bench.spy.writes[:2] == ["POST jobs", "PATCH modeloptimizations/status"]
    assert set(watched.bench.spy.writes[2:]) <= {"POST jobs"}, "a window that ended meanwhile is checked, no more"
    assert watched.status.window == index
    assert watched.status.samples == 900
    assert watched.status.report_uri == f"pvc://retune-artifacts/digits/monitoring/w{index}/report.html"


async def test_a_check_starts_at_its_place_in_the_spread(watched: Watched) -> None:
    """Neither before nor after it, once the spec says so, and the verdict of a check that runs meanwhile counts."""
    operator, path = watched.operator(), watched.bench.path("modeloptimizations", "digits")
    first = watched.next_window()
    await settle(operator, watched.key)
    watched.bench.patch(path, {"spec": {"monitoring": {"spread": f"{WINDOW}s"}}})
    watched.finish()
    await settle(operator, watched.key)
    assert watched.status.window == first
    index = watched.next_window(spread=f"{WINDOW}s")
    watched.clock.wait(-1)
    await settle(operator, watched.key)
    assert index not in watched.checks
    watched.clock.wait(1)
    await settle(operator, watched.key)
    assert index in watched.checks


async def test_a_check_knows_its_window_and_runs_in_the_monitor_image(watched: Watched) -> None:
    """Asked about exactly the window it is named after, without the engines that a check has no use for."""
    operator = watched.operator()
    index = watched.next_window()
    await settle(operator, watched.key)
    job = watched.checks[index]
    request = request_of(job)
    assert (request.window.index, request.window.start, request.window.end) == (
        index,
        index * WINDOW,
        (index + 1) * WINDOW,
    )
    assert request.champion.digest == watched.bench.resource()["status"]["champion"]["digest"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    assert container["image"] == operator.settings.monitor_image
    assert job["metadata"]["ownerReferences"][0]["uid"] == watched.bench.resource()["metadata"]["uid"]


async def test_windows_in_the_time_without_an_operator_are_passed_over(watched: Watched) -> None:
    """An hour later one check is made, of the newest window, and the others are counted."""
    watched.next_window()
    watched.clock.wait(3600)
    operator = watched.operator()
    await settle(operator, watched.key)
    (index,) = watched.checks
    watched.finish()
    await settle(operator, watched.key)
    assert (watched.status.window, watched.status.skipped_windows) == (index, 3600 // WINDOW)


async def test_conditions_and_events_tell_of_drift_once(watched: Watched) -> None:
    """The second drifted window in a row raises it, a clear one ends it; each is one event, and no run starts of it."""
    watched.said = {"drift": Verdict.BREACH, "quality": Verdict.CLEAR}
    operator = watched.operator()
    for status in ("False", "True", "True"):
        watched.next_window()
        await settle(operator, watched.key)
        watched.finish()
        await settle(operator, watched.key)
        assert watched.bench.condition("DriftDetected")["status"] == status
    assert watched.bench.condition("QualityDegraded")["status"] == "False"
    assert watched.bench.condition("MonitoringReliable")["status"] == "True"
    watched.said = {"quality": Verdict.CLEAR}
    watched.next_window()
    await settle(operator, watched.key)
    watched.finish()
    await settle(operator, watched.key)
    assert watched.bench.condition("DriftDetected")["reason"] == "NoDrift"
    assert [reason for reason in watched.told if reason in {"SaidBreach", "NoDrift"}] == ["SaidBreach", "NoDrift"]
    assert len(watched.bench.items("optimizationruns", api="/apis/retune.dev/v1alpha1")) == 1


async def test_a_loss_of_quality_starts_a_run_on_fresh_data(watched: Watched) -> None:
    """The gather Job comes first, alone; search and judge then use what it built."""
    watched.said = BAD
    operator, key = watched.operator(), watched.key
    watched.next_window()
    watched.clock.wait(COOLED)
    await settle(operator, key)
    watched.finish()
    before = {job["metadata"]["name"] for job in watched.bench.jobs}
    await settle(operator, key)
    assert watched.bench.condition("QualityDegraded")["status"] == "True"
    (name,) = {job["metadata"]["name"] for job in watched.bench.jobs} - before - _checks_of(watched)
    assert name == "digits-r2-gather"
    gather = next(request_of(job) for job in watched.bench.jobs if job["metadata"]["name"] == name)
    assert isinstance(gather, GatherRequest)
    await watched.play(operator)
    asked = {job["metadata"]["name"]: request_of(job) for job in watched.bench.jobs}
    search, judge = asked["digits-r2-search"], asked["digits-r2-judge"]
    assert isinstance(search, SearchRequest)
    assert isinstance(judge, JudgeRequest)
    assert judge.trigger == "QualityDegradation"
    for request in (search, judge):
        assert request.data.test is not None
        assert request.data.test.uri == f"{gather.store}/runs/{gather.run}/data/test.npz"
        assert request.data.test.digest is not None
    last = watched.bench.resource()["status"]["lastRun"]
    assert (last["name"], last["outcome"]) == ("digits-r2", "NoGain")
    assert {"SaidBreach", "DataGathered"} <= set(watched.told)


async def test_a_run_without_gain_is_not_repeated_while_it_cools_down(watched: Watched) -> None:
    """The signal stays raised, the next windows say the same, and why nothing starts is told."""
    watched.said = BAD
    operator = watched.operator()
    watched.next_window()
    watched.clock.wait(COOLED)
    await watched.play(operator)
    watched.next_window()
    await watched.play(operator)
    status = watched.bench.resource()["status"]
    assert status["lastRun"]["name"] == "digits-r2"
    assert "run" not in status
    assert status["triggers"]["pending"][0]["reason"] == "QualityDegradation"
    assert status["triggers"]["held"].startswith("cooling down until")


def settle_pods(bench: Bench) -> None:
    """Say in the Deployment's status what its controller would when every pod is the newest and available."""
    path = bench.path("deployments", "digits-server", api="/apis/apps/v1")
    counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
    generation = bench.api.get(path)["metadata"]["generation"]
    bench.patch(f"{path}/status", {"status": counts | {"observedGeneration": generation}})


async def roll_back(watched: Watched, operator: Operator) -> None:
    """Carry the run under way to a rollout whose pods do not become ready in time, and back."""
    await watched.play(operator)
    assert watched.bench.condition("RolledOut")["reason"] == "Progressing"
    watched.clock.wait(601)
    await watched.play(operator)
    settle_pods(watched.bench)
    await watched.play(operator)
    assert watched.bench.condition("RolledOut")["reason"] == "RolledBack"


async def test_two_rollbacks_in_a_row_stop_signals_until_a_person_asks(bench: Bench) -> None:
    """Across a restart: the row is in the status. The condition says it, and what lets runs start again."""
    bench.deploy(replicas=1)
    settle_pods(bench)
    key = bench.declare(execution={}, monitoring=MONITORING, triggers={"cooldown": "1s"})
    watched = Watched(bench, key, said=BAD, verdict=Judged.PROMOTE)
    await roll_back(watched, watched.operator())
    assert bench.condition("CircuitOpen")["status"] == "False"
    operator = watched.operator()
    watched.next_window()
    await roll_back(watched, operator)
    assert bench.resource()["status"]["lastRun"]["name"] == "digits-r2"
    assert (bench.condition("CircuitOpen")["status"], bench.condition("CircuitOpen")["reason"]) == (
        "True",
        "RollbackLoop",
    )
    operator = watched.operator()
    watched.next_window()
    watched.clock.wait(COOLED)
    await watched.play(operator)
    status = bench.resource()["status"]
    assert ("run" in status, status["lastRun"]["name"]) == (False, "digits-r2")
    assert status["triggers"]["held"].startswith("circuit open (RollbackLoop)")
    bench.patch(bench.path("modeloptimizations", "digits"), {"spec": {"manualNonce": "again"}})
    await settle(operator, key)
    assert bench.resource()["status"]["run"]["trigger"] == "Manual"
    assert bench.condition("CircuitOpen")["status"] == "False"


async def test_a_check_that_is_refused_is_made_later_and_stops_nothing_else(watched: Watched) -> None:
    """A quota on Jobs keeps checks waiting; when there is room the newest window is judged."""
    hard = {"count/jobs.batch": "0"}
    watched.bench.create("resourcequotas", {"metadata": {"name": "none"}, "spec": {"hard": hard}}, api=CORE)
    path = watched.bench.path("resourcequotas", "none", api=CORE)
    watched.bench.patch(f"{path}/status", {"status": {"hard": hard, "used": {"count/jobs.batch": "0"}}})
    operator = watched.operator()
    watched.next_window()
    _, look_again = await settle(operator, watched.key)
    assert watched.checks == {}
    assert look_again is not None
    assert watched.bench.condition("Ready")["status"] == "True"
    condition = watched.bench.condition("MonitoringReliable")
    assert (condition["status"], condition["reason"]) == ("False", "QuotaExceeded")
    watched.bench.api.request("DELETE", path)
    await watched.play(operator)
    assert watched.bench.condition("MonitoringReliable")["status"] == "True"


async def test_another_window_length_begins_a_new_watch(watched: Watched) -> None:
    """The numbers of windows of another length mean nothing: what was judged by them is dropped with its check."""
    operator = watched.operator()
    index = watched.next_window()
    await settle(operator, watched.key)
    assert index in watched.checks
    spec = {"spec": {"monitoring": {"window": "1h"}}}
    watched.bench.patch(watched.bench.path("modeloptimizations", "digits"), spec)
    await settle(operator, watched.key)
    assert watched.checks == {}
    assert watched.status.window_seconds == 3600
    assert watched.status.since == watched.clock.now.replace(microsecond=0)


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("nth", range(1, 3))
async def test_killed_at_a_write_of_a_window_it_is_judged_once(watched: Watched, nth: int, moment: str) -> None:
    """Before a write reached the server, or after it did and before anybody knew: one check, adopted once."""
    watched.said = {"drift": Verdict.BREACH}
    spy = Spy(watched.bench.send)

    def kill(_: int, request: Request) -> None:
        if request.method != "GET" and len(spy.writes) == nth:
            raise Crash

    setattr(spy, moment, kill)
    index = watched.next_window()
    with pytest.raises(Crash):
        await watched.play(watched.operator(spy))
    assert len(spy.writes) == nth
    await watched.play(watched.operator())
    assert list(watched.checks) == [index]
    assert watched.status.window == index
    assert next(signal for signal in watched.status.signals if signal.name == "Drift").streak == 1


def _checks_of(watched: Watched) -> set[str]:
    return {job["metadata"]["name"] for job in watched.checks.values()}
