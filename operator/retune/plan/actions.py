"""What a plan can ask for: frozen verbs, applied in order by `reconcile`, each safe to repeat.

A plan is a new status and the actions that follow from it. The status is written first: it names every object before
the object is created, so that a process killed in between finds its intention and carries on.
"""

from dataclasses import dataclass

from retune.api.objects import OptimizationRunSpec, OptimizationRunStatus
from retune.api.routed import RouteHeader
from retune.api.status import ModelOptimizationStatus
from retune.contract.requests import JobRequest
from retune.traffic import Rule


@dataclass(frozen=True)
class AcquireLease:
    """Become the one writer of the target."""

    target_uid: str


@dataclass(frozen=True)
class CreateJob:
    """Start a Job that answers `request`; `workers` above 1 makes it an Indexed Job."""

    name: str
    request: JobRequest
    cpu_limit: float | None
    """CPU limit of the serving container in cores, for Jobs that measure."""
    workers: int = 1


@dataclass(frozen=True)
class HoldJob:
    """Suspend or resume a Job."""

    name: str
    held: bool


@dataclass(frozen=True)
class ExpireJob:
    """End a Job whose time is over, in the way its own deadline ends it."""

    name: str


@dataclass(frozen=True)
class DeleteJob:
    """Remove a Job and its pods."""

    name: str


@dataclass(frozen=True)
class CreateRun:
    """Record an attempt."""

    name: str
    spec: OptimizationRunSpec


@dataclass(frozen=True)
class RecordRun:
    """Write a run's status."""

    name: str
    status: OptimizationRunStatus


@dataclass(frozen=True)
class DeleteRun:
    """Remove a finished run beyond the history limit."""

    name: str


@dataclass(frozen=True)
class InjectModel:
    """Give the target a model by its owned field; None gives the field up: the manifest's own setting counts again."""

    container: str
    variable: str
    value: str | None
    force: bool = False


@dataclass(frozen=True)
class ReplacePod:
    """Take away the pod with this UID, so that its controller makes another of the newest template."""

    name: str
    uid: str


@dataclass(frozen=True)
class CreateCanary:
    """Have a Deployment beside the target whose pods are the target's own but for the version that they serve."""

    container: str
    variable: str
    value: str | None
    template: str
    """Hash of the target's pod template that it is to be made of."""
    replicas: int
    overlaps: bool = False
    """Whether the target's selector may match its pods."""
    service: str | None = None
    """Service whose requests a route shares with it, so that none of the target's selects its pods; None: they do."""


@dataclass(frozen=True)
class ScaleCanary:
    """Have so many pods of the canary with this UID."""

    uid: str
    replicas: int


@dataclass(frozen=True)
class RemoveCanary:
    """Remove the canary with this UID and its pods."""

    uid: str
    routed: bool = False
    """Whether a route may give it requests, so that only what the newest status says of that counts."""


@dataclass(frozen=True)
class CreateCanaryService:
    """Have a Service that selects the canary's pods, with the ports of the Service that stands for the target."""

    service: str


@dataclass(frozen=True)
class RemoveCanaryService:
    """Remove the canary's Service with this UID."""

    uid: str


@dataclass(frozen=True)
class ShareRoute:
    """Give rules of an HTTPRoute these backends, and copies of some to testers, unless it has changed since."""

    route: str
    version: str
    """Its resourceVersion when that was decided."""
    service: str
    """Service of the target, whose backend the canary's is a copy of."""
    rules: tuple[tuple[int, Rule], ...]
    """The rules that change, by their place in the route."""
    testers: RouteHeader | None = None
    """Header of the requests that a copy of a rule is for."""
    opened: tuple[int, ...] = ()
    """The rules that get such a copy."""
    closed: tuple[int, ...] = ()
    """The copies that go."""


@dataclass(frozen=True)
class SetFinalizer:
    """Add or remove our finalizer: present only while deletion would leave something to undo."""

    present: bool


@dataclass(frozen=True)
class EmitEvent:
    """Post an Event about one transition."""

    reason: str
    message: str
    warning: bool = False


Action = (
    AcquireLease
    | CreateJob
    | HoldJob
    | ExpireJob
    | DeleteJob
    | CreateRun
    | RecordRun
    | DeleteRun
    | InjectModel
    | ReplacePod
    | CreateCanary
    | ScaleCanary
    | RemoveCanary
    | CreateCanaryService
    | RemoveCanaryService
    | ShareRoute
    | SetFinalizer
    | EmitEvent
)


@dataclass(frozen=True)
class Plan:
    """A decision: the status to write, then the actions in order, then when to look again."""

    status: ModelOptimizationStatus
    actions: tuple[Action, ...] = ()
    look_again: float | None = None
    """Seconds until a pass is due without any event; None leaves it to events and the resync."""
