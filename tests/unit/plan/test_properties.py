"""The promises of the planner, against whatever order of events Hypothesis finds."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from retune.api.monitoring import Monitoring
from retune.api.status import ConditionType, ModelOptimizationStatus, Stage
from retune.api.triggers import SIGNAL_REASONS
from retune.api.watched import Verdict as Judged
from retune.contract.requests import CheckRequest
from retune.contract.results import Reason, Verdict
from retune.plan.draft import condition_of
from retune.plan.kept import kept
from retune.plan.observed import Heard, Incident, Live, LiveNumber
from retune.plan.watch import windows
from tests.answers import check, digest_of
from tests.unit.plan.promises import Promises
from tests.unit.plan.server import Beside
from tests.unit.plan.trial import busy
from tests.unit.plan.world import CrashError, World, spec

WINDOW = 3600
MONITORING: dict[str, Any] = {
    "production": {"uri": "pvc://store/production", "labels": {"uri": "pvc://store/labels", "maxDelay": "0s"}},
    "window": "1h",
    "drift": {"consecutive": 1},
    "quality": {"consecutive": 1},
    "performance": {"signals": [{"name": "p95", "kind": "Latency", "limit": "0.5", "consecutive": 1}]},
}
TRIGGERS: dict[str, Any] = {
    "signals": list(SIGNAL_REASONS),
    "schedule": "0 */6 * * *",
    "cooldown": "30m",
    "maxRunsPerDay": 3,
}
SOME_TRIGGERS = TRIGGERS | {"signals": ["PerformanceDegradation", "Schedule"]}
CANARY: dict[str, Any] = {
    "strategy": "Canary",
    "canary": {"steps": [{"weight": 10, "hold": "1m"}, {"weight": 60, "hold": "1m"}]},
}
UNWATCHED: dict[str, Any] = {"monitoring": None, "triggers": {"signals": ["Drift"]}}
EDITS: tuple[dict[str, Any], ...] = (
    *({"manualNonce": f"n{number}"} for number in range(3)),
    *({"search": {"maxTrials": number}} for number in range(1, 3)),
    *({"model": {"uri": f"pvc://store/digits/model-{number}.onnx"}} for number in range(1, 3)),
    *({"mode": mode} for mode in ("Automatic", "Propose", "RecommendOnly", "ObserveOnly")),
    {"suspend": True},
    {"suspend": False},
    {"monitoring": MONITORING, "triggers": TRIGGERS},
    {"triggers": SOME_TRIGGERS},
    UNWATCHED,
    {"execution": {"queueName": "team"}},
    {"rollout": CANARY},
    {"rollout": {"strategy": "RollingUpdate"}},
    {"rollout": {"deliveredModel": "GoesLive"}},
    {"rollout": CANARY | {"deliveredModel": "GoesLive"}},
)
VERDICTS = {
    "NoGain": Verdict.NO_GAIN,
    "GateFailed": Verdict.GATE_FAILED,
    "Promoted": Verdict.PROMOTE,
    "RolledBack": Verdict.PROMOTE,
}
ENDINGS = tuple(VERDICTS)


class Loop(RuleBasedStateMachine):
    """Users, Jobs, pods, time, crashes and neighbours do what they like; the promises hold after every step."""

    world: World
    promises: Promises

    @initialize(
        watched=st.sampled_from([None, TRIGGERS, SOME_TRIGGERS]),
        policy=st.sampled_from(["KeepChampion", "RestoreOriginal"]),
        takeover=st.sampled_from(["Refuse", "Force"]),
        delivered=st.sampled_from([None, "file:///delivered"]),
        runs=st.lists(st.sampled_from(ENDINGS), max_size=3),
        underway=st.booleans(),
        wanted=st.sampled_from([None, 0, 1]),
        forgotten=st.booleans(),
        refused=st.booleans(),
        tried=st.booleans(),
        replicas=st.sampled_from([1, 1, 9]),
    )
    def declare(
        self,
        *,
        watched: dict[str, Any] | None,
        policy: str,
        takeover: str,
        delivered: str | None,
        runs: list[str],
        underway: bool,
        wanted: int | None,
        forgotten: bool,
        refused: bool,
        tried: bool,
        replicas: int,
    ) -> None:
        """A user declares a resource for a Deployment; runs of it may have ended before the story begins."""
        target = {"ref": {"name": "digits"}, "inference": {"modelName": "digits"}, "injection": {"takeover": takeover}}
        more = {"monitoring": MONITORING, "triggers": watched} if watched else {}
        more |= {"rollout": CANARY} if tried else {}
        manager = "kubectl" if delivered else None
        declared = spec(deletionPolicy=policy, target=target, **more)
        self.world = World(spec=declared, value=delivered, manager=manager, bundles=2, wanted=replicas)
        self.promises = Promises(self.world)
        self.world.witness = self.promises.decided
        self.foreign = 0
        self.rested = False
        for number, ending in enumerate(runs):
            if number == 0:
                self.end_run(ending)
            elif watched:
                self.relapse(ending, "quality")
        if wanted is not None and self.status.champion is not None:
            self.roll_back(wanted, steps=3, lost=False, stays=False)
        self.world.inject_refused = "Forbidden" if refused else None
        if forgotten and self.status.champion is not None:
            self.lose_bundle(steps=0)
        if underway:
            self.begin_rollout()

    @property
    def status(self) -> ModelOptimizationStatus:
        """The resource's status."""
        return self.world.resource.status

    def note(self) -> None:
        """Count what was reached, for `--hypothesis-show-statistics`."""
        status = self.status
        event(f"stage {status.stage}")
        event(f"last run {status.last_run.outcome if status.last_run else None}")
        event(f"circuit {status.triggers.circuit}")
        stored = condition_of(status, ConditionType.BUNDLE_AVAILABLE)
        event(f"bundle {stored.reason if stored else None}")

    # --- the operator ------------------------------------------------------------------------------------------------

    @rule()
    def reconcile(self) -> None:
        """The operator makes a pass."""
        self.world.reconcile()
        self.rested = True
        self.note()

    @rule(writes=st.integers(0, 6))
    def crash(self, writes: int) -> None:
        """The operator dies after some writes."""
        self.world.crash_after = writes
        try:
            self.world.reconcile()
        except CrashError:
            self.rested = False
        self.world.crash_after = None

    @rule(deed=st.sampled_from(["edit", "delete", "take the field", "replace the target"]))
    def interrupt(self, deed: str) -> None:
        """Somebody does something between what a pass has read and what it writes."""
        deeds: dict[str, Callable[[], None]] = {
            "edit": lambda: self.world.change(search={"maxTrials": 7}),
            "delete": self.world.delete,
            "take the field": lambda: self.meddle("take the field"),
            "replace the target": lambda: self.meddle("replace the target"),
        }
        self.world.meanwhile = deeds[deed]
        self.world.reconcile()
        self.world.meanwhile = None
        self.rested = False

    # --- Jobs and runs -----------------------------------------------------------------------------------------------

    @precondition(lambda self: self.world.active_jobs())
    @rule(pick=st.integers(0, 3), verdict=st.sampled_from(Verdict))
    def finish_job(self, pick: int, verdict: Verdict) -> None:
        """A Job succeeds."""
        names = self.world.active_jobs()
        name = names[pick % len(names)]
        self.world.finish(name, self.world.answer(name, verdict))
        self.rested = False

    @precondition(lambda self: self.world.active_jobs())
    @rule(pick=st.integers(0, 3), reason=st.sampled_from(Reason))
    def fail_job(self, pick: int, reason: Reason) -> None:
        """A Job fails."""
        names = self.world.active_jobs()
        self.world.fail(names[pick % len(names)], reason)
        self.rested = False

    @precondition(lambda self: self.world.jobs)
    @rule(pick=st.integers(0, 9))
    def lose_job(self, pick: int) -> None:
        """Somebody, or its TTL, deletes a Job (fault 20)."""
        names = sorted(self.world.jobs)
        del self.world.jobs[names[pick % len(names)]]
        self.rested = False

    @precondition(lambda self: self.status.champion)
    @rule(steps=st.integers(0, 4))
    def lose_bundle(self, steps: int) -> None:
        """The store loses the champion's bundle (fault 23), and a person may ask for a run that needs it."""
        self.promises.lost.add(self.world.lose())
        champion = self.status.champion
        event(f"the bundle of {'a promoted champion' if champion and champion.run_name else 'version 1'} is lost")
        if steps:
            self.world.change(manualNonce=f"n{self.world.writes}")
            self.go_on(steps, Verdict.NO_GAIN)

    @rule(away=st.booleans())
    def reach_store(self, *, away: bool) -> None:
        """No Job can reach the store for a while, or they can again."""
        self.world.store_away = away

    @rule(steps=st.integers(1, 5), verdict=st.sampled_from([Verdict.PROMOTE, *Verdict]))
    def go_on(self, steps: int, verdict: Verdict) -> None:
        """For a while nothing goes wrong."""
        for _ in range(steps):
            for name in self.world.active_jobs():
                self.world.finish(name, self.world.answer(name, verdict))
            self.calm()
            self.world.settled = True
            self.world.wait(130)
            self.world.reconcile()
        self.rested = True
        self.note()

    @rule(ending=st.sampled_from(ENDINGS))
    def end_run(self, ending: str) -> None:
        """Whatever is under way comes to an end like this, if nothing else is in its way."""
        for _ in range(3):
            self.go_on(2, VERDICTS[ending])
            if ending == "RolledBack" and self.status.rollout:
                self.disappoint(refused=False)
        self.go_on(2, VERDICTS[ending])

    def begin_rollout(self) -> None:
        """A person asks for a run, and all goes well until the target is given what it found."""
        self.world.change(manualNonce=f"n{self.world.writes}")
        for _ in range(5):
            self.go_on(1, Verdict.PROMOTE)
            if self.status.rollout is not None:
                break

    @rule(
        deed=st.sampled_from(["evict", "pause", "edit", "crash", "fail half", "fail few", "show the first"]),
        seconds=st.sampled_from([3, 130, 700]),
        baking=st.booleans(),
    )
    def disturb(self, deed: str, seconds: int, *, baking: bool) -> None:
        """Pods are taken away, held back, changed by others, or do wrong themselves while a version is on trial."""
        if self.status.rollout is None and not self.world.gone:
            self.begin_rollout()
        if baking:
            self.reach_bake()
        match deed:
            case "evict":
                self.world.settled, self.world.weather = False, "pod x: Evicted"
            case "pause":
                self.world.paused = True
            case "edit":
                self.world.edit_template()
            case "crash":
                self.world.settled, self.world.crash = False, Incident("pod x: ended with exit code 3", self.world.now)
            case "show the first":
                self.world.early = True
            case _:
                self.world.counts = Heard(pods=1, requests=1000, errors=500 if deed == "fail half" else 3)
        self.world.reconcile()
        self.promises.check(rested=True)
        self.world.wait(seconds)
        self.world.reconcile()
        self.rested = True
        event(f"disturbed by {deed} in stage {self.status.stage}")

    def reach_bake(self) -> None:
        """Let every pod be ready and answer right, at once."""
        for _ in range(2):
            self.calm()
            self.world.settled = True
            self.world.reconcile()
            for name in self.world.active_jobs():
                self.world.finish(name)
        self.world.reconcile()

    @rule(
        deed=st.sampled_from(
            ["crash", "hang", "evict", "fail half", "answer few", "lose", "scale", "edit", "be slow", "refuse", "take"]
        ),
        seconds=st.sampled_from([3, 130, 700]),
        passes=st.integers(0, 4),
    )
    def disturb_canary(self, deed: str, seconds: int, passes: int) -> None:
        """A canary, at whatever weight it is by now, does wrong, is taken away, or is changed by others."""
        if self.status.rollout is None and not self.world.gone:
            self.world.change(rollout=CANARY)
            self.begin_rollout()
        for _ in range(passes if self.world.beside else 0):
            self.go_on(1, Verdict.PROMOTE)
        if deed in {"lose", "scale", "edit", "refuse", "take"}:
            self.meddle_with_canary(deed)
        else:
            self.fail_canary(deed)
        world = self.world
        world.reconcile()
        self.promises.check(rested=True)
        world.wait(seconds)
        world.reconcile()
        self.rested = True
        step = self.status.rollout.step if self.status.rollout else None
        event(f"canary disturbed by {deed} in step {step}")

    def fail_canary(self, deed: str) -> None:
        """Pods of the canary do wrong, or do not come."""
        world = self.world
        match deed:
            case "crash":
                world.beside_settled = False
                world.beside_crash = Incident("pod y: ended with exit code 3", world.now)
            case "hang":
                world.beside_settled = False
            case "evict":
                world.beside_settled, world.beside_trouble = False, "pod y: Evicted"
            case "be slow":
                world.beside_slow = True
            case _:
                counts = {"fail half": (1000, 500), "answer few": (7, 0)}
                requests, errors = counts[deed]
                world.beside_counts = Heard(pods=1, requests=requests, errors=errors)

    def meddle_with_canary(self, deed: str) -> None:
        """Somebody does something to the canary, or keeps us from it."""
        world, beside = self.world, self.world.beside
        is_ours = beside is not None and beside.owner == world.uid
        match deed:
            case "lose":
                world.beside = None if is_ours else beside
            case "scale":
                world.beside = replace(beside, replicas=30) if beside else None
            case "edit":
                world.edit_template()
            case "refuse":
                world.beside_refused = ("Forbidden", "Retune may not create deployments.apps")
            case _:
                world.beside = beside or Beside("theirs", "pvc://theirs", world.template, 1, owner="someone")

    @rule()
    def calm(self) -> None:
        """What disturbed pods is over."""
        self.world.weather, self.world.paused, self.world.early, self.world.counts = None, False, False, None
        self.world.beside_settled, self.world.beside_slow, self.world.beside_trouble = True, False, None
        self.world.beside_refused, self.world.beside_crash = None, None
        self.world.beside_counts = self.world.beside_counts and busy(self.world.now)
        self.rested = False

    @rule(approval=st.sampled_from(["Automatic", "Manual", "Manual"]), waiting=st.booleans(), steps=st.integers(0, 3))
    def ask_people(self, approval: str, steps: int, *, waiting: bool) -> None:
        """People want to be asked, or not any more; some name the version that waits, others another one."""
        if waiting:
            self.world.change(rollout={"approval": approval})
            self.go_on(steps, Verdict.PROMOTE)
        candidate = self.status.candidate
        digest = candidate.digest if candidate is not None and waiting else digest_of("nothing that waits")
        self.world.change(rollout={"approval": approval, "approvedVersion": digest})
        self.rested = False
        event(f"asked with {'a' if candidate else 'no'} version that waits")

    @precondition(lambda self: self.status.champion)
    @rule(pick=st.integers(0, 3), steps=st.integers(0, 3), lost=st.booleans(), stays=st.booleans())
    def roll_back(self, pick: int, steps: int, *, lost: bool, stays: bool) -> None:
        """A person wants a kept version back, or one that nobody knows; the store may have lost it."""
        versions = kept(self.status)
        version = versions[pick] if pick < len(versions) else None
        if lost and version is not None:
            self.world.lost.add(version.digest)
            self.promises.lost.add(version.digest)
        self.world.change(rollout={"rollbackTo": str(version.version) if version else "99"})
        if steps:
            self.go_on(steps, Verdict.PROMOTE)
        last = self.status.last_rollback
        event(f"rolled back by a person: {'never' if last is None else last.failed or 'done'}")
        if not stays:
            self.world.change(rollout={})
        self.rested = False

    @precondition(lambda self: self.status.rejected)
    @rule()
    def retry(self) -> None:
        """A person lets a rejected version be tried again."""
        rollout = self.world.resource.spec.rollout.to_dict()
        self.world.change(rollout=rollout | {"retry": self.status.rejected[-1].digest})
        self.rested = False

    @precondition(lambda self: self.status.rollout)
    @rule(refused=st.booleans())
    def disappoint(self, *, refused: bool) -> None:
        """The new version's pods do not become ready in time; it may take a while until it may be taken back."""
        self.world.settled = False
        self.world.reconcile()
        self.world.inject_refused = "Forbidden" if refused else None
        self.world.wait(8000)
        self.world.reconcile()
        self.promises.check(rested=True)
        self.world.inject_refused = None
        self.world.reconcile()
        self.promises.check(rested=True)
        self.world.settled = True
        self.world.reconcile()
        self.rested = True

    # --- what is watched ---------------------------------------------------------------------------------------------

    @precondition(lambda self: self.status.monitoring)
    @rule(
        drift=st.sampled_from(Judged),
        quality=st.sampled_from([None, *Judged]),
        estimated=st.booleans(),
        seconds=st.sampled_from([0.1, 0.9]),
    )
    def end_window(self, drift: Judged, quality: Judged | None, *, estimated: bool, seconds: float) -> None:
        """A window ends, is judged, and the pods tell how fast they were in it."""
        now, delay = self.world.now, windows.own_delay("ml/digits", Monitoring(delay="1m"), WINDOW)
        self.world.wait(windows.seconds_until_next(now, WINDOW, delay) + 1)
        window = int(self.world.now.timestamp() // WINDOW) - 1
        self.world.live = Live(window=window, numbers=(LiveNumber("p95", seconds, "Measured", "told"),), requests=1000)
        self.world.reconcile()
        for name in self.world.active_jobs():
            request = self.world.requests[name]
            if isinstance(request, CheckRequest) and not self.world.jobs[name].held:
                self.world.finish(name, check(request, drift=drift, quality=quality, estimated=estimated))
        self.world.reconcile()
        self.rested = True

    @precondition(lambda self: self.status.monitoring)
    @rule(ending=st.sampled_from(ENDINGS), sign=st.sampled_from(["drift", "quality", "speed"]))
    def relapse(self, ending: str, sign: str) -> None:
        """The live model suffers until a run starts, unless something holds it back, and that run ends like this."""
        drift = Judged.BREACH if sign == "drift" else Judged.CLEAR
        quality = Judged.BREACH if sign == "quality" else None
        for _ in range(4):
            self.end_window(drift, quality, estimated=False, seconds=0.9 if sign == "speed" else 0.1)
            if self.status.run is not None:
                event(f"run by {self.status.run.trigger}")
                self.end_run(ending)
                break

    # --- surroundings ------------------------------------------------------------------------------------------------

    @rule(what=st.sampled_from(["pods", "scale", "quota", "rights"]), good=st.booleans())
    def change_surroundings(self, what: str, *, good: bool) -> None:
        """Pods become ready, replicas come, a quota has room, rights are granted; or the contrary."""
        match what:
            case "pods":
                self.world.settled = good
            case "scale":
                self.world.wanted = int(good)
            case "quota":
                self.world.quota = not good
            case _:
                self.world.inject_refused = None if good else "Forbidden"
        self.rested = False

    @rule(seconds=st.sampled_from([1, 40, 700, 8000]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.world.wait(seconds)
        self.rested = False

    @rule()
    def collect_garbage(self) -> None:
        """Another resource goes, and what belonged to resources that are gone goes too."""
        for names in self.world.taken.values():
            names.clear()
        self.world.rivals.clear()
        self.world.collect_canary()
        self.rested = False

    # --- users and neighbours ----------------------------------------------------------------------------------------

    @rule(edit=st.sampled_from(EDITS))
    def edit(self, edit: dict[str, Any]) -> None:
        """A user edits the spec."""
        self.world.change(**edit)
        self.rested = False

    @rule(policy=st.sampled_from(["KeepChampion", "RestoreOriginal"]), taken=st.booleans())
    def delete(self, policy: str, *, taken: bool) -> None:
        """A user deletes the resource, having said what it shall leave behind; a neighbour may take the field first."""
        self.world.change(deletionPolicy=policy)
        self.world.reconcile()
        self.world.delete()
        if taken:
            self.meddle("take the field")
        self.rested = False
        event("deleted at once" if self.world.gone else "deleted with something to undo")

    @precondition(lambda self: self.world.gone)
    @rule(collected=st.booleans())
    def declare_again(self, *, collected: bool) -> None:
        """A user declares a resource of the same name; the garbage of the old one is gone, or not yet."""
        self.world.declare_again(collected=collected)
        self.promises.forget()
        self.rested = False

    @rule(
        deed=st.sampled_from(
            [
                "take the field",
                "put the original back",
                "put a version back",
                "replace the target",
                "delete the target",
                "claim a new target",
            ]
        )
    )
    def meddle(self, deed: str) -> None:
        """A neighbour does something to the target."""
        self.foreign += 1
        original = self.status.original
        match deed:
            case "take the field":
                self.promises.given.add(f"foreign-{self.foreign}")
                self.world.edit_field(f"foreign-{self.foreign}", "neighbour")
            case "put the original back":
                value = original.injected_value if original else None
                self.promises.given.add(value)
                self.world.edit_field(value, None if value is None else "neighbour")
            case "put a version back":
                if self.status.versions:
                    self.world.edit_field(self.status.versions[-1].injected_value, "neighbour")
            case _:
                self.promises.given.add(None)
                self.world.edit_field(None, None)
                self.world.target_uid = None if deed == "delete the target" else f"new-target-{self.foreign}"
        if deed == "claim a new target":
            self.world.rivals.add("mo-rival")
            self.world.leases[f"new-target-{self.foreign}"] = "mo-rival"
        self.rested = False

    # --- promises ----------------------------------------------------------------------------------------------------

    @invariant()
    def the_promises_are_kept(self) -> None:
        """At all times, and after a pass that was not cut short."""
        self.promises.check(rested=self.rested)

    def teardown(self) -> None:
        """Whatever has happened: once nobody disturbs it any more, the resource comes to rest, or goes if it is to."""
        if not hasattr(self, "world"):
            return
        world = self.world
        world.quota, world.inject_refused, world.wanted, world.store_away = False, None, 1, False
        world.target_uid = world.target_uid or "target-last"
        self.collect_garbage()
        if world.beside is not None and world.beside.owner == "someone":
            world.beside = None
        if not world.gone:
            world.change(suspend=False, mode="Automatic", manualNonce="last", rollout={}, **UNWATCHED)
        self.go_on(16, Verdict.NO_GAIN)
        self.promises.check(rested=True)
        champion = self.status.champion
        taken = world.owned_by_others or (champion is not None and world.value != champion.injected_value)
        waits = self.status.stage is Stage.BLOCKED and taken
        assert world.gone or taken or champion is None or champion.digest not in world.lost
        assert world.gone or not world.resource.metadata.deletion_timestamp
        assert waits or world.beside is None
        assert world.gone or waits or (self.status.run, self.status.rollout) == (None, None), self.status.message


Loop.TestCase.settings = settings(
    max_examples=120, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLoop = pytest.mark.slow(pytest.mark.timeout(600)(Loop.TestCase))
