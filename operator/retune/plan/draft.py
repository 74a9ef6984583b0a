"""The plan while it is being made: a status that steps change, the actions they ask for, and why a pass stops.

Steps see the status as already changed by the steps before them. Nothing of the draft outlives the pass.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from retune.api.objects import ModelOptimization
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import Condition, ConditionStatus, ConditionType, ModelOptimizationStatus, Stage
from retune.plan.actions import Action, Plan
from retune.plan.observed import REFUSALS, Container, Observed, Refusal, Verb

_ORDER: dict[str, int] = {member.value: index for index, member in enumerate(ConditionType)}


@dataclass(frozen=True)
class Hold:
    """Why the pass goes no further now, in a stage's name, a reason and a sentence."""

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
        """This resource's folder in the artifact store."""
        root = self.spec.execution.artifact_store or self.observed.defaults.artifact_store
        return f"{root.rstrip('/')}/{self.resource.metadata.name}" if root else None

    @property
    def container(self) -> Container | None:
        """The target's container that loads the model, when it can be told."""
        target = self.observed.target
        return target.container(self.spec.target.container) if target else None

    def update(self, **fields: Any) -> None:
        """Change fields of the status."""
        self.status = self.status.model_copy(update=fields)

    def do(self, *actions: Action) -> None:
        """Ask for actions, in order."""
        self.actions += [action for action in actions if action not in self.actions]

    def refusal(self, verb: Verb) -> Refusal | None:
        """Return why the API server refused this verb in this pass, if it did."""
        return next((refusal for refusal in self.observed.refusals if refusal.verb is verb), None)

    def refused_before(self, kind: ConditionType) -> tuple[str, str] | None:
        """Return reason and sentence of a refusal that a condition still tells of.

        A step that tries again keeps telling it until the attempt succeeds, so that trying writes nothing.
        """
        told = condition_of(self.status, kind)
        return (told.reason, told.message) if told and told.reason in REFUSALS else None

    def wake(self, *, after: float) -> None:
        """Ask for another pass in so many seconds at the latest."""
        self.look_again = after if self.look_again is None else min(self.look_again, after)

    def remaining(self, since: datetime, seconds: float) -> float:
        """Return the seconds left of a span that began at `since`; not positive when it is over."""
        return (since + timedelta(seconds=seconds) - self.now).total_seconds()

    def condition(self, kind: ConditionType, status: ConditionStatus, reason: str, message: str) -> None:
        """Set a condition; its transition time moves only when its status does."""
        old = condition_of(self.status, kind)
        new = Condition(
            type=kind,
            status=status,
            reason=reason,
            message=message[:1024],
            last_transition_time=old.last_transition_time if old and old.status is status else self.now,
            observed_generation=self.resource.metadata.generation,
        )
        kept = [condition for condition in self.status.conditions if condition.type != kind]
        self.update(conditions=tuple(sorted([*kept, new], key=lambda item: _ORDER.get(item.type, len(_ORDER)))))

    def finish(self) -> Plan:
        """Return the plan."""
        return Plan(status=self.status, actions=tuple(self.actions), look_again=self.look_again)


def condition_of(status: ModelOptimizationStatus, kind: ConditionType) -> Condition | None:
    """Return a condition, or None while it was never set."""
    return next((condition for condition in status.conditions if condition.type == kind), None)
