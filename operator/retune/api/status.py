"""`ModelOptimization.status`: what the operator has observed and decided.

Everything that is needed to decide after a restart is here. `stage` and `message` of the status are words for people;
no decision reads them.
"""

from enum import StrEnum
from typing import Annotated

from pydantic import BeforeValidator, Field

from retune.api.base import ATOMIC, ApiModel, StatusPart, Time, map_list, one_of
from retune.api.bounds import LEFTOVERS_LIMIT, Address, Hash, Name, Number, Sentence, Word
from retune.api.registered import RegistryStatus
from retune.api.rolling import ActiveRollout, LastRollback
from retune.api.routed import CanaryRoute
from retune.api.shown import Shown
from retune.api.triggers import TriggerReason
from retune.api.watched import FreshData, MonitoringStatus, TriggersStatus
from retune.api.worth import Worth


class Stage(StrEnum):
    """Where the loop stands, for `kubectl get`."""

    PENDING = "Pending"
    BLOCKED = "Blocked"
    BASELINING = "Baselining"
    OPTIMIZING = "Optimizing"
    GATING = "Gating"
    AWAITING_APPROVAL = "AwaitingApproval"
    ROLLING_OUT = "RollingOut"
    BAKING = "Baking"
    ROLLING_BACK = "RollingBack"
    MONITORING = "Monitoring"
    SUSPENDED = "Suspended"
    TERMINATING = "Terminating"


def _known_stage(value: object) -> object:
    """Return a stage, or None for a word that a newer operator wrote: no decision reads it."""
    return value if value in set(Stage) else None


class RunStage(StrEnum):
    """The stages of a run, in this order; Gather only where it gets fresh data."""

    GATHER = "Gather"
    SEARCH = "Search"
    JUDGE = "Judge"
    ROLLOUT = "Rollout"


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
        """Whether the run came to a verdict and nothing had to be taken back."""
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
    DELIVERED_LIVE = "DeliveredLive"
    ROLLED_OUT = "RolledOut"
    CANARY_POSSIBLE = "CanaryPossible"
    REGISTERED = "Registered"
    BUNDLE_AVAILABLE = "BundleAvailable"
    DRIFT_DETECTED = "DriftDetected"
    QUALITY_DEGRADED = "QualityDegraded"
    PERFORMANCE_DEGRADED = "PerformanceDegraded"
    MONITORING_RELIABLE = "MonitoringReliable"
    CURABLE = "Curable"
    CIRCUIT_OPEN = "CircuitOpen"
    COMMANDS_FOLLOWED = "CommandsFollowed"
    SUSPENDED = "Suspended"
    SUCCEEDED = "Succeeded"


class Condition(ApiModel):
    """One observation, in the form of metav1.Condition."""

    type: Annotated[Word, Field(description=f"What is observed: {one_of(ConditionType)}.")]
    status: ConditionStatus
    """Whether it is so."""
    reason: Word
    """Why, as one CamelCase word."""
    message: Sentence
    """Why, as a sentence that names the object and, where a person is needed, the next step."""
    last_transition_time: Time
    """When the status last changed."""
    observed_generation: int = Field(ge=0)
    """Generation of the resource that this was observed for."""


class Measurement(ApiModel):
    """One measured number with its interval."""

    name: Word
    """Name of the metric."""
    value: Number
    """The measured value."""
    low: Number | None = None
    """Lower end of the interval."""
    high: Number | None = None
    """Upper end of the interval."""
    samples: int | None = Field(default=None, ge=0)
    """Rows or timed calls that it was measured on."""


