"""What one pass of the loop has seen: frozen facts, complete enough to decide without asking again.

Nothing here refers to Kubernetes' own dictionaries; `cluster` parses each kind once, at the edge.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from retune.api.objects import ModelOptimization, OptimizationRun
from retune.api.status import Trials
from retune.contract.results import JobResult
from retune.plan.told import Abort, Obstacle
from retune.traffic import Rule


@dataclass(frozen=True)
class Container:
    """A container of the target's pod template."""

    name: str
    value: str | None
    """Literal value of the owned variable; None where it is not set."""
    indirect: bool
    """Whether the variable takes its value from elsewhere (valueFrom), which cannot be owned."""
    manager: str | None
    """Field manager that owns the variable's value, if any."""
    cpu_limit: float | None
    """CPU limit in cores of what serves; without one its request, but at least one core; None where neither is set."""
    is_init: bool = False
    """Whether it runs before the others, and so writes what the server reads."""


@dataclass(frozen=True)
class Target:
    """The workload that serves, as its controller last reported it."""

    name: str
    uid: str
    containers: tuple[Container, ...]
    settled: bool
    """Its controller has seen the newest template, and every pod wanted runs it and is available."""
    available: int
    """Pods available, of any template."""
    wanted: int
    """Pods wanted."""
    progress: str
    """Progress in words, such as `1 of 2 new pods available`."""
    outage: str | None = None
    """Why no pod may answer while a new version takes the place of the old one, and what to change; None if some do."""
    node_selector: Mapping[str, str] = field(default_factory=dict)
    tolerations: tuple[Mapping[str, object], ...] = ()
    claims: frozenset[str] = frozenset()
    """Volume claims that its pods mount."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """Labels by which its pods are selected."""
    template: str = ""
    """Hash of the pod template without the owned variable."""
    hindrance: str | None = None
    """What keeps its controller from making pods, in words: it is paused, or a quota or an admission refuses them."""
    unfit: str | None = None
    """Why a new value of the field does not reach every pod by itself, and what to do; None where it does."""
    held: str | None = None
    """Which step of its owner's own takes its time, and who ends it; None while there is none."""
    aborted: Abort | None = None
    """That its controller has gone back to the pods before, or an agent keeps the version before; the field still has
    the newest value."""
    field_uid: str | None = None
    """UID of the object that has the field; None where that is the workload."""
    obstacle: Obstacle | None = None
    """Why the field cannot be owned; there is no container then."""

    def but(self, **changes: Any) -> "Target":
        """Return the same with other fields."""
        return replace(self, **changes)

    def container(self, wanted: str | None) -> Container | None:
        """Return the container of that name, or the only one beside init containers; None when no single one fits."""
        matching = [known for known in self.containers if (known.name == wanted if wanted else not known.is_init)]
        return matching[0] if len(matching) == 1 else None


@dataclass(frozen=True, slots=True)
class ServingPod:
    """A running pod of the target, whose own metrics give the live numbers."""

    uid: str
    address: str
    """IP address."""
    cpu_limit: float | None = None
    """CPU of the serving container, as Container.cpu_limit."""


@dataclass(frozen=True, slots=True)
class Incident:
    """What a pod's own model container did, and when."""

    message: str
    at: datetime


@dataclass(frozen=True, slots=True)
class LatePod:
    """A pod of another value than the newest, which is not ready and is replaced only once it is."""

    name: str
    uid: str
    value: str | None
    """Value of the owned field that it was made with."""


@dataclass(frozen=True)
class Pods:
    """The target's pods of the newest value, read live while a rollout is under way."""

    endpoints: tuple[str, ...] = ()
    """Base URLs of the ready ones."""
    trouble: str | None = None
    """What keeps one from becoming ready, in words, whosever doing it is."""
    crash: Incident | None = None
    """The last time that the model's container ended with an error in a pod that nobody was taking away."""
    unready: Incident | None = None
    """The pod that runs the model's container for longest without being ready, and since when."""
    serving: tuple[ServingPod, ...] = ()
    """The running ones."""
    behind: tuple[LatePod, ...] = ()
    """Pods of other values for which the controller waits before it replaces them."""


class JobPhase(StrEnum):
    """What a Job's conditions say."""

    SUSPENDED = "Suspended"
    WAITING = "Waiting"
    RUNNING = "Running"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"


OBJECT_MISSING = "ObjectMissing"
"""Reason of a Trouble: the pod needs a claim, a Secret or the like that somebody has to create."""


