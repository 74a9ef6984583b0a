"""What the planner promises, checked after every decision and after every step of whoever drives a World.

A promise is told from what the World holds and from what was decided before, never from how the planner decides.
"""

from datetime import timedelta

from retune.api.base import seconds
from retune.api.objects import ModelOptimization
from retune.api.spec import Mode
from retune.api.status import (
    ActiveRun,
    ConditionStatus,
    ConditionType,
    ModelOptimizationStatus,
    Outcome,
    Stage,
    Version,
)
from retune.api.triggers import SIGNAL_REASONS
from retune.contract.results import Failure, Reason
from retune.plan import Observed, Plan
from retune.plan.actions import (
    AcquireLease,
    CreateCanary,
    CreateJob,
    CreateRun,
    EmitEvent,
    InjectModel,
    RemoveCanary,
    ScaleCanary,
)
from retune.plan.draft import condition_of
from retune.plan.hashing import snapshot_hash
from retune.plan.kept import named
from tests.kstatus import Kstatus, kstatus, seen_by_kstatus
from tests.unit.plan.world import World

SIGNALS = set(SIGNAL_REASONS)
_DAY = timedelta(days=1)
_ROLLBACKS = 2
"""Rollbacks in a row that open the circuit."""


class Promises:
    """The promises about one World, and what has to be remembered to tell whether they are kept."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.given: set[str | None] = {world.value}
        """Values of the owned field that were there before, or that others have set."""
        self.promoted: set[str | None] = set()
        """Values of every version that became champion."""
        self.inherited: set[str | None] = set()
        """Those of resources of the same name that are gone."""
        self.lost: set[str] = set()
        """Digests of bundles that the store has lost at some time."""
        self.delivered: set[str] = set()
        """Digests of delivered models that the target may serve in its own way."""
        self.template: str | None = None
        """The pod template when the rollout under way began."""
        self.rollbacks = 0
        """Rollbacks in a row, since the last promotion or since a person acted."""
        self.opened = 0
        """Generation of the spec when the second one was."""

    def forget(self) -> None:
        """Begin anew with a resource of the same name, for which what serves by now is the delivered model."""
        self.given |= {self.world.value}
        self.inherited |= self.promoted
        self.promoted.clear()
        self.world.approved.clear()
        self.world.served.clear()
        self.world.tried.clear()
        self.rollbacks = 0

    # After every decision

    def decided(self, observed: Observed, decision: Plan) -> None:
        """Check one decision against what it was made from."""
        before, after, resource = observed.resource.status, decision.status, observed.resource
        run = after.run if after.run and (before.run is None or before.run.name != after.run.name) else None
        self._count_rollbacks(resource, after, run)
        if run is not None:
            self._check_start(resource, after, run)
        self._check_actions(observed, decision)
        self._check_conditions(before, after)
        self._check_rejections(observed, after)
        self._check_fallback(observed, decision)
        self._check_pin(before, after, resource)
        self._check_delivery(before, after, resource)
        self._check_worth(after)
        self._check_shown(before, after)
        self._check_watch(after)
        if after.champion and after.champion.run_name and _champion_of(after) != _champion_of(before):
            returned = self._check_choice if _is_untouched(before, after) else self._check_promotion
            check = self._check_return if before.original is None else returned
            check(observed, after.champion)

    def _check_rejections(self, observed: Observed, after: ModelOptimizationStatus) -> None:
        """A version is rejected for what it did itself, or because a person put another one back.

        What others did to the pods or to their template meanwhile is never held against it.
        """
        before, target = observed.resource.status, observed.target
        if after.rollout is not None and (before.rollout is None or not before.rollout.injected):
            self.template = target.template if target else None
        known, rejected = ({entry.digest for entry in status.rejected} for status in (before, after))
        for digest in rejected - known:
            value = target.containers[0].value if target else None
            if self._by_person(observed, after):
                assert digest in {version.digest for version in (before.champion, before.candidate) if version}
            elif _is_untouched(before, after):
                assert before.champion is not None
                assert (before.champion.digest, value == before.champion.injected_value) == (digest, False)
            else:
                assert before.candidate is not None
                assert before.candidate.digest == digest
                assert target is not None
                assert target.template == self.template
                assert self._has_failed(observed)
        for digest in known - rejected:
            assert digest in {observed.resource.spec.rollout.retry, after.champion and after.champion.digest}

    def _check_worth(self, after: ModelOptimizationStatus) -> None:
        """What a version is worth is said of what serves or waits, and of nothing else."""
        present = {version.version for version in (after.champion, after.candidate) if version}
        assert {worth.version for worth in after.worth} <= present

    def _check_shown(self, before: ModelOptimizationStatus, after: ModelOptimizationStatus) -> None:
        """What a champion has shown stays said of it, until the target is another one."""
        if before.champion and after.champion != before.champion and _champion_of(after) == _champion_of(before):
            assert after.champion is not None
            assert after.champion.shown_by == "Nothing"
            assert after.target_uid != before.target_uid

    def _check_watch(self, after: ModelOptimizationStatus) -> None:
        """What windows say is said of the version that is champion, and never of one before it."""
        if after.monitoring is not None and after.champion is not None:
            assert after.monitoring.champion_digest == after.champion.digest
            reliable = condition_of(after, ConditionType.MONITORING_RELIABLE)
            if after.monitoring.window is None and reliable is not None:
                assert reliable.status is not ConditionStatus.TRUE

    def _by_person(self, observed: Observed, after: ModelOptimizationStatus) -> bool:
        """Whether a person's rollback begins or ends in this decision."""
        before = observed.resource.status
        ended = before.last_rollback != after.last_rollback
        begun = before.next_rollback != after.next_rollback or observed.resource.spec.rollout.rollback_to is not None
        return ended or (begun and before.rollout is not None and after.rollout != before.rollout)

    def _has_failed(self, observed: Observed) -> bool:
        """Whether pods of the new version have crashed, never got ready, answered wrongly or with errors."""
        traffic = observed.traffic
        tried = traffic.heard is not None and bool(traffic.heard.errors)
        if tried or traffic.pods.crash is not None or traffic.pods.unready is not None:
            return True
        pods, counts = observed.pods, observed.heard
        results = [job.result for name, job in observed.jobs.items() if "-verify" in name]
        wrong = any(isinstance(result, Failure) and result.reason is Reason.GOLDEN_MISMATCH for result in results)
        errors = counts is not None and bool(counts.errors)
        return wrong or errors or pods.crash is not None or pods.unready is not None

    def _check_choice(self, observed: Observed, champion: Version) -> None:
        """An earlier champion is champion again once somebody else has given it to the target."""
        target = observed.target
        assert target is not None
        assert target.containers[0].value == champion.injected_value
        assert champion.injected_value in self.promoted

    def _check_actions(self, observed: Observed, decision: Plan) -> None:
        """Nothing is made or changed without the Lease, while suspended, or against what the spec says by now."""
        resource, candidate, target = observed.resource, decision.status.candidate, observed.target
        creates = any(isinstance(action, CreateJob | CreateRun | CreateCanary) for action in decision.actions)
        injected = [action.value for action in decision.actions if isinstance(action, InjectModel)]
        if resource.metadata.deletion_timestamp:
            assert not creates
            return
        assert not resource.spec.suspend or not (creates or injected)
        assert resource.spec.mode is not Mode.PROPOSE or not injected
        if creates or injected:
            leased = target is not None and self.world.leases.get(target.uid) == resource.metadata.uid
            assert leased or any(isinstance(action, AcquireLease) for action in decision.actions)
        if candidate and candidate.injected_value in injected:
            assert resource.spec.mode is Mode.AUTOMATIC
            assert candidate.spec_hash == snapshot_hash(resource.spec)
            asked = resource.spec.rollout
            on_its_way = resource.status.rollout is not None and resource.status.rollout.injected
            assert on_its_way or asked.approval == "Automatic" or asked.approved_version == candidate.digest
        self._check_trial(observed, decision)

    def _check_trial(self, observed: Observed, decision: Plan) -> None:
        """A canary never gets more than its step's weight, and the target nothing that has not passed all of them.

        Of an edited spec that holds when it is observed: one whose target has to be leased first is not yet.
        """
        rollout, target, spec = decision.status.rollout, observed.target, observed.resource.spec.rollout
        steps, before = spec.trial.steps, observed.resource.status.rollout
        is_edited = decision.status.observed_generation != observed.resource.metadata.generation
        if rollout is not None and rollout.weight is not None:
            is_as_before = is_edited and before is not None and rollout.weight == before.weight
            assert is_as_before or rollout.weight in {step.weight for step in steps}
        for action in decision.actions:
            if isinstance(action, CreateCanary):
                assert (spec.is_tried, action.value in self.world.approved) == (True, True)
                assert action.replicas == (target.wanted if target and spec.strategy == "BlueGreen" else 1)
            if isinstance(action, ScaleCanary) and action.replicas > 1:
                assert target is not None
                assert rollout is not None
                weight = 50 if spec.strategy == "BlueGreen" else rollout.weight or 0
                assert 100 * action.replicas <= weight * (action.replicas + target.wanted)
            if isinstance(action, RemoveCanary):
                assert self.world.beside is not None
            if isinstance(action, InjectModel) and spec.is_tried and before and not before.injected:
                candidate = observed.resource.status.candidate
                is_given = candidate is not None and action.value == candidate.injected_value
                assert not is_given or (rollout is not None and rollout.weight_index == len(steps))

    def _check_promotion(self, observed: Observed, champion: Version) -> None:
        """A version is champion after it passed the gate, served from every pod, and was watched for its time."""
        rollout, target = observed.resource.status.rollout, observed.target
        assert champion.injected_value in self.world.approved
        assert rollout is not None
        if rollout.rollback_number is not None:
            self._check_rollback(observed, champion)
            return
        assert rollout.bake_start_time is not None
        baked = (self.world.now - rollout.bake_start_time).total_seconds()
        assert baked >= seconds(observed.resource.spec.rollout.bake_time)
        assert target is not None
        assert target.settled
        assert target.containers[0].value == champion.injected_value
        self.promoted.add(champion.injected_value)

    def _check_rollback(self, observed: Observed, champion: Version) -> None:
        """A person's version is one that was champion before, and is champion again once every pod serves it."""
        target = observed.target
        assert champion.injected_value in self.promoted
        assert target is not None
        assert target.settled
        assert target.containers[0].value == champion.injected_value

    def _check_pin(
        self, before: ModelOptimizationStatus, after: ModelOptimizationStatus, resource: ModelOptimization
    ) -> None:
        """While a person keeps a version, no run starts, none of another version is promoted, and no rollout begins."""
        if named(before, resource.spec.rollout.rollback_to) is None or resource.metadata.deletion_timestamp:
            return
        assert after.next_run == before.next_run
        begun = after.rollout is not None and before.rollout is None
        assert not begun or (after.rollout is not None and after.rollout.rollback_number is not None)
        if after.last_run and after.last_run.outcome is Outcome.PROMOTED:
            assert before.last_run is not None
            assert before.last_run.name == after.last_run.name

    def _check_delivery(
        self, before: ModelOptimizationStatus, after: ModelOptimizationStatus, resource: ModelOptimization
    ) -> None:
        """With GoesLive no newly delivered model is champion without a rollout; what others put back has served."""
        champion, policy = after.champion, resource.spec.rollout.delivered_model
        held = policy == "GoesLive" and resource.spec.mode is not Mode.OBSERVE_ONLY and before.original is not None
        if after.original is not None and not held:
            self.delivered.add(after.original.digest)
        if champion is not None and champion.run_name is None:
            assert champion.digest in self.delivered

    def _check_return(self, observed: Observed, champion: Version) -> None:
        """What a new resource finds serving is champion at once only if it was so for one that is gone."""
        target = observed.target
        assert champion.injected_value in self.inherited
        assert target is not None
        assert target.containers[0].value == champion.injected_value
        self.promoted.add(champion.injected_value)

    def _check_fallback(self, observed: Observed, decision: Plan) -> None:
        """A champion is given up for its bundle only where the store has lost it, and is no worse for it."""
        before, after = observed.resource.status, decision.status
        fell_back = before.champion != after.champion and _said(after, "FellBack") and not _said(before, "FellBack")
        if fell_back and before.champion is not None:
            assert before.champion.digest in self.lost
            assert after.champion is not None
            assert after.champion.run_name is None
            assert after.champion.digest in self.delivered
            assert after.rejected == before.rejected
        if _said(after, "BundleLost") and after.champion is not None:
            assert after.champion.digest in self.lost

    def _check_start(self, resource: ModelOptimization, after: ModelOptimizationStatus, run: ActiveRun) -> None:
        """A run starts where none is under way; a signal's only if nothing holds it back."""
        assert run.number == after.next_run - 1
        assert after.rollout is None
        assert resource.spec.mode is not Mode.OBSERVE_ONLY
        if run.trigger not in SIGNALS:
            return
        triggers, spec, now = after.triggers, resource.spec.triggers, self.world.now
        assert run.trigger in spec.signals
        assert triggers.circuit is None
        assert triggers.cooldown_until is None or triggers.cooldown_until <= now
        assert len([start for start in triggers.starts if now - start < _DAY]) <= spec.max_runs_per_day

    def _count_rollbacks(
        self, resource: ModelOptimization, after: ModelOptimizationStatus, run: ActiveRun | None
    ) -> None:
        """Two rollbacks in a row open the circuit; a promotion or a person's word closes it."""
        before, last, generation = resource.status, after.last_run, resource.metadata.generation
        if generation > self.opened and after.triggers.circuit != "RollbackLoop":
            self.rollbacks = self.rollbacks if self.rollbacks < _ROLLBACKS else 0
        if last and (
            before.last_run is None or (before.last_run.name, before.last_run.outcome) != (last.name, last.outcome)
        ):
            counts = {Outcome.ROLLED_BACK: self.rollbacks + 1, Outcome.PROMOTED: 0}
            self.rollbacks = counts.get(last.outcome, self.rollbacks)
            self.opened = generation
        if run is not None and run.trigger not in SIGNALS:
            self.rollbacks = 0
        assert (after.triggers.circuit == "RollbackLoop") is (self.rollbacks >= _ROLLBACKS)

    def _check_conditions(self, before: ModelOptimizationStatus, after: ModelOptimizationStatus) -> None:
        """Nothing is said without reason and sentence; what says the same of one target and one run has not changed."""
        about = [(status.target_uid, status.run and status.run.name) for status in (before, after)]
        for condition in after.conditions:
            assert condition.reason
            assert condition.message
            assert condition.last_transition_time <= self.world.now
            old = condition_of(before, ConditionType(condition.type))
            said = [(one.status, one.message) for one in (condition, old) if one]
            if old and said[0] == said[1] and about[0] == about[1]:
                assert condition.last_transition_time == old.last_transition_time, condition
        both = (ConditionType.RECONCILING, ConditionType.STALLED)
        true = [kind for kind in both if (one := condition_of(after, kind)) and one.status is ConditionStatus.TRUE]
        assert len(true) < 2

    # After every step

    def check(self, *, rested: bool) -> None:
        """Check what holds at all times, and, after a pass that was not cut short, what holds then."""
        self._check_serving()
        self._check_status()
        if rested and not self.world.gone:
            self._check_rest()
            self._check_kstatus()

    def _check_serving(self) -> None:
        """What serves was there before, was set by others, or passed the gate; after a deletion, it was champion."""
        world = self.world
        served = self.given | self._delivered() | world.approved
        assert world.value in served
        assert set(world.served) <= served
        assert set(world.tried) <= world.approved
        if world.gone:
            assert world.value in self.given | self._delivered() | self.promoted

    def _delivered(self) -> set[str | None]:
        """The delivered model as a bundle: its name where a version was found serving in its place."""
        original = self.world.resource.status.original
        bundles: set[str | None] = {original.uri} if original else set()
        return bundles - self.inherited - self.promoted

    def _check_status(self) -> None:
        """A rejected bundle does not come back; what we gave the target is never taken for the delivered model."""
        status = self.world.resource.status
        if status.candidate and not (status.rollout and status.rollout.rollback_reason):
            assert status.candidate.digest not in {entry.digest for entry in status.rejected}
        assert status.original is None or status.original.injected_value in self.given | self._delivered()

    def _check_rest(self) -> None:
        """Planning again without news changes nothing, at most one run is active, and no trial is forgotten."""
        world, status = self.world, self.world.resource.status
        decision = world.decide()
        assert decision.status == status
        held = world.leases.get(world.target_uid or "") in world.rivals
        refused = held or world.quota or world.inject_refused or world.owned_by_others or any(world.taken.values())
        theirs = world.beside is not None and world.beside.owner != world.uid
        refused = refused or bool(world.beside_refused) or theirs
        assert refused or not [action for action in decision.actions if not isinstance(action, EmitEvent)]
        if not world.resource.spec.suspend:
            owners = {name.rsplit("-", 1)[0] for name in world.active_jobs() if not _is_of_no_run(name)}
            assert owners <= self._at_work()
            assert len([name for name in world.active_jobs() if "-w" in name]) <= 1
        if status.rollout is None and world.beside is not None and not world.resource.spec.suspend:
            assert refused
        if status.rollout is None and world.target_uid == status.target_uid:
            assert world.value in self.given | self._delivered() | self.promoted

    def _at_work(self) -> set[str | None]:
        """The run under way, or that of a version which goes live after its run has ended, as one proposed before."""
        status = self.world.resource.status
        if status.run is not None:
            return {status.run.name}
        return {status.candidate.run_name} if status.rollout and status.candidate else set()

    def _check_kstatus(self) -> None:
        """Current: nothing is under way, and the champion serves. In progress: something will go on by itself."""
        world, status = self.world, self.world.resource.status
        said = kstatus(seen_by_kstatus(world.resource))
        ready = condition_of(status, ConditionType.READY)
        assert (said is Kstatus.TERMINATING) is (status.stage is Stage.TERMINATING)
        if ready is not None and ready.status is ConditionStatus.TRUE:
            self._check_champion_serves()
        if said is Kstatus.CURRENT:
            self._check_champion_serves()
            asked = status.stage is Stage.AWAITING_APPROVAL
            assert world.resource.spec.suspend or asked or status.run is None
        if said is Kstatus.IN_PROGRESS:
            waits = world.active_jobs() or world.look_again is not None or not world.settled or not world.wanted
            assert waits or world.resource.spec.suspend

    def _check_champion_serves(self) -> None:
        """A pod is available, unless none is wanted, and what serves is the champion, not a version on trial."""
        target, status = self.world.target, self.world.resource.status
        champion, candidate = status.champion, status.candidate
        assert target is not None
        assert target.available or not target.wanted
        assert champion is not None
        assert champion.run_name is None or self.world.value == champion.injected_value
        assert candidate is None or self.world.value != candidate.injected_value
        assert status.stage not in {Stage.ROLLING_OUT, Stage.BAKING, Stage.ROLLING_BACK}


def _champion_of(status: ModelOptimizationStatus) -> Version | None:
    """The champion, whatever it has shown."""
    return status.champion.model_copy(update={"shown_by": None}) if status.champion else None


def _is_untouched(before: ModelOptimizationStatus, after: ModelOptimizationStatus) -> bool:
    """Whether no rollout was under way, or only one that was given up before the target knew of it."""
    return before.rollout is None or (after.rollout is None and not before.rollout.injected)


def _said(status: ModelOptimizationStatus, reason: str) -> bool:
    """Whether the status says this of the champion's bundle."""
    shown = condition_of(status, ConditionType.BUNDLE_AVAILABLE)
    return shown is not None and shown.reason == reason


def _is_of_no_run(job: str) -> bool:
    """Whether a Job is a baseline's or a window's."""
    return "-r" not in job
