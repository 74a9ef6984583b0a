"""The plan while it is being made: a status that steps change, the actions they ask for, and why a pass stops.

Steps see the status as already changed by the steps before them. Nothing of the draft outlives the pass.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from retune.api.objects import ModelOptimization
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import Condition, ConditionStatus, ConditionType, ModelOptimizationStatus, Stage, Version
from retune.contract.requests import BundleRef
from retune.plan.actions import Action, Plan
from retune.plan.jobs import JobFailure, failure_of
from retune.plan.observed import REFUSALS, Container, Job, Observed, Refusal, Verb
from retune.plan.store import store_of

_ORDER: dict[str, int] = {member.value: index for index, member in enumerate(ConditionType)}


_LEAST_WATCHED_SECONDS = 30.0
"""How much of a span an operator has watched itself before it takes the span to be over, if the span is as long."""


@dataclass(frozen=True)
class Hold:
    """Why the pass stops here: the stage to show, a reason and a sentence."""

    stage: Stage
    reason: str
    message: str


class Draft:
    """One plan in the making."""

    def __init__(self, observed: Observed, now: datetime) -> None:
        self.observed = observed
        self.now = now.replace(microsecond=0)
        self.status = observed.resource.status
        self.actions: list[Action] = []
        self.look_again: float | None = None

    @property
    def resource(self) -> ModelOptimization:
        """The resource as observed."""
        return self.observed.resource

    @property
    def spec(self) -> ModelOptimizationSpec:
        """What the user wants."""
        return self.observed.resource.spec

    @property
    def store(self) -> str | None:
        """This resource's folder in the artifact store; None where there is none that it may use."""
        own, default = self.spec.execution.artifact_store, self.observed.defaults.artifact_store
        meta = self.resource.metadata
        return store_of(meta.name, namespace=meta.namespace, own=own, default=default)

    @property
    def target_name(self) -> str:
        """Kind and name of the target, as a sentence names it."""
        ref = self.spec.target.ref
        return f"{ref.kind} {ref.name}"

    @property
    def container(self) -> Container | None:
        """The target's container that loads the model; None without a target or where no single one fits."""
        target = self.observed.target
        return target.container(self.spec.target.container) if target else None

    @property
    def cpu_limit(self) -> float | None:
        """CPU that the serving container may use, in cores; None where that is not known."""
        return self.container.cpu_limit if self.container else None

    @property
    def threads(self) -> int:
        """Threads that the serving container may use: its CPU limit in whole cores, or fewer if the spec says so."""
        limit = max(1, int(self.cpu_limit or 1))
        return min(limit, self.spec.serving.cores or limit)

    def update(self, **fields: Any) -> None:
        """Change fields of the status; a plan that changes none of them has the very status that was observed."""
        changed = {name: value for name, value in fields.items() if getattr(self.status, name) != value}
        if changed:
            self.status = self.status.model_copy(update=changed)

    def do(self, *actions: Action) -> None:
        """Ask for actions, in order."""
        self.actions += [action for action in actions if action not in self.actions]

    def refusal(self, verb: Verb) -> Refusal | None:
        """Return why the API server refused this verb in this pass, if it did."""
        return next((refusal for refusal in self.observed.refusals if refusal.verb is verb), None)

    def refused_before(self, kind: ConditionType) -> tuple[str, str] | None:
        """Return reason and sentence of an earlier refusal that a condition still shows.

        A step that tries again keeps showing it until the attempt succeeds, so that trying changes no status.
        """
        condition = condition_of(self.status, kind)
        return (condition.reason, condition.message) if condition and condition.reason in REFUSALS else None

    def failure_of(self, job: Job) -> JobFailure | None:
        """Return why a Job failed; None while it may still succeed or when it did."""
        return failure_of(job, now=self.now, pull_seconds=self.observed.defaults.image_pull_seconds)

    def wake(self, *, after: float) -> None:
        """Ask for another pass.

        Args:
            after: Seconds from now within which it is to happen; the shortest wait of a pass counts.
        """
        self.look_again = after if self.look_again is None else min(self.look_again, after)

    def remaining(self, since: datetime, seconds: float) -> float:
        """Return the seconds left of a span; zero or less when it is over.

        Of a span that began before this operator, the end is watched at least: clocks may have been set meanwhile.

        Args:
            since: When the span began.
            seconds: How long it is.
        """
        left = (since + timedelta(seconds=seconds) - self.now).total_seconds()
        begun = self.observed.watched_since
        if begun is None or since >= begun:
            return left
        watched = max(0.0, (self.now - begun).total_seconds())
        return max(left, min(seconds, _LEAST_WATCHED_SECONDS) - watched)

    def condition(self, kind: ConditionType, status: ConditionStatus, reason: str, message: str) -> None:
        """Set a condition; its transition time moves only when its status does."""
        old, message, generation = condition_of(self.status, kind), message[:1024], self.resource.metadata.generation
        said = (status, reason, message, generation)
        if old and (old.status, old.reason, old.message, old.observed_generation) == said:
            return
        new = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message,
            last_transition_time=old.last_transition_time if old and old.status is status else self.now,
            observed_generation=generation,
        )
        others = [condition for condition in self.status.conditions if condition.type != kind]
        ordered = sorted([*others, new], key=lambda condition: _ORDER.get(condition.type, len(_ORDER)))
        self.update(conditions=tuple(ordered))

    def finish(self) -> Plan:
        """Return the plan."""
        return Plan(status=self.status, actions=tuple(self.actions), look_again=self.look_again)


def condition_of(status: ModelOptimizationStatus, kind: ConditionType) -> Condition | None:
    """Return a condition, or None while it was never set."""
    return next((condition for condition in status.conditions if condition.type == kind), None)


def bundle_of(version: Version) -> BundleRef:
    """Return where a version's bundle lies and what it must hash to."""
    return BundleRef(uri=version.uri, digest=version.digest)
