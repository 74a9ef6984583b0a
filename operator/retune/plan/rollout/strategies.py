"""The strategies of a rollout: steps in order. Reading one from top to bottom is reading what it does."""

from collections.abc import Mapping

from retune.api.status import ActiveRollout, RolloutStep
from retune.plan.rollout.approval import approval
from retune.plan.rollout.baking import bake
from retune.plan.rollout.steps import Step, give, ready
from retune.plan.rollout.verification import first_golden, golden

Strategy = Mapping[RolloutStep, Step]

ROLLING_UPDATE: Strategy = {
    RolloutStep.APPROVAL: approval,
    RolloutStep.GIVE: give,
    RolloutStep.FIRST_GOLDEN: first_golden,
    RolloutStep.READY: ready,
    RolloutStep.GOLDEN: golden,
    RolloutStep.BAKE: bake,
}

STRATEGIES: Mapping[str, Strategy] = {"RollingUpdate": ROLLING_UPDATE}
"""By spec.rollout.strategy."""


def step_of(rollout: ActiveRollout) -> RolloutStep:
    """Return the step that a rollout is in; of one that an earlier or later release began, the one to go on with."""
    if rollout.step in set(RolloutStep):
        return RolloutStep(rollout.step)
    if not rollout.injected:
        return RolloutStep.GIVE
    if rollout.bake_start_time is not None:
        return RolloutStep.BAKE
    return RolloutStep.GOLDEN if rollout.verify_attempt else RolloutStep.FIRST_GOLDEN
