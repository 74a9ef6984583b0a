"""Pure decisions: `plan(observed, now)` gives the status to write and the actions to take.

No I/O, no clock, no logging: the same facts at the same moment give the same plan, and a plan carried out gives an
empty one.
"""

from retune.plan.actions import Plan
from retune.plan.loop import plan
from retune.plan.observed import Observed

__all__ = ["Observed", "Plan", "plan"]