class Version(StatusPart):
    """One version of the model: a bundle in the store under its digest."""

    version: int = Field(ge=1)
    """Number of the version; 1 is the model as it was first delivered."""
    uri: Address
    """Where the bundle lies."""
    digest: Hash
    """Digest of the bundle."""
    model_digest: Hash | None = None
    """Digest of the delivered file; absent for a version that a run made."""
    run_name: Name | None = None
    """The run that made it, or judged it as a newly delivered model; absent for a model that serves as delivered."""
    made_from: Hash | None = None
    """Digest of the delivered file that a run made it from; absent for a delivered model."""
    spec_hash: Hash | None = None
    """Hash of the parts of the spec that it was measured under."""
    techniques: tuple[Word, ...] = Field(default=(), max_length=16, json_schema_extra=ATOMIC)
    """Techniques that made it, in the order in which they were applied."""
    size_bytes: int | None = Field(default=None, ge=0)
    """Size of the model file."""
    metrics: tuple[Measurement, ...] = Field(default=(), max_length=16, json_schema_extra=map_list("name"))
    """Measurements on the test data, or on validation where there is none, under the serving container's CPU limit."""
    reference_digest: Hash | None = None
    """Digest of the file with the rows that it was proven on, which its windows are compared with."""
    injected_value: str | None = Field(default=None, max_length=1024)
    """Value of the owned field while this version serves; absent where the manifest does not set the field."""
    accepted_at: Time | None = None
    """When the gate accepted it; absent for a delivered model."""
    promoted_at: Time | None = None
    """When it became champion by a rollout."""
    shown_by: Annotated[Word | None, Field(description=f"What has shown that it serves: {one_of(Shown)}.")] = None


class JobAttempt(StatusPart):
    """An attempt whose Job is named here before it is created, so that a restart finds it."""

    name: Name
    """Name of the Job."""
    attempt: int = Field(ge=1)
    """Number of the attempt, from 1."""
    spec_hash: Hash
    """Hash of the parts of the spec that the attempt depends on."""
    retry_after: Time | None = None
    """After a failure: when the next attempt may start."""


class Trials(ApiModel):
    """Progress of the search."""

    total: int = Field(default=0, ge=0)
    """Most trials of the run."""
    done: int = Field(default=0, ge=0)
    """Trials finished."""
    failed: int = Field(default=0, ge=0)
    """Trials that failed."""
    best: Sentence | None = None
    """The best candidate so far, in words."""
    ended: Sentence | None = None
    """Which budget, or what else, ended the search before all trials were done, in words; absent where nothing did."""


class ActiveRun(StatusPart):
    """The one run that is under way."""

    name: Name
    """Name of the OptimizationRun."""
    number: int = Field(ge=1)
    """Number of the run."""
    trigger: Annotated[Word, Field(description=f"What started it: {one_of(TriggerReason)}.")]
    why: Sentence | None = None
    """Why it was started, as a sentence."""
    data: Sentence | None = None
    """Which data it learns from and is judged by, where production rows were gathered, or why they were not used."""
    spec_hash: Hash
    """Hash of the parts of the spec that the run depends on."""
    start_time: Time
    """When it started."""
    stage: Annotated[Word, Field(description=f"What is being done: {one_of(RunStage)}.")] = RunStage.SEARCH.value
    delivered: bool = False
    """Whether it judges a newly delivered model itself, without a search."""
    fresh: FreshData | None = None
    """Data gathered for this run; absent where it uses spec.data."""
    retry_after: Time | None = None
    """Not before this moment its Job is started again that found the store full; absent while none has."""
    trials: Trials = Trials()
    """Progress of its search."""


class LastDelivery(StatusPart):
    """What has become of the newest delivered model that was judged itself."""

    version: int = Field(ge=1)
    """Number of its version."""
    digest: Hash
    """Digest of its bundle."""
    run_name: Name
    """The run that judged it."""
    trigger: Annotated[Word, Field(description=f"What started that run: {one_of(TriggerReason)}.")]
    spec_hash: Hash
    """Hash of the parts of the spec that it was judged under."""
    outcome: Outcome
    """How the run ended."""
    reason: Word
    """Why it ended so, as one word."""
    message: Sentence
    """Why it ended so, as a sentence."""


class LastRun(StatusPart):
    """How the most recent run ended."""

    name: Name
    """Name of the OptimizationRun."""
    outcome: Outcome
    """How it ended."""
    reason: Word
    """Why it ended so, as one word."""
    message: Sentence
    """Why it ended so, as a sentence."""
    spec_hash: Hash
    """Hash of the parts of the spec that the run depended on."""
    original_version: int | None = Field(default=None, ge=1)
    """Version of the delivered model that its candidates were made from."""
    completion_time: Time
    """When it ended."""
    report_uri: Address | None = Field(default=None, alias="reportURI")
    """Where the report lies."""


