"""What the owner of a model says of its quality, beyond the metrics by their names."""

from dataclasses import dataclass
from typing import Any

from retune.api.model import Cost, Model
from retune.api.own_code import CustomMetric
from retune.contract.requests import Measured


@dataclass(frozen=True)
class Yardstick:
    """What the owner measures by."""

    costs: tuple[Cost, ...] = ()
    """What answers of a classifier cost."""
    custom: CustomMetric | None = None
    """Code of the owner's own that measures quality."""

    @classmethod
    def of(cls, request: Measured) -> "Yardstick":
        """Return what a request says."""
        return cls(costs=request.costs, custom=request.custom_metric)

    @classmethod
    def of_model(cls, model: Model) -> "Yardstick":
        """Return what `spec.model` says."""
        return cls(costs=model.costs or (), custom=model.custom_metric)

    @property
    def reads_outputs(self) -> bool:
        """Whether quality is measured by every output of a model, and not by its answers alone."""
        return self.custom is not None

    def to_dict(self) -> dict[str, Any]:
        """Return it as plain JSON; empty where the owner says nothing."""
        costs = {"costs": [cost.to_dict() for cost in self.costs]} if self.costs else {}
        return costs | ({"custom": self.custom.to_dict()} if self.custom else {})


PLAIN = Yardstick()
"""What is measured where the owner says nothing."""
