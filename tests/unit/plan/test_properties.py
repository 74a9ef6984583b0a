"""The promises of the planner, against whatever order of events Hypothesis finds."""

from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from retune.api.status import Stage
from retune.contract.results import Reason, Verdict
from retune.plan.actions import EmitEvent
from tests.unit.plan.world import CrashError, World


class Loop(RuleBasedStateMachine):
    """Users, Jobs, pods, time, crashes and neighbours do what they like; the promises hold after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.foreign = 0
        self.allowed: set[str | None] = {None}
        self.rested = False

    @rule()
    def reconcile(self) -> None:
        """The operator makes a pass."""
        self.world.reconcile()
        self.rested = True

    @rule(writes=st.integers(0, 6))
    def crash(self, writes: int) -> None:
        """The operator dies after some writes."""
        self.world.crash_after = writes
        try:
            self.world.reconcile()
        except CrashError:
            self.rested = False
        self.world.crash_after = None

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

    @rule(steps=st.integers(1, 8))
    def go_well(self, steps: int) -> None:
        """For a while everything goes as hoped, so that later stages are reached often."""
        for _ in range(steps):
            for name in self.world.active_jobs():
                self.world.finish(name)
            self.world.settled = True
            self.world.wait(130)
            self.world.reconcile()
        self.rested = True
        status = self.world.resource.status
        event(f"stage {status.stage}")
        event(f"last {status.last_run.outcome if status.last_run else None}")

    @precondition(lambda self: self.world.jobs)
    @rule(pick=st.integers(0, 9))
    def lose_job(self, pick: int) -> None:
        """Somebody, or its TTL, deletes a Job (fault 20)."""
        names = sorted(self.world.jobs)
        del self.world.jobs[names[pick % len(names)]]
        self.rested = False

    @rule(settled=st.booleans())
    def pods(self, *, settled: bool) -> None:
        """The target's pods become ready, or stop being so."""
        self.world.settled = settled
        self.rested = False

    @rule(wanted=st.integers(0, 1))
    def scale(self, wanted: int) -> None:
        """The target is scaled to zero, or up again."""
        self.world.wanted = wanted
        self.rested = False

    @rule(seconds=st.sampled_from([1, 40, 700, 8000]))
    def wait(self, seconds: int) -> None:
        """Time passes."""
        self.world.wait(seconds)
        self.rested = False

    @rule(number=st.integers(0, 3))
    def ask_for_a_run(self, number: int) -> None:
        """A user sets manualNonce."""
        self.world.change(manualNonce=f"n{number}")
        self.rested = False

    @rule(trials=st.integers(1, 3))
    def change_spec(self, trials: int) -> None:
        """A user changes the search."""
        self.world.change(search={"maxTrials": trials})
        self.rested = False

    @rule(suspend=st.booleans(), mode=st.sampled_from(["Automatic", "RecommendOnly", "ObserveOnly"]))
    def change_mode(self, *, suspend: bool, mode: str) -> None:
        """A user suspends, resumes, or changes the mode."""
        self.world.change(suspend=suspend, mode=mode)
        self.rested = False

    @rule(quota=st.booleans())
    def quota(self, *, quota: bool) -> None:
        """A quota is exceeded, or has room again."""
        self.world.quota = quota
        self.rested = False

    @rule(refused=st.sampled_from([None, "Forbidden", "AdmissionDenied"]))
    def rights(self, refused: str | None) -> None:
        """The API server refuses to change the target, or lets it be changed again."""
        self.world.inject_refused = refused
        self.rested = False

    @rule(number=st.integers(1, 2))
    def deliver(self, number: int) -> None:
        """A user delivers another model."""
        self.world.change(model={"uri": f"pvc://store/digits/model-{number}.onnx"})
        self.rested = False

    @rule()
    def edit_field(self) -> None:
        """A neighbour sets the owned field."""
        self.foreign += 1
        self.world.value, self.world.manager = f"foreign-{self.foreign}", "neighbour"
        self.allowed.add(self.world.value)
        self.rested = False

    @rule(gone=st.booleans())
    def target(self, *, gone: bool) -> None:
        """The target is deleted, or created anew."""
        self.world.target_uid = None if gone else f"target-{self.foreign}"
        self.world.value, self.world.manager = None, None
        self.rested = False

    @invariant()
    def serving_never_points_at_an_ungated_artefact(self) -> None:
        """What serves was there before, was set by others, or passed the gate."""
        assert self.world.value in self.allowed | self.world.approved
        assert set(self.world.served) <= self.allowed | self.world.approved

    @invariant()
    def at_most_one_run_is_active(self) -> None:
        """After a pass, unfinished search and judge Jobs belong to one run at most."""
        if not self.rested or self.world.resource.spec.suspend:
            return
        runs = {name.rsplit("-", 1)[0] for name in self.world.active_jobs() if name.endswith(("-search", "-judge"))}
        assert len(runs) <= 1
        run = self.world.resource.status.run
        assert runs <= ({run.name} if run else set())

    @invariant()
    def a_plan_carried_out_leaves_nothing_to_write(self) -> None:
        """Planning again without news gives the same status and no action."""
        if not self.rested or self.world.gone:
            return
        decision = self.world.decide()
        todo = [action for action in decision.actions if not isinstance(action, EmitEvent)]
        assert decision.status == self.world.resource.status
        refused = self.world.quota or self.world.inject_refused or self.world.manager == "neighbour"
        assert refused or not todo

    @invariant()
    def a_rejected_bundle_does_not_come_back(self) -> None:
        """No candidate waits whose digest is on the rejected list."""
        status = self.world.resource.status
        rejected = {entry.digest for entry in status.rejected}
        if status.candidate and not (status.rollout and status.rollout.rollback_reason):
            assert status.candidate.digest not in rejected

    @invariant()
    def what_we_gave_the_target_is_never_taken_for_the_delivered_model(self) -> None:
        """The value to go back to is one that was there before, or that others have set."""
        original = self.world.resource.status.original
        assert original is None or original.injected_value in self.allowed

    @invariant()
    def an_unproven_version_serves_only_while_a_rollout_is_under_way(self) -> None:
        """A candidate on the target is promoted, watched or being taken back, never forgotten."""
        status, value = self.world.resource.status, self.world.value
        if self.rested and value in self.world.approved and status.rollout is None:
            assert status.champion is not None
            assert value == status.champion.injected_value or status.stage is not Stage.MONITORING

    @invariant()
    def every_condition_has_a_reason_and_a_sentence(self) -> None:
        """Nothing is False or Unknown without saying why."""
        for condition in self.world.resource.status.conditions:
            assert condition.reason
            assert condition.message


Loop.TestCase.settings = settings(
    max_examples=150, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLoop = Loop.TestCase
