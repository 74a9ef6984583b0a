"""What the judge says that a winner is worth: few numbers, each with bounds, so that none harms who reckons with it."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from retune.api.worth import LimitOf
from retune.contract.requests import Document

Positive = Annotated[float, Field(ge=1e-9, le=1e9, allow_inf_nan=False)]


class Span(Document):
    """A number above 0 with the ends of its interval."""

    value: Positive
    low: Positive
    high: Positive

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.low <= self.value <= self.high:
            raise ValueError("a number lies between the ends of its interval")
        return self


class JudgedWorth(Document):
    """Requests a second that one serving process answers in time with the champion and with the winner."""

    limit_ms: Positive
    """Milliseconds within which 95 % of the requests are answered, waiting included."""
    limit_of: LimitOf
    threads: int = Field(ge=1, le=4096)
    """Cores that the process could use."""
    before: Span
    """Requests a second with the champion."""
    after: Span
    """Requests a second with the winner."""
    ratio: Span
    """The one divided by the other, from the same resamples."""
