"""`status.rollout` and `status.lastRollback`: where a rollout stands, and how the last one a person asked for ended."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from retune.api.base import StatusPart, Time, one_of
from retune.api.bounds import Hash, Number, Sentence, Word
from retune.api.shown import Shown


class RolloutStep(StrEnum):
    """The steps of a rollout; which of them there are, and in what order, is the strategy's."""

    APPROVAL = "Approval"
    LOOK = "Look"
    CANARY_GIVE = "CanaryGive"
    CANARY_READY = "CanaryReady"
    CANARY_GOLDEN = "CanaryGolden"
    SHADOW = "Shadow"
    WEIGHT = "Weight"
    GIVE = "Give"
    FIRST_GOLDEN = "FirstGolden"
    READY = "Ready"
    GOLDEN = "Golden"
    CANARY_END = "CanaryEnd"
    BAKE = "Bake"


class ActiveRollout(StatusPart):
    """The rollout that is under way, or is being undone."""

    version: int = Field(ge=1)
    """Version that is going live."""
    rollback_number: int | None = Field(default=None, ge=1)
    """Number of the rollback that puts back a version which a person has named; absent for a new version."""
    start_time: Time
    """When it started, or when the time for its pods began anew."""
    step: Annotated[Word | None, Field(description=f"What it waits for now: {one_of(RolloutStep)}.")] = None
    step_start_time: Time | None = None
    """When that step began; absent while the target is scaled to zero, so that its time stands still."""
    weight_index: int | None = Field(default=None, ge=0)
    """Number of the canary's step that is tried, from 0; how many there are, once all have passed; absent before there
    is a canary."""
    weight: int | None = Field(default=None, ge=0, le=100)
    """Share of the requests that the step wants for the canary, in percent; absent while there is none."""
    effective_weight: int | None = Field(default=None, ge=0, le=100)
    """Share that the canary gets, in percent: by the number of its ready pods, with few of which it is not what was
    wanted, or by the weights that are in the route."""
    weight_start_time: Time | None = None
    """When all of the canary's pods were ready at this weight and its hold began."""
    requests_before: Number | None = None
    """Requests that the canary's pods had answered then; absent where they were not heard to count any."""
    analysis: Sentence | None = None
    """What the share that was left last has shown of the version, beside the champion in the same time."""
    injected: bool = False
    """Whether the target was seen with the new version's value in the owned field."""
    template: Hash | None = None
    """Hash of the target's pod template without the owned field, by which a change of others is seen."""
    edited: bool = False
    """Whether others changed the pod template meanwhile: what fails then is not held against the version."""
    verify_attempt: int = Field(default=0, ge=0)
    """Number of the Job that asks golden requests; 0 before the first one."""
    step_jobs: int = Field(default=0, ge=0)
    """Jobs that were asked in this step."""
    asked: Hash | None = None
    """Which pods the last of these Jobs asks: a hash of their addresses."""
    shown_by: Annotated[
        Word | None, Field(description=f"What has shown that the new version serves: {one_of(Shown)}.")
    ] = None
    errors_before: Number | None = None
    """Share of requests that the pods of the version before had failed; absent where they count none."""
    refused_before: Number | None = None
    """Share of requests that the pods of the version before had refused, with a status of 400 to 499; absent where they
    count none."""
    bake_start_time: Time | None = None
    """When the new version had answered right and the bake time began."""
    unwell_since: Time | None = None
    """Since when not all its pods are ready in the bake; absent while they are."""
    rollback_reason: Word | None = None
    """Why the rollout is being undone, as one word; absent while it goes forward."""
    rollback_message: Sentence | None = None
    """Why it is being undone, as a sentence."""


class LastRollback(StatusPart):
    """How the last rollback ended that a person has asked for."""

    version: int = Field(ge=1)
    """Version that was to serve again."""
    digest: Hash
    """Digest of its bundle."""
    replaced_version: int = Field(ge=1)
    """Version that was champion before."""
    spec_generation: int = Field(ge=0)
    """Generation of the spec when it ended: one that has failed is tried again after an edit."""
    failed: Word | None = None
    """Why the version does not serve, as one word; absent where it does."""
    message: Sentence
    """How it ended, as a sentence."""
    completion_time: Time
    """When it ended."""
