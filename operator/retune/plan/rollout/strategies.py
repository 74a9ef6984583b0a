"""The strategies of a rollout: steps in order. Reading one from top to bottom is reading what it does."""

from collections.abc import Mapping

from retune.api.rolling import ActiveRollout, RolloutStep
from retune.api.rollout import Rollout
from retune.plan.rollout.approval import approval
from retune.plan.rollout.baking import bake
from retune.plan.rollout.canary import canary_golden, canary_ready, end_canary, give_canary, on_trial
from retune.plan.rollout.looking import look
from retune.plan.rollout.shadowing import canary_shadow
from retune.plan.rollout.steps import Step, give, ready
from retune.plan.rollout.verification import first_golden, golden
from retune.plan.rollout.weighing import weigh

Strategy = Mapping[RolloutStep, Step]

ROLLING_UPDATE: Strategy = {
    RolloutStep.APPROVAL: approval,
    RolloutStep.GIVE: give,
    RolloutStep.FIRST_GOLDEN: first_golden,
    RolloutStep.READY: ready,
    RolloutStep.GOLDEN: golden,
    RolloutStep.BAKE: bake,
}

CANARY: Strategy = {
    RolloutStep.APPROVAL: approval,
    RolloutStep.CANARY_GIVE: on_trial(give_canary),
    RolloutStep.CANARY_READY: on_trial(canary_ready),
    RolloutStep.CANARY_GOLDEN: on_trial(canary_golden),
    RolloutStep.SHADOW: on_trial(canary_shadow),
    RolloutStep.WEIGHT: on_trial(weigh),
    RolloutStep.GIVE: give,
    RolloutStep.FIRST_GOLDEN: first_golden,
    RolloutStep.READY: ready,
    RolloutStep.GOLDEN: golden,
    RolloutStep.CANARY_END: end_canary,
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

STRATEGIES: Mapping[str, Strategy] = {"RollingUpdate": ROLLING_UPDATE, "Canary": CANARY, "BlueGreen": CANARY}
"""By spec.rollout.strategy. BlueGreen is a canary by a route whose last share is all of the requests."""


def strategy_of(spec: Rollout, rollout: ActiveRollout) -> Strategy:
    """Return the steps of a rollout."""
    return STRATEGIES[spec.strategy] if rollout.rollback_number is None else RETURN


def step_of(rollout: ActiveRollout, strategy: Strategy = ROLLING_UPDATE) -> RolloutStep:
    """Return the step that a rollout is in; of one that an earlier or later release began, the one to go on with.

    A version that the target has not been given yet is tried first where the strategy has a trial, also where the spec
    has changed to that strategy meanwhile.
    """
    if rollout.step is not None and rollout.step in strategy:
        step = RolloutStep(rollout.step)
        return RolloutStep.CANARY_GIVE if _skips_trial(rollout, step, list(strategy)) else step
    if not rollout.injected:
        return RolloutStep.CANARY_GIVE if RolloutStep.WEIGHT in strategy else RolloutStep.GIVE
    if rollout.bake_start_time is not None:
        return RolloutStep.BAKE
    return RolloutStep.GOLDEN if rollout.verify_attempt else RolloutStep.FIRST_GOLDEN


def is_before_target(rollout: ActiveRollout, strategy: Strategy) -> bool:
    """Whether a version has a trial to begin or to end before the target may be given it."""
    steps = list(strategy)
    return RolloutStep.WEIGHT in steps and steps.index(step_of(rollout, strategy)) <= steps.index(RolloutStep.WEIGHT)


def _skips_trial(rollout: ActiveRollout, step: RolloutStep, steps: list[RolloutStep]) -> bool:
    """Whether a version is past a trial that it has not begun, while the target could still be spared."""
    if rollout.injected or rollout.weight_index is not None or RolloutStep.WEIGHT not in steps:
        return False
    return steps.index(step) > steps.index(RolloutStep.WEIGHT)
