"""Resources that this release cannot read, as those that a newer one wrote: nothing is done for them, and they say so.

Acting on what was read before would ignore what their author wants now, such as `suspend: true`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import ValidationError

from retune.api.base import Json

_REASON = "Unreadable"
_CURE = "Use an operator of the release that wrote it, or take the field away; until then nothing is done for it."


@dataclass(frozen=True, slots=True)
class Unreadable:
    """What is known of such a resource."""

    version: int
    """Its resourceVersion."""
    generation: int
    sentence: str
    """Why it cannot be read, and what to do."""
    conditions: tuple[Json, ...] = field(default=(), compare=False)
    """Its conditions, as they are."""

    def told(self, now: datetime) -> list[Json] | None:
        """Return its conditions with what must be said of it, or None where they say it already."""
        moment = now.strftime("%Y-%m-%dT%H:%M:%SZ")
        wanted = [
            self._condition("Ready", "False", moment),
            self._condition("Stalled", "True", moment),
            self._condition("Reconciling", "False", moment),
        ]
        if all(any(_says_the_same(new, old) for old in self.conditions) for new in wanted):
            return None
        types = {condition["type"] for condition in wanted}
        return [*(old for old in self.conditions if old.get("type") not in types), *wanted]

    def _condition(self, kind: str, status: str, moment: str) -> Json:
        old = next((old for old in self.conditions if old.get("type") == kind and old.get("status") == status), None)
        return {
            "type": kind,
            "status": status,
            "reason": _REASON,
            "message": self.sentence,
            "lastTransitionTime": old["lastTransitionTime"] if old else moment,
            "observedGeneration": self.generation,
        }


def faults_of(error: Exception) -> list[str]:
    """Return what cannot be read, one sentence a field, without the values that are there."""
    if not isinstance(error, ValidationError):
        return [" ".join(str(error).split())[:200]]
    faults = error.errors(include_url=False, include_input=False, include_context=False)
    return [f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults[:5]]


def unreadable(raw: Json, faults: Iterable[str]) -> Unreadable:
    """Return what is known of a resource that cannot be read.

    Args:
        raw: The resource as the API server gave it.
        faults: What cannot be read of it.
    """
    metadata = raw["metadata"]
    conditions = (raw.get("status") or {}).get("conditions") or ()
    return Unreadable(
        version=int(metadata["resourceVersion"]),
        generation=int(metadata.get("generation") or 0),
        sentence=f"this operator cannot read the resource ({'; '.join(faults)}). {_CURE}"[:1024],
        conditions=tuple(condition for condition in conditions if isinstance(condition, dict)),
    )


def _says_the_same(new: Json, old: Json) -> bool:
    return all(old.get(name) == new[name] for name in ("type", "status", "reason", "message", "observedGeneration"))
