"""A small world for the planner: it carries plans out the way the operator and a cluster would, without either.

Used by example tests and by the state machine that Hypothesis drives. Every write can be counted and cut short.
"""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from retune.api.objects import ModelOptimization, ObjectMeta, OptimizationRun
from retune.api.spec import ModelOptimizationSpec
from retune.contract.requests import JudgeRequest
from retune.contract.results import Failure, JobResult, Reason, Verdict
from retune.plan import Observed, Plan, plan
from retune.plan.actions import (
    AcquireLease,
    Action,
    CreateJob,
    CreateRun,
    DeleteJob,
    DeleteRun,
    EmitEvent,
    HoldJob,
    InjectModel,
    RecordRun,
    SetFinalizer,
)
from retune.plan.guards.deletion import FINALIZER
from retune.plan.observed import Container, Job, JobPhase, Live, Pods, Refusal, Target, Verb
from tests.answers import answer, bundle_of

FINISHED = {JobPhase.SUCCEEDED, JobPhase.FAILED}


class CrashError(Exception):
    """The operator died between two writes."""


def spec(**changes: Any) -> ModelOptimizationSpec:
    """Return a small valid spec, with changes."""
    base: dict[str, Any] = {
        "model": {"uri": "pvc://store/digits/model.onnx"},
        "data": {
            "training": {"uri": "pvc://store/digits/train.npz"},
            "validation": {"uri": "pvc://store/digits/validation.npz"},
            "test": {"uri": "pvc://store/digits/test.npz"},
        },
        "target": {"ref": {"name": "digits"}, "inference": {"modelName": "digits"}},
    }
    return ModelOptimizationSpec.model_validate(base | changes)


