"""What is written down of an HTTPRoute before a canary gets a share by it, so that its rules can be put back exactly.

The limits of lists and weights are those of the Gateway API.
"""

from typing import Annotated

from pydantic import Field

from retune.api.base import ATOMIC, ApiModel, Text, Time
from retune.api.bounds import Address, Name


class RouteHeader(ApiModel):
    """A header by which a rule tells requests from others."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    """Its name, in upper or lower case."""
    value: Annotated[str, Field(min_length=1, max_length=256)]
    """Its whole value."""

    def is_named(self, name: str) -> bool:
        """Whether this is the header of that name, whose case does not matter."""
        return self.name.lower() == name.lower()


class HeaderMatch(RouteHeader):
    """The same as a spec may ask for it: what the Gateway API, and every server behind it, takes."""

    name: Annotated[
        str,
        Text(
            pattern=r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+",
            max_length=256,
            message="a header's name has letters, digits and ! # $ % & ' * + - . ^ _ ` | ~",
        ),
    ]
    """Name of the header, in upper or lower case."""
    value: Annotated[
        str,
        Text(
            pattern=r"[!-~]([ -~]*[!-~])?",
            max_length=256,
            message="a header's value has printable ASCII characters, and no blank at its start or end",
        ),
    ]
    """Its whole value."""


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
    testers: RouteHeader | None = None
    """Header whose requests go to the canary whatever its share is, by copies of these rules."""
    switched: bool = False
    """Whether the canary gets all requests at once, as with strategy BlueGreen."""
    opened: int = Field(default=0, ge=0, le=16)
    """How many such copies were seen."""
    withdrawing: bool = False
    """Whether the rules are put back."""
    released_time: Time | None = None
    """When they were seen without the canary again; its pods go a little later."""