@dataclass(frozen=True)
class Trouble:
    """What keeps a Job's pod from doing its work, or has ended it."""

    reason: str
    """ObjectMissing, ImagePullFailed, Unschedulable, VolumeNotMounted, OutOfMemory, ContainerFailed, QuotaExceeded,
    AdmissionDenied, SidecarRunsOn, DeadlineExceeded, Evicted."""
    message: str
    since: datetime


@dataclass(frozen=True)
class Queue:
    """The queue that admits a Job."""

    name: str
    since: datetime | None = None
    """Since when the Job has waited for it; None while it does not."""
    why: str | None = None
    """Why it waits, in the words of what serves the queue; None where that is not known."""


@dataclass(frozen=True)
class Job:
    """A Job of this resource, with what its pods left."""

    name: str
    uid: str
    phase: JobPhase
    command: str | None = None
    """What its label says that it was asked; None where it has none."""
    held: bool = False
    """Suspended by us, not by a queue."""
    queue: Queue | None = None
    """What admits it; None where nothing has to."""
    workers: int = 1
    """Workers that it has."""
    asked: int | None = None
    """Workers that were asked for, where its queue may admit fewer; else None."""
    running_since: datetime | None = None
    """When the first of its pods began to run, since it was resumed if it was suspended; None while none
    runs, and where its own deadline is all that bounds it."""
    expired: bool = False
    """Whether it was told to end, because its time is over."""
    result: JobResult | None = None
    """The parsed termination message: of a failed pod when the Job failed, else of the last one that finished."""
    garbled: str | None = None
    """Why the termination message could not be read as a result."""
    trouble: Trouble | None = None


class Verb(StrEnum):
    """The kinds of action that the API server may refuse."""

    ACQUIRE_LEASE = "AcquireLease"
    CREATE_JOB = "CreateJob"
    CREATE_RUN = "CreateRun"
    INJECT_MODEL = "InjectModel"
    CANARY = "Canary"
    REPLACE_POD = "ReplacePod"
    OTHER = "Other"


REFUSALS = frozenset(
    {
        "HeldByAnother",
        "FieldConflict",
        "Forbidden",
        "QuotaExceeded",
        "AdmissionDenied",
        "NameConflict",
        "CanaryImpossible",
        "RequestTooLong",
        "Unreadable",
        "Invalid",
    }
)
"""The reasons a refusal can have."""


@dataclass(frozen=True)
class Refusal:
    """An action that the API server refused in this pass, for good reason: it would refuse it again."""

    verb: Verb
    reason: str
    """One of REFUSALS."""
    message: str


@dataclass(frozen=True)
class LiveNumber:
    """One live signal's number for one window."""

    name: str
    """Name of the signal, as in spec.monitoring.performance."""
    value: float | None
    """The number: seconds, a share, requests a second; None where there is none."""
    reason: str
    """Measured, NoData, Unreachable, NotANumber, ServerNotAllowed, Restarted: why there is one or none."""
    message: str
    """The same as a sentence."""


@dataclass(frozen=True)
class Live:
    """What the live model's own metrics show of one window."""

    window: int
    numbers: tuple[LiveNumber, ...]
    requests: float | None = None
    """Requests answered in the window; None where they are not counted."""
    saturation: float | None = None
    """CPU used as a share of the limit, or the share of throttled periods, whichever is larger; None if unknown."""


@dataclass(frozen=True)
class Heard:
    """What pods have counted since they started, all of them together: those of a version in its bake, or before it."""

    pods: int = 0
    """Pods whose metrics could be read."""
    requests: float | None = None
    """Requests answered; None where they are not counted."""
    errors: float | None = None
    """Those answered with a status of 500 and above; None where no label holds the status."""
    refused: float | None = None
    """Those answered with a status of 400 to 499; None where no label holds the status."""
    buckets: Mapping[float, float] = field(default_factory=dict)
    """Requests that took at most so many seconds, by the upper bound of their bucket, ascending."""
    saturation: float | None = None
    """CPU used as a share of the limit, or the share of throttled periods, whichever is larger; None if unknown."""
    numbers: tuple[LiveNumber, ...] = ()
    """Answers to the signals that have a query, for the time since the bake began."""
    trouble: str | None = None
    """Why a pod could not be read, if that is so."""


