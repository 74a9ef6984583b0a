"""What a container may use, and how long its command may be: the same for a Job's own and for those of the owner."""

from typing import Annotated

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, Cpu, Memory, Rule, rules

_COMMAND_LIMIT = 64 << 10
Command = Annotated[
    tuple[Annotated[str, Field(max_length=4096)], ...],
    Rule(
        f"self.map(part, size(part)).sum() <= {_COMMAND_LIMIT}",
        f"container.command has at most {_COMMAND_LIMIT} characters altogether: put programs into the image",
    ),
]
"""Words of a command, which leave room in the request that carries them."""


class ResourceList(ApiModel):
    """Amounts of CPU and memory."""

    cpu: Cpu | None = None
    """CPU, such as "1" or "500m"."""
    memory: Memory | None = None
    """Memory, such as "2Gi"."""


def _within(amount: str) -> str:
    """Return the CEL rule that the request does not exceed the limit; the fields' own rules refuse malformed ones."""
    request, limit = f"self.requests.{amount}", f"self.limits.{amount}"
    return (
        f"!has({request}) || !has({limit}) || !isQuantity({request}) || !isQuantity({limit})"
        f" || quantity({request}).compareTo(quantity({limit})) <= 0"
    )


def _positive(amount: str) -> Rule:
    """Return the rule on a limit that it is above zero."""
    return Rule(
        "!isQuantity(self) || quantity(self).isGreaterThan(quantity('0'))", f"limits.{amount} must be above zero"
    )


class Limits(ResourceList):
    """Most CPU and memory."""

    cpu: Annotated[Cpu, _positive("cpu")] | None = None
    """CPU, such as "1" or "500m"."""
    memory: Annotated[Memory, _positive("memory")] | None = None
    """Memory, such as "2Gi"."""


class Resources(ApiModel):
    """CPU and memory of a container: what is reserved for it, and the most it may use."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_within("cpu"), "requests.cpu must not exceed limits.cpu"),
            (_within("memory"), "requests.memory must not exceed limits.memory"),
        )
    )

    requests: ResourceList = ResourceList()
    """Amounts reserved."""
    limits: Limits = Limits()
    """Amounts allowed."""
