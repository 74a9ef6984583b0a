"""One attempt to find a better model: why it starts, the data it is judged by, its Jobs, and the gate at its end."""

from retune.plan.run.pending import note_pending
from retune.plan.run.stages import cancel, carry_on

__all__ = ["cancel", "carry_on", "note_pending"]