@dataclass(frozen=True)
class Canary:
    """The Deployment of this resource beside the target, whose pods serve a new version first."""

    workload: Target
    """As its controller last reported it."""
    made_of: str | None = None
    """Hash of the target's pod template that it was made of."""
    owned: bool = True
    """Whether it belongs to this resource, and not to one of the same name that left it behind."""
    leaving: bool = False
    """Whether it is being deleted."""
    service: str | None = None
    """Service whose requests a route shares with it, and which does not select its pods; None where Services share."""

    def serves(self, container: str) -> str | None:
        """Return the value of the owned variable that its pods are made with."""
        serving = self.workload.container(container)
        return serving.value if serving else None


UNKNOWN = "unknown"
"""In place of the UID of a Service that may be there and cannot be looked for."""


@dataclass(frozen=True)
class Route:
    """The HTTPRoute that gives a canary its share, read live for as long as there may be something of ours in it."""

    name: str
    version: str = ""
    """Its resourceVersion; empty where it could not be read."""
    rules: tuple[Rule, ...] = ()
    """The backends of its rules, in order."""
    service: str | None = None
    """Service that stands for the target in its rules."""
    obstacle: Refusal | None = None
    """Why a canary gets no requests by it, for a person."""
    gone: bool = False
    """Whether there is no such route."""
    looked_at: bool = True
    """Whether its Gateways have looked at its newest version."""
    testers: tuple[int, ...] = ()
    """Rules that are ours alone, for testers of the canary, by their place."""
    untestable: str | None = None
    """Why its rules can have no copies for testers, as the end of a sentence; None: they can, or none are wanted."""


@dataclass(frozen=True)
class Traffic:
    """Who may get requests besides the target's pods, and what both have answered in the same time."""

    canary: Canary | None = None
    """None while there is none of this resource."""
    pods: Pods = Pods()
    """The canary's pods, read live while a rollout is under way."""
    unserved: bool = False
    """Whether no Service sends requests to the canary's pods; looked at while a weight is tried."""
    heard: Heard | None = None
    """What the canary's pods have counted since they started; None when nobody listens."""
    held: Heard | None = None
    """What they have counted since this weight was given, or since all of them were ready at it."""
    beside: Heard | None = None
    """What the target's pods have counted in the same time as `held`."""
    usual_seconds: float | None = None
    """How long nearly all of the target's requests had taken at most before that, as a bound of its histogram; None
    where that is not known."""
    autoscaler: str | None = None
    """Name of the HorizontalPodAutoscaler of the target; looked for when a canary is about to be made."""
    route: Route | None = None
    """The route that shares requests; None where none does, or it was not looked at."""
    service: str | None = None
    """UID of the Service of this resource that selects the canary's pods, or UNKNOWN; None while there is none."""


@dataclass(frozen=True)
class Defaults:
    """Settings of the operator that decisions depend on."""

    artifact_store: str | None = "pvc://retune-artifacts"
    profiles: tuple[str, ...] = ()
    """Names of the profiles of nodes that a resource may name."""
    image_pull_seconds: float = 300.0
    """Seconds that a Job's image may fail to be pulled before the Job counts as failed."""
    target_kinds: frozenset[str] = frozenset({"Deployment"})
    """Kinds of targets that this operator is set up for."""


@dataclass(frozen=True)
class Observed:
    """Everything one decision is made from."""

    resource: ModelOptimization
    target: Target | None
    jobs: Mapping[str, Job] = field(default_factory=dict)
    """By name; only those that this resource owns."""
    runs: Mapping[str, OptimizationRun] = field(default_factory=dict)
    """By name; only those that this resource owns."""
    ended_before: int = 0
    """Highest number of a run of this resource's name that has ended and that nobody owns, as one that was restored."""
    pods: Pods = Pods()
    trials: Trials | None = None
    """Progress scraped from the search workers; None when there is no news."""
    live: Live | None = None
    """Live numbers of the last window that ended; None when there is no news."""
    heard: Heard | None = None
    """What the pods of a version in its bake have counted, or those that another one is about to replace; else None."""
    traffic: Traffic = Traffic()
    """Who else gets requests, while a version is tried beside the champion or something is left of that."""
    watched_since: datetime | None = None
    """When this operator began to watch; None where that does not matter."""
    lease_held: bool = False
    """Whether this pass has acquired (or confirmed) the Lease on this very target."""
    refusals: tuple[Refusal, ...] = ()
    defaults: Defaults = Defaults()
