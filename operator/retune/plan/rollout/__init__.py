"""Bringing a candidate that passed the gate to the target, and taking it back when it does not hold up."""

from retune.plan.rollout.by_hand import follow_hand
from retune.plan.rollout.carrying import begin, carry_on
from retune.plan.rollout.fallback import fall_back, wait_for_person
from retune.plan.rollout.removal import remove_unwanted
from retune.plan.rollout.returning import roll_back, stay_pinned

__all__ = [
    "begin",
    "carry_on",
    "fall_back",
    "follow_hand",
    "remove_unwanted",
    "roll_back",
    "stay_pinned",
    "wait_for_person",
]
