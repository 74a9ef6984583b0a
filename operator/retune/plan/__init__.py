"""Pure decisions: `plan(observed, now)` gives the status to write and the actions to take.

No I/O, no clock, no logging: the same facts at the same moment give the same plan, and a plan carried out gives an
empty one.

The folder of a decision is the act it belongs to. `guards` decides whether the loop may act at all; `watch`,
`baseline`, `run` and `rollout` are what it does; `closing` is how every pass ends. What several acts share stands
beside `loop`, which calls them in order.
"""

from retune.plan.actions import Plan
from retune.plan.loop import plan
from retune.plan.observed import Observed

__all__ = ["Observed", "Plan", "plan"]
