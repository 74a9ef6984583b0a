"""What pods that run on have counted from some moment on: their counters go back further than what is judged.

Pods that go, or are not read at once, keep what they had counted, so that no count ever falls. Nothing is stored: after
a restart all is counted from then on, which is shorter and as true.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from retune.plan.observed import Heard, ServingPod
from retune.signals.bounded import UnreadableError
from retune.signals.exposition import Totals, added, increase
from retune.signals.pods import Answer


@dataclass
class Grown:
    """By how much the counters of some pods have grown since each was read first."""

    last: dict[str, Totals] = field(default_factory=dict)
    """What each had counted when it was last read, by UID."""
    grown: Totals = field(default_factory=Totals)
    """What all of them have counted since each was read first."""

    def note(self, pods: Sequence[ServingPod], answers: Sequence[Answer]) -> None:
        """Add what the pods have counted since they were last read."""
        for pod, answer in zip(pods, answers, strict=True):
            if isinstance(answer.totals, UnreadableError):
                continue
            self.grown = added(self.grown, increase(self.last.get(pod.uid, answer.totals), answer.totals))
            self.last[pod.uid] = answer.totals

    def since(self, now: Heard) -> Heard:
        """Return what was counted since then; `now` says how the pods are."""
        grown = self.grown
        return replace(now, requests=grown.requests, errors=grown.errors, refused=grown.refused, buckets=grown.buckets)
