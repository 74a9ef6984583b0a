"""The strategies of a rollout: steps in order. Reading one from top to bottom is reading what it does."""

from collections.abc import Mapping

from retune.api.status import ActiveRollout, RolloutStep
from retune.plan.rollout.baking import bake
from retune.plan.rollout.canary import canary_golden, canary_ready, end_canary, give_canary, on_trial
from retune.plan.rollout.steps import Step, give, ready
from retune.plan.rollout.verification import first_golden, golden
from retune.plan.rollout.weighing import weigh

Strategy = Mapping[RolloutStep, Step]

ROLLING_UPDATE: Strategy = {
    RolloutStep.GIVE: give,
    RolloutStep.FIRST_GOLDEN: first_golden,
    RolloutStep.READY: ready,
    RolloutStep.GOLDEN: golden,
    RolloutStep.BAKE: bake,
}

CANARY: Strategy = {
    RolloutStep.CANARY_GIVE: on_trial(give_canary),
    RolloutStep.CANARY_READY: on_trial(canary_ready),
    RolloutStep.CANARY_GOLDEN: on_trial(canary_golden),
    RolloutStep.WEIGHT: on_trial(weigh),
    RolloutStep.GIVE: give,
    RolloutStep.FIRST_GOLDEN: first_golden,
    RolloutStep.READY: ready,
    RolloutStep.GOLDEN: golden,
    RolloutStep.CANARY_END: end_canary,
    RolloutStep.BAKE: bake,
}

STRATEGIES: Mapping[str, Strategy] = {"RollingUpdate": ROLLING_UPDATE, "Canary": CANARY}
"""By spec.rollout.strategy."""


def step_of(rollout: ActiveRollout, strategy: Strategy = ROLLING_UPDATE) -> RolloutStep:
    """Return the step that a rollout is in; of one that an earlier or later release began, the one to go on with.

    A version that the target has not been given yet takes the strategy's steps from the first one, also where the spec
    has changed to a strategy with a trial that it has not begun.
    """
    if not rollout.injected and (rollout.step not in strategy or rollout.weight_index is None):
        return next(iter(strategy))
    if rollout.step is not None and rollout.step in strategy:
        return RolloutStep(rollout.step)
    if rollout.bake_start_time is not None:
        return RolloutStep.BAKE
    return RolloutStep.GOLDEN if rollout.verify_attempt else RolloutStep.FIRST_GOLDEN