@dataclass
class World:
    """One resource, its target and its Jobs."""

    spec: ModelOptimizationSpec = field(default_factory=spec)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    value: str | None = None
    manager: str | None = None
    settled: bool = True
    wanted: int = 1
    target_uid: str | None = "target-1"
    lease_holder: str | None = None
    uid: str = "mo-1"
    quota: bool = False
    inject_refused: str | None = None
    writes: int = 0
    crash_after: int | None = None
    requests: dict[str, Any] = field(default_factory=dict)
    approved: set[str] = field(default_factory=set)
    served: list[str | None] = field(default_factory=list)
    events: list[EmitEvent] = field(default_factory=list)
    jobs: dict[str, Job] = field(default_factory=dict)
    runs: dict[str, OptimizationRun] = field(default_factory=dict)
    gone: bool = False
    live: Live | None = None

    def __post_init__(self) -> None:
        """Create the resource."""
        meta = ObjectMeta(name="digits", namespace="ml", uid=self.uid, generation=1)
        self.resource = ModelOptimization(metadata=meta, spec=self.spec)

    # What the operator sees and does

    def observe(self, *, lease_held: bool = False, refusals: tuple[Refusal, ...] = ()) -> Observed:
        """Return the facts of this moment."""
        return Observed(
            resource=self.resource,
            target=self._target(),
            jobs=dict(self.jobs),
            runs=dict(self.runs),
            pods=Pods(endpoints=("http://10.0.0.1:8080",)),
            live=self.live,
            lease_held=lease_held,
            refusals=refusals,
        )

    def _target(self) -> Target | None:
        if self.target_uid is None:
            return None
        container = Container(
            name="server", value=self.value, indirect=False, manager=self.manager if self.value else None, cpu_limit=1.0
        )
        available = self.wanted if self.settled else 0
        return Target(
            name="digits", uid=self.target_uid, containers=(container,), settled=self.settled, available=available,
            wanted=self.wanted, progress="0 of 1 new pods available",
        )  # fmt: skip

    def decide(self) -> Plan:
        """Return the plan of a fresh pass."""
        return plan(self.observe(), self.now)

    def reconcile(self) -> int:
        """Carry out plans until there is nothing to do; returns the number of writes."""
        before, held = self.writes, False
        refusals: tuple[Refusal, ...] = ()
        for _ in range(8):
            if self.gone:
                break
            decision = plan(self.observe(lease_held=held, refusals=refusals), self.now)
            todo = [action for action in decision.actions if not isinstance(action, EmitEvent)]
            if decision.status == self.resource.status and not todo:
                break
            self._write_status(decision)
            for action in decision.actions:
                refusal = self._apply(action)
                held = held or (isinstance(action, AcquireLease) and refusal is None)
                if refusal:
                    refusals = (*refusals, refusal)
                    break
        else:
            raise AssertionError("the plan never comes to rest")
        return self.writes - before

    def _write(self) -> None:
        if self.crash_after is not None and self.crash_after <= 0:
            self.crash_after = None
            raise CrashError
        if self.crash_after is not None:
            self.crash_after -= 1
        self.writes += 1

    def _write_status(self, decision: Plan) -> None:
        if decision.status != self.resource.status:
            self._write()
            self.resource = self.resource.model_copy(update={"status": decision.status})

    def _apply(self, action: Action) -> Refusal | None:  # noqa: C901, PLR0912 - one branch a verb
        match action:
            case EmitEvent():
                self.events.append(action)
            case AcquireLease():
                if self.lease_holder not in {None, self.uid}:
                    return Refusal(Verb.ACQUIRE_LEASE, "HeldByAnother", "held by ml/other")
                if self.lease_holder is None:
                    self._write()
                    self.lease_holder = self.uid
            case CreateJob():
                if self.quota:
                    return Refusal(Verb.CREATE_JOB, "QuotaExceeded", "exceeded quota")
                if action.name not in self.jobs:
                    self._write()
                    self.jobs[action.name] = Job(name=action.name, uid=action.name, phase=JobPhase.WAITING)
                    self.requests[action.name] = action.request
            case HoldJob():
                self._write()
                phase = JobPhase.SUSPENDED if action.held else JobPhase.RUNNING
                self.jobs[action.name] = replace(self.jobs[action.name], phase=phase, held=action.held)
            case DeleteJob():
                self._write()
                self.jobs.pop(action.name, None)
            case CreateRun():
                if action.name not in self.runs:
                    self._write()
                    meta = ObjectMeta(name=action.name, namespace="ml", uid=action.name)
                    self.runs[action.name] = OptimizationRun(metadata=meta, spec=action.spec)
            case RecordRun():
                self._write()
                self.runs[action.name] = self.runs[action.name].model_copy(update={"status": action.status})
            case DeleteRun():
                self._write()
                self.runs.pop(action.name, None)
            case InjectModel():
                return self._inject(action)
            case SetFinalizer():
                self._write()
                self._set_finalizer(present=action.present)
        return None

    def _inject(self, action: InjectModel) -> Refusal | None:
        if self.target_uid is None:
            return Refusal(Verb.INJECT_MODEL, "NotFound", "no such Deployment")
        if self.inject_refused:
            return Refusal(Verb.INJECT_MODEL, self.inject_refused, "Retune may not patch deployments.apps")
        foreign = self.value is not None and self.manager not in {None, "retune"}
        if foreign and not action.force and action.value != self.value:
            return Refusal(Verb.INJECT_MODEL, "FieldConflict", f"owned by {self.manager}")
        if action.value != self.value:
            self._write()
            self.value, self.manager, self.settled = action.value, "retune", False
            self.served.append(action.value)
        return None

    def _set_finalizer(self, *, present: bool) -> None:
        finalizers = (FINALIZER,) if present else ()
        self.resource = self._with_metadata(finalizers=finalizers)
        if not present and self.resource.metadata.deletion_timestamp:
            self.gone = True

    def _with_metadata(self, **changes: Any) -> ModelOptimization:
        return self.resource.model_copy(update={"metadata": self.resource.metadata.model_copy(update=changes)})

    # What others do

    def change(self, **changes: Any) -> None:
        """Edit the spec, as a user would."""
        merged = self.resource.spec.model_dump(mode="json", by_alias=True, exclude_none=True) | changes
        self.resource = self.resource.model_copy(update={"spec": ModelOptimizationSpec.model_validate(merged)})
        self.resource = self._with_metadata(generation=self.resource.metadata.generation + 1)

    def delete(self) -> None:
        """Delete the resource, as a user would."""
        if FINALIZER in self.resource.metadata.finalizers:
            self.resource = self._with_metadata(deletion_timestamp=self.now)
        else:
            self.gone = True

    def active_jobs(self) -> list[str]:
        """Return the names of Jobs that have not finished."""
        return [job.name for job in self.jobs.values() if job.phase not in FINISHED]

    def finish(self, name: str, result: JobResult | None = None) -> None:
        """Let a Job succeed with a result that fits its request."""
        result = result or self.answer(name)
        self.jobs[name] = replace(self.jobs[name], phase=JobPhase.SUCCEEDED, held=False, result=result)

    def fail(self, name: str, reason: Reason = Reason.UNEXPECTED) -> None:
        """Let a Job fail with a reason."""
        result = Failure(reason=reason, object="pvc://store/x", message="is wrong.", next_step="Mend it.")
        self.jobs[name] = replace(self.jobs[name], phase=JobPhase.FAILED, held=False, result=result)

    def answer(self, name: str, verdict: Verdict = Verdict.PROMOTE) -> JobResult:
        """Return an honest result for a Job's request."""
        request = self.requests[name]
        if isinstance(request, JudgeRequest) and verdict is Verdict.PROMOTE:
            self.approved.add(bundle_of(request).uri)
        return answer(request, verdict=verdict)

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    # A whole pass, for tests that start further on

    def run_to_rollout(self) -> None:
        """Go from nothing to a candidate that has been given to the target."""
        self.reconcile()
        for _ in range(3):
            (name,) = self.active_jobs()
            self.finish(name)
            self.reconcile()

    def run_to_promotion(self) -> None:
        """Go from nothing to a promoted champion."""
        self.run_to_rollout()
        self.settled = True
        self.reconcile()
        (verify,) = self.active_jobs()
        self.finish(verify)
        self.reconcile()
        self.wait(600)
        self.reconcile()

    def settle(self) -> None:
        """Go from nothing to a champion that is the delivered model, after a first run that brought nothing."""
        self.reconcile()
        self.end_run(Verdict.NO_GAIN)

    def end_run(self, verdict: Verdict) -> None:
        """Finish the Jobs of baseline and run with this verdict, as far as nothing goes live."""
        for _ in range(5):
            for name in self.active_jobs():
                self.finish(name, self.answer(name, verdict))
            self.reconcile()

    def promote(self) -> None:
        """Carry a run that was just started to its promotion; checks of windows are left alone."""
        for _ in range(9):
            for name in self.active_jobs():
                if "-w" not in name:
                    self.finish(name)
            self.settled = True
            self.reconcile()
            self.wait(30)
        self.reconcile()

    def survive(self) -> None:
        """Do a pass, and after a crash another one, as the next process would."""
        try:
            self.reconcile()
        except CrashError:
            self.reconcile()
