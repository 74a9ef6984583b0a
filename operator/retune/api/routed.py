"""What is written down of an HTTPRoute before a canary gets a share by it, so that its rules can be put back exactly.

The limits of lists and weights are those of the Gateway API.
"""

from pydantic import Field

from retune.api.base import ATOMIC, ApiModel, Time
from retune.api.bounds import Address, Name


class RouteBackend(ApiModel):
    """A backend of a rule, as it was before the canary."""

    name: Address
    """Name of the Service; of another object group, kind, namespace and name."""
    weight: int | None = Field(default=None, ge=0, le=1000000)
    """Its weight; absent where the rule had none, which counts as 1."""


class RouteRule(ApiModel):
    """A rule that gives the canary a share, as it was before."""

    backends: tuple[RouteBackend, ...] = Field(max_length=16, json_schema_extra=ATOMIC)
    """Its backends in order."""


class CanaryRoute(ApiModel):
    """What a canary takes of an HTTPRoute, and what is put back: written down before anything is made or changed."""

    name: Name
    """Name of the HTTPRoute."""
    service: Name
    """Service that stands for the target in its rules."""
    rules: tuple[RouteRule, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """The rules that name this Service and give it requests, in order; empty before the first share."""
    given: bool = False
    """Whether the canary was seen in them."""
    withdrawing: bool = False
    """Whether the rules are put back."""
    released_time: Time | None = None
    """When they were seen without the canary again; its pods go a little later."""
