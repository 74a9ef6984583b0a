"""The strategies of a rollout: steps in order. Reading one from top to bottom is reading what it does."""

from collections.abc import Mapping

from retune.api.execution import Rollout
from retune.api.status import ActiveRollout, RolloutStep
from retune.plan.rollout.approval import approval
from retune.plan.rollout.baking import bake
from retune.plan.rollout.looking import look
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

RETURN: Strategy = {
    RolloutStep.LOOK: look,
    RolloutStep.GIVE: give,
    RolloutStep.FIRST_GOLDEN: first_golden,
    RolloutStep.READY: ready,
    RolloutStep.GOLDEN: golden,
}
"""A version that a person wants back was baked when it was new, and is wanted at once."""

STRATEGIES: Mapping[str, Strategy] = {"RollingUpdate": ROLLING_UPDATE}
"""By spec.rollout.strategy."""


def strategy_of(spec: Rollout, rollout: ActiveRollout) -> Strategy:
    """Return the steps of a rollout."""
    return STRATEGIES[spec.strategy] if rollout.rollback_number is None else RETURN


def step_of(rollout: ActiveRollout) -> RolloutStep:
    """Return the step that a rollout is in; of one that an earlier or later release began, the one to go on with."""
    if rollout.step in set(RolloutStep):
        return RolloutStep(rollout.step)
    if not rollout.injected:
        return RolloutStep.GIVE
    if rollout.bake_start_time is not None:
        return RolloutStep.BAKE
    return RolloutStep.GOLDEN if rollout.verify_attempt else RolloutStep.FIRST_GOLDEN
