"""`status.worth`: what the same traffic needs with a version, as a proposal that only a person carries out."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from retune.api.base import ApiModel, one_of
from retune.api.bounds import Number, Word


class LimitOf(StrEnum):
    """Whose the limit is within which requests are counted."""

    OBJECTIVE = "Objective"
    """The owner's: the threshold of an objective on latency_p95_ms."""
    CHAMPION = "Champion"
    """The 95th percentile of the version compared with, while it is busy half of the time."""


class Worth(ApiModel):
    """What a version is worth beside the one before, by a replay of call times of the judge, and no load test."""

    version: int = Field(ge=1)
    """The version."""
    compared_with: int = Field(ge=1)
    """The version that was champion when it was judged."""
    limit_ms: Number
    """Milliseconds within which 95 % of the requests are answered, waiting included."""
    limit_of: Annotated[Word, Field(description=f"Whose limit that is: {one_of(LimitOf)}.")]
    requests_before: Number
    """Requests a second that one process answers so with the version before."""
    requests_after: Number
    """The same with this version."""
    ratio: Number
    """The one divided by the other."""
    ratio_low: Number
    """Lower end of the interval of the ratio, by which replicas are counted."""
    ratio_high: Number
    """Upper end of the interval of the ratio."""
    replicas: int | None = Field(default=None, ge=1)
    """Replicas that the target wanted when the version was accepted, and from then on when it became champion."""
    replicas_needed: int | None = Field(default=None, ge=1)
    """Replicas that the same traffic needs with this version; two at least where there were two."""
    live_requests: Number | None = None
    """Requests a second of all pods in the last window that a signal of kind Throughput has judged."""
    live_replicas: int | None = Field(default=None, ge=1)
    """Replicas that these requests alone need; where that is more, it is what replicasNeeded says."""
    cores: Number | None = None
    """Cores of a replica: the serving container's CPU limit or request, else serving.cores; absent where neither is."""
    cost_before: Number | None = None
    """Cost of the replicas for a month of 730 hours, by serving.pricePerCpuHour and in its unit."""
    cost_needed: Number | None = None
    """The same of the replicas that are needed."""
