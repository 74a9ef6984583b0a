"""`ModelOptimization.status`: what the operator has observed and decided.

Everything needed to decide after a restart is here. `stage` and `message` are words for people; nothing branches on them.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from retune.api.base import ATOMIC, ApiModel, Time, map_list
from retune.api.bounds import Address, Hash, Name, Number, Sentence, Word
from retune.api.watched import FreshData, MonitoringStatus, TriggersStatus


class Stage(StrEnum):
    """Where the loop stands, for `kubectl get`."""

    PENDING = "Pending"
    BLOCKED = "Blocked"
    BASELINING = "Baselining"
    OPTIMIZING = "Optimizing"
    GATING = "Gating"
    ROLLING_OUT = "RollingOut"
    BAKING = "Baking"
    ROLLING_BACK = "RollingBack"
    MONITORING = "Monitoring"
    SUSPENDED = "Suspended"
    TERMINATING = "Terminating"


def _known_stage(value: object) -> object:
    """Return a stage, or None for a word that a newer operator wrote: nothing branches on it."""
    return value if value in set(Stage) else None


class Outcome(StrEnum):
    """How a run ended."""

    PROMOTED = "Promoted"
    RECOMMENDED = "Recommended"
    NO_GAIN = "NoGain"
    GATE_FAILED = "GateFailed"
    ROLLED_BACK = "RolledBack"
    FAILED = "Failed"
    CANCELLED = "Cancelled"

    @property
    def successful(self) -> bool:
        """Whether the run reached an honest verdict without harm."""
        return self in {Outcome.PROMOTED, Outcome.RECOMMENDED, Outcome.NO_GAIN}


class ConditionStatus(StrEnum):
    """The three values of a condition."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class ConditionType(StrEnum):
    """The condition types of both kinds. Ready, Reconciling and Stalled follow kstatus."""

    READY = "Ready"
    RECONCILING = "Reconciling"
    STALLED = "Stalled"
    TARGET_RESOLVED = "TargetResolved"
    TARGET_OWNED = "TargetOwned"
    BASELINED = "Baselined"
    OPTIMIZING = "Optimizing"
    CANDIDATE_ACCEPTED = "CandidateAccepted"
    ROLLED_OUT = "RolledOut"
    DRIFT_DETECTED = "DriftDetected"
    QUALITY_DEGRADED = "QualityDegraded"
    PERFORMANCE_DEGRADED = "PerformanceDegraded"
    MONITORING_RELIABLE = "MonitoringReliable"
    CIRCUIT_OPEN = "CircuitOpen"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"


class Condition(ApiModel):
    """One observation, in the form of metav1.Condition."""

    type: Word
    """What is observed."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Word
    """Why, as one CamelCase word."""
    message: Sentence
    """Why, as a sentence that names the object and the next step."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: int = Field(ge=0)
    """Generation of the resource this was observed for."""


class Measurement(ApiModel):
    """One measured number with its interval."""

    name: Word
    """Metric name."""
    value: Number
    """Point estimate."""
    low: Number | None = None
    """Lower end of the interval."""
    high: Number | None = None
    """Upper end of the interval."""
    samples: int | None = Field(default=None, ge=0)
    """Rows or timed calls behind it."""


