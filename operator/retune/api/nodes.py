"""Which nodes a pod may run on though they are kept free for others."""

from typing import Literal

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, rules


class Toleration(ApiModel):
    """A taint that a Job's pod tolerates."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "self.operator != 'Exists' || !has(self.value) || self.value == ''",
                "a toleration with operator Exists has no value: remove value or take operator Equal",
            ),
            (
                "self.operator == 'Exists' || (has(self.key) && self.key != '')",
                "a toleration without key needs operator Exists",
            ),
        )
    )

    key: str | None = Field(default=None, max_length=317)
    """Key of the taint; left out, with operator Exists, all taints are tolerated."""
    operator: Literal["Exists", "Equal"] = "Equal"
    """Equal tolerates a taint with this value; Exists tolerates any value."""
    value: str | None = Field(default=None, max_length=63)
    """Value of the taint."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """Effect of the taint; left out, all effects are tolerated."""
