"""What the owner of a model says of its quality, beyond the metrics by their names."""

from dataclasses import dataclass
from typing import Any

from retune.api.model import Cost, Model
from retune.contract.requests import Measured


@dataclass(frozen=True)
class Yardstick:
    """What the owner measures by."""

    costs: tuple[Cost, ...] = ()
    """What answers of a classifier cost."""

    @classmethod
    def of(cls, request: Measured) -> "Yardstick":
        """Return what a request says."""
        return cls(costs=request.costs)

    @classmethod
    def of_model(cls, model: Model) -> "Yardstick":
        """Return what `spec.model` says."""
        return cls(costs=model.costs or ())

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON; empty where the owner says nothing."""
        return {"costs": [cost.to_dict() for cost in self.costs]} if self.costs else {}


PLAIN = Yardstick()
"""What is measured where the owner says nothing."""