class Version(ApiModel):
    """One version of the model: a bundle in the store under its digest."""

    version: int = Field(ge=1)
    """Number of the version; 1 is the model as delivered."""
    uri: Address
    """Where the bundle lies."""
    digest: Hash
    """Digest of the bundle."""
    model_digest: Hash | None = None
    """Digest of the delivered file; version 1 only."""
    run_name: Name | None = None
    """The run that made it; absent for version 1."""
    spec_hash: Hash | None = None
    """Hash of the spec it was proven under."""
    techniques: tuple[Word, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """What was done to make it."""
    size_bytes: int | None = Field(default=None, ge=0)
    """Size of the model file."""
    metrics: tuple[Measurement, ...] = Field(default=(), max_length=16, json_schema_extra=map_list("name"))
    """Measurements on the test split and the serving hardware."""
    injected_value: str | None = Field(default=None, max_length=1024)
    """Value of the owned field while this version serves; absent where the manifest left the field out."""
    promoted_at: Time | None = None
    """When it became champion."""


class JobAttempt(ApiModel):
    """A Job written ahead: named here before it is created."""

    name: Name
    """Name of the Job."""
    attempt: int = Field(ge=1)
    """Counts from 1."""
    spec_hash: Hash
    """Hash of the spec it was created for."""
    retry_after: Time | None = None
    """After a failure: when the next attempt may start."""


class Trials(ApiModel):
    """Progress of the search."""

    total: int = Field(default=0, ge=0)
    """Trials the run may spend."""
    done: int = Field(default=0, ge=0)
    """Trials finished."""
    failed: int = Field(default=0, ge=0)
    """Trials that failed."""
    best: Sentence | None = None
    """The best candidate so far, in words."""
    ended: Sentence | None = None
    """Which budget ended the search before all trials were run."""


class ActiveRun(ApiModel):
    """The one run that is under way."""

    name: Name
    """Name of the OptimizationRun."""
    number: int = Field(ge=1)
    """Number of the run."""
    trigger: Word
    """What started it."""
    why: Sentence | None = None
    """The same as a sentence."""
    data: Sentence | None = None
    """Which data it learns from and is judged by, where that is not spec.data as it is."""
    spec_hash: Hash
    """Hash of the spec it runs under."""
    start_time: Time
    """When it started."""
    stage: Word = "Search"
    """Gather, Search or Judge."""
    fresh: FreshData | None = None
    """Data built for this run; absent where it uses spec.data."""
    trials: Trials = Trials()
    """Progress."""


class ActiveRollout(ApiModel):
    """The rollout that is under way, or being undone."""

    version: int = Field(ge=1)
    """Version going live."""
    start_time: Time
    """When it started."""
    injected: bool = False
    """Whether the target was seen with the new version's value."""
    verify_attempt: int = Field(default=0, ge=0)
    """Golden-request Jobs started; 0 before the pods are ready."""
    bake_start_time: Time | None = None
    """When the new version was proven live and the bake began."""
    rollback_reason: Word | None = None
    """Set when the rollout is being undone."""
    rollback_message: Sentence | None = None
    """Why it is being undone."""


class LastRun(ApiModel):
    """How the most recent run ended."""

    name: Name
    """Name of the OptimizationRun."""
    outcome: Outcome
    """How it ended."""
    reason: Word
    """Why, as one word."""
    message: Sentence
    """Why, as a sentence."""
    spec_hash: Hash
    """Hash of the spec it ran under."""
    original_version: int | None = Field(default=None, ge=1)
    """Version of the delivered model that it started from."""
    completion_time: Time
    """When it ended."""
    report_uri: Address | None = Field(default=None, alias="reportURI")
    """Where the report lies."""


class Rejected(ApiModel):
    """A bundle that must not be rolled out again."""

    digest: Hash
    """Digest of the bundle."""
    reason: Word
    """Why it was rejected."""


class ModelOptimizationStatus(ApiModel):
    """What the operator has observed and decided."""

    observed_generation: int | None = Field(default=None, ge=0)
    """Generation of the spec this status speaks of."""
    stage: Annotated[Stage | None, BeforeValidator(_known_stage)] = None
    """Where the loop stands, for people."""
    message: Sentence | None = None
    """What is happening, for people."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=16, json_schema_extra=map_list("type"))
    """The truth, in the form of metav1.Condition."""
    target_uid: Word | None = Field(default=None, alias="targetUID")
    """UID of the target this status speaks of."""
    baseline: JobAttempt | None = None
    """The Job that measures the delivered model."""
    original: Version | None = None
    """The model as delivered."""
    champion: Version | None = None
    """The version that serves."""
    candidate: Version | None = None
    """A version that passed the gate and is not champion yet."""
    next_version: int = Field(default=2, ge=2)
    """Number of the next version."""
    next_run: int = Field(default=1, ge=1)
    """Number of the next run."""
    run: ActiveRun | None = None
    """The run under way."""
    rollout: ActiveRollout | None = None
    """The rollout under way."""
    last_run: LastRun | None = None
    """How the last run ended."""
    monitoring: MonitoringStatus | None = None
    """How the live model looks; absent where it is not watched."""
    triggers: TriggersStatus = TriggersStatus()
    """What decides whether a signal may start a run now."""
    observed_nonce: Word | None = None
    """The manualNonce acted on last."""
    rejected: tuple[Rejected, ...] = Field(default=(), max_length=20, json_schema_extra=map_list("digest"))
    """Bundles that are not rolled out again."""