class Rejected(StatusPart):
    """A bundle that must not be rolled out again."""

    digest: Hash
    """Digest of the bundle."""
    reason: Word
    """Why it was rejected, as one word."""
    version: int | None = Field(default=None, ge=1)
    """Number of the version."""
    message: Sentence | None = None
    """Why it was rejected, as a sentence."""
    time: Time | None = None
    """When it was rejected."""


class ModelOptimizationStatus(ApiModel):
    """What the operator has observed and decided."""

    observed_generation: int | None = Field(default=None, ge=-1)
    """Generation of the spec that this status speaks of; -1 until the operator has looked at it."""
    stage: Annotated[Stage | None, BeforeValidator(_known_stage)] = None
    """Where the resource stands, as a word for people. Programs read conditions."""
    message: Sentence | None = None
    """What is happening, as a sentence for people."""
    conditions: tuple[Condition, ...] = Field(default=(), max_length=32, json_schema_extra=map_list("type"))
    """What was observed, in the form of metav1.Condition."""
    target_uid: Word | None = Field(default=None, alias="targetUID")
    """UID of the target whose one writer this resource is."""
    holder_uid: Word | None = Field(default=None, alias="holderUID")
    """UID that this resource had when it became that. One restored from a backup has another, and asks anew."""
    baseline: JobAttempt | None = None
    """The attempt to measure the delivered model; absent once it is measured."""
    original: Version | None = None
    """The model as delivered."""
    champion: Version | None = None
    """The version that serves, or served before the rollout under way."""
    candidate: Version | None = None
    """A version that the judge has accepted and that is not champion yet."""
    registry: RegistryStatus | None = None
    """What spec.registry has been told; absent while it was told nothing."""
    worth: tuple[Worth, ...] = Field(default=(), max_length=2, json_schema_extra=map_list("version"))
    """What the same traffic needs with champion and candidate, as far as a judge has said it. A proposal: replicas are
    changed by nobody but a person."""
    next_version: int = Field(default=2, ge=2)
    """Number that the next version gets."""
    next_run: int = Field(default=1, ge=1)
    """Number that the next run gets."""
    run: ActiveRun | None = None
    """The run under way."""
    rollout: ActiveRollout | None = None
    """The rollout under way."""
    canary_route: CanaryRoute | None = None
    """What a canary takes of an HTTPRoute; absent once all of it is put back."""
    last_run: LastRun | None = None
    """How the last run ended."""
    last_delivery: LastDelivery | None = None
    """What has become of the newest delivered model that was judged itself; absent with deliveredModel MustWin."""
    next_rollback: int = Field(default=1, ge=1)
    """Number that the next rollback gets that a person asks for."""
    last_rollback: LastRollback | None = None
    """How the last such rollback ended."""
    monitoring: MonitoringStatus | None = None
    """What watching the live model has shown; absent where it is not watched."""
    triggers: TriggersStatus = TriggersStatus()
    """What decides whether a signal may start a run now."""
    observed_nonce: Word | None = None
    """The manualNonce of the newest run."""
    rejected: tuple[Rejected, ...] = Field(default=(), max_length=20, json_schema_extra=map_list("digest"))
    """Bundles that are not rolled out again, the newest 20."""
    observed_retry: Hash | None = None
    """The rollout.retry that was followed last."""
    versions: tuple[Version, ...] = Field(default=(), max_length=8, json_schema_extra=map_list("digest"))
    """Versions that were champion before, as many as spec.history.versions says: a person may put any of them back."""
    leftovers: tuple[Address, ...] = Field(default=(), max_length=LEFTOVERS_LIMIT, json_schema_extra=ATOMIC)
    """What nobody needs any more of the resource's folder in the store, by its path there: bundles/DIGEST, with the
    reference of that name, and runs/NAME. The next search removes it. No version that can be put back is among it."""
