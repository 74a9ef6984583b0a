"""What a container may use, and how long its command may be: the same for a Job's own and for those of the owner."""

from typing import Annotated

from pydantic import ConfigDict, Field

from retune.api.base import ApiModel, Cpu, Memory, rules

_COMMAND_LIMIT = 64 << 10
BOUNDED_COMMAND = (
    f"self.command.map(part, size(part)).sum() <= {_COMMAND_LIMIT}",
    f"container.command has at most {_COMMAND_LIMIT} characters altogether: put programs into the image",
)
"""The rule, with its sentence, that a command leaves room in the request that carries it."""
Command = tuple[Annotated[str, Field(max_length=4096)], ...]
"""Words of a command."""


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


def _positive(amount: str) -> str:
    """Return the CEL rule that the limit, if there is one, is above zero."""
    limit = f"self.limits.{amount}"
    return f"!has({limit}) || !isQuantity({limit}) || quantity({limit}).isGreaterThan(quantity('0'))"


class Resources(ApiModel):
    """CPU and memory of a container: what is reserved for it, and the most it may use."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (_within("cpu"), "requests.cpu must not exceed limits.cpu"),
            (_within("memory"), "requests.memory must not exceed limits.memory"),
            (_positive("cpu"), "limits.cpu must be above zero"),
            (_positive("memory"), "limits.memory must be above zero"),
        )
    )

    requests: ResourceList = ResourceList()
    """Amounts reserved."""
    limits: ResourceList = ResourceList()
    """Amounts allowed."""
