"""What the planner touches of a cluster, in memory: one resource, its target, its Jobs, runs, Leases and events.

What the operator has heard of is kept apart from what there is: a write on an old reading meets what a real server
answers. Every write can be counted, cut short, and preceded by somebody else's.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from retune.api import FIELD_MANAGER
from retune.api.crd import modeloptimization_crd
from retune.api.objects import ModelOptimization, ObjectMeta, OptimizationRun
from retune.api.rolling import RolloutStep
from retune.api.spec import ModelOptimizationSpec
from retune.api.status import ModelOptimizationStatus
from retune.plan.actions import EmitEvent
from retune.plan.observed import (
    Canary,
    Container,
    Heard,
    Incident,
    Job,
    JobPhase,
    LatePod,
    Pods,
    Refusal,
    Route,
    Target,
    Traffic,
    Verb,
)
from retune.plan.told import Abort, Obstacle
from retune.traffic import Backend, Rule

CONTAINER = "server"
THEIRS = "theirs"
STABLE, TRIED = "digits", "digits-canary"
"""Services of the target and of its canary."""
FOR_TESTERS: Rule = (Backend(TRIED, 1),)
"""A rule of ours for testers."""
_SCHEMA = modeloptimization_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
UNSEEN = ModelOptimizationStatus.model_validate(_SCHEMA["properties"]["status"]["default"])
"""The status that the API server gives a new resource."""
FINISHED = {JobPhase.SUCCEEDED, JobPhase.FAILED}


class CrashError(Exception):
    """The operator died between two writes."""


def spec(**changes: Any) -> ModelOptimizationSpec:
    """Return a small valid spec, with changes."""
    base: dict[str, Any] = {
        "model": {"uri": "pvc://store/digits/model.onnx"},
        "data": {
            "training": {"uri": "pvc://store/digits/train.npz"},
            "validation": {"uri": "pvc://store/digits/validation.npz"},
            "test": {"uri": "pvc://store/digits/test.npz"},
        },
        "target": {"ref": {"name": "digits"}, "inference": {"modelName": "digits"}},
    }
    return ModelOptimizationSpec.model_validate(base | changes)


@dataclass(frozen=True)
class Beside:
    """A Deployment of the canary's name."""

    uid: str
    value: str | None
    template: str
    """The target's template that it was made of."""
    replicas: int
    owner: str | None
    """UID of the resource that it belongs to."""
    service: str | None = None
    """Service whose requests a route shares with it; None: it is behind the target's own."""


@dataclass
class Server:
    """What there is, and what others do to it."""

    spec: ModelOptimizationSpec = field(default_factory=spec)
    now: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    uid: str = "mo-1"
    value: str | None = None
    """Value of the owned field."""
    manager: str | None = None
    """Who owns it; where it is shared, the other one."""
    settled: bool = True
    """Whether every pod wanted runs the newest template and is available."""
    replacing: bool = False
    """Whether the pods of the template before are still there, as during a rolling update."""
    early: bool = False
    """Whether a pod of the newest template is ready before all are."""
    weather: str | None = None
    """What keeps new pods from running that no model can help, in words; None: they run, and are not ready yet."""
    paused: bool = False
    """Whether the target's controller makes no pods."""
    crash: Incident | None = None
    """How the model's container ended last in a pod of the newest value."""
    template: str = "template-1"
    """The pod template but for the owned field."""
    changed: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    """When pods were made anew for the last time."""
    beside: Beside | None = None
    """The Deployment of the canary's name, whoever's it is."""
    beside_settled: bool = True
    """Whether all of its pods are available."""
    beside_slow: bool = False
    """Whether more of them take their time."""
    beside_unserved: bool = False
    """Whether no Service selects them."""
    beside_crash: Incident | None = None
    """How the model's container ended last in one of them."""
    beside_trouble: str | None = None
    """What keeps them from running that no model can help, in words."""
    beside_counts: Heard | None = None
    """What they have counted."""
    beside_held: Heard | None = None
    """What they were heard to count at the weight; None: all of it."""
    champion_counts: Heard | None = None
    """What the target's pods have counted in the same time."""
    usual_seconds: float | None = None
    """How long nearly all of the target's requests had taken at most before; None: not known."""
    beside_refused: tuple[str, str] | None = None
    """Reason and sentence with which every write of it is refused."""
    autoscaler: str | None = None
    """Who scales the target."""
    changed_beside: datetime = datetime(2026, 1, 1, tzinfo=UTC)
    """When its pods were made for the last time."""
    tried: list[str | None] = field(default_factory=list)
    """Every value that we made a canary of."""
    rules: tuple[Rule, ...] | None = None
    """Backends of the rules of HTTPRoute `digits`; None while there is none."""
    route_slow: bool = False
    """Whether its Gateway takes its time to look at it."""
    route_fault: str | None = None
    """Why its Gateway does not take it."""
    route_untestable: str | None = None
    """Why its rules can have no copies for testers."""
    route_refused: tuple[str, str] | None = None
    """Reason and sentence with which every write of it is refused."""
    service: str | None = None
    """UID of the Service of the canary's pods; None while there is none."""
    removed_while_named: bool = False
    """Whether we have removed a canary that a rule named."""
    routed: list[tuple[Rule, ...]] = field(default_factory=list)
    """Every state of the rules that we made."""
    unfit: str | None = None
    """Why a new value does not reach every pod by itself."""
    held: str | None = None
    """Which step of its owner's own takes its time."""
    aborted: Abort | None = None
    """That its controller or an agent has given the newest value up."""
    obstacle: Obstacle | None = None
    """Why there is no field that could be owned."""
    behind: tuple[LatePod, ...] = ()
    """Pods of other values that its controller waits for."""
    target_kinds: frozenset[str] = frozenset({"Deployment"})
    """Kinds of targets that the operator is set up for."""
    pods_kept: bool = False
    """Whether the operator may delete no pod."""
    wanted: int = 1
    outage: str | None = None
    """Why no pod may answer while pods are replaced."""
    target_uid: str | None = "target-1"
    """None while there is no target."""
    jobs: dict[str, Job] = field(default_factory=dict)
    runs: dict[str, OptimizationRun] = field(default_factory=dict)
    leases: dict[str, str] = field(default_factory=dict)
    """UID of the holder by UID of the target."""
    rivals: set[str] = field(default_factory=set)
    """UIDs of other resources that live."""
    taken: dict[str, set[str]] = field(default_factory=lambda: {"jobs": set(), "optimizationruns": set()})
    """Names of objects of other owners, by plural."""
    left_jobs: dict[str, Job] = field(default_factory=dict)
    """Jobs that an earlier resource left behind, without an owner."""
    left_runs: dict[str, OptimizationRun] = field(default_factory=dict)
    """The same for runs."""
    quota: bool = False
    """Whether a quota admits no Job."""
    inject_refused: str | None = None
    """Why the target may not be changed."""
    namespace_ends: bool = False
    gone: bool = False
    """Whether the resource is there no more."""
    incarnation: int = 0
    """How many resources of the same name were there before it."""
    events: list[EmitEvent] = field(default_factory=list)
    requests: dict[str, Any] = field(default_factory=dict)
    """What each Job was asked, by name."""
    served: list[str | None] = field(default_factory=list)
    """Every value that we gave the target."""
    writes: int = 0
    crash_after: int | None = None
    """Writes after which the operator dies."""
    meanwhile: Callable[[], None] | None = None
    """What somebody does just before the operator's next request arrives, once."""
    versions: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Changes of every object, by plural and name."""

    def __post_init__(self) -> None:
        """Create the resource."""
        meta = ObjectMeta(name="digits", namespace="ml", uid=self.uid, generation=1)
        self.resource = ModelOptimization(metadata=meta, spec=self.spec, status=UNSEEN)
        self.hear()

    # What the operator's requests meet

    def arrive(self) -> None:
        """Take a request in: what somebody does meanwhile comes first."""
        interruption, self.meanwhile = self.meanwhile, None
        if interruption is not None:
            interruption()

    def commit(self, plural: str, name: str) -> None:
        """Count a write of the operator; raises CrashError where it does not live to make it."""
        if self.crash_after is not None and self.crash_after <= 0:
            self.crash_after = None
            raise CrashError
        if self.crash_after is not None:
            self.crash_after -= 1
        self.writes += 1
        self.versions[plural, name] += 1

    def hear(self) -> None:
        """Let the operator know of the resource as it is."""
        self.heard = None if self.gone else self.resource
        self.heard_version = self.version

    @property
    def suffix(self) -> str:
        """What tells what belongs to this resource from what belonged to those of the same name before it."""
        return f"-{self.incarnation}" if self.incarnation else ""

    @property
    def version(self) -> int:
        """Version of the resource."""
        return self.versions["modeloptimizations", "digits"]

    @property
    def target(self) -> Target | None:
        """The target as its controller reports it."""
        if self.target_uid is None:
            return None
        manager = self.manager if self.value is not None else None
        container = Container(name=CONTAINER, value=self.value, indirect=False, manager=manager, cpu_limit=1.0)
        return Target(
            name="digits",
            uid=self.target_uid,
            containers=() if self.obstacle else (container,),
            settled=self.settled,
            available=self.wanted if self.settled or self.replacing else 0,
            wanted=self.wanted,
            progress="0 of 1 new pods available",
            outage=self.outage,
            template=self.template,
            hindrance="the Deployment is paused" if self.paused else None,
            unfit=self.unfit,
            held=self.held,
            aborted=self.aborted,
            obstacle=self.obstacle,
        )

    @property
    def pods(self) -> Pods:
        """The target's pods of the newest value."""
        endpoints = ("http://10.0.0.1:8080",) if self.wanted and (self.settled or self.early) else ()
        pods = Pods(endpoints=endpoints, crash=self.crash, behind=self.behind)
        if self.settled:
            return pods
        if self.weather is not None or self.paused:
            return replace(pods, trouble=self.weather)
        unready = Incident("pod x: container server runs and is not ready", self.changed)
        return replace(pods, trouble=unready.message, unready=unready)

    def traffic_by(self, beside: Beside | None) -> Traffic:
        """Return who else gets requests, as far as that is a canary of this resource that is remembered like this."""
        routed = Traffic(
            autoscaler=self.autoscaler,
            route=self.route,
            service=self.service if self._looks_at_route and self.service != THEIRS else None,
        )
        if beside is None or beside.owner not in {None, self.resource.metadata.uid}:
            return routed
        container = Container(name=CONTAINER, value=beside.value, indirect=False, manager=None, cpu_limit=1.0)
        available = beside.replicas if self.beside_settled else 0
        workload = Target(
            name="digits-canary",
            uid=beside.uid,
            containers=(container,),
            settled=self.beside_settled,
            available=available,
            wanted=beside.replicas,
            progress=f"{available} of {beside.replicas} pods available",
            template=f"{beside.template} of a canary",
        )
        endpoints = tuple(f"http://10.0.1.{number}:8080" for number in range(available))
        unready = Incident("pod y: container server runs and is not ready", self.changed_beside)
        is_slow = not (self.beside_settled or self.beside_trouble)
        return replace(
            routed,
            canary=Canary(workload, made_of=beside.template, owned=beside.owner is not None, service=beside.service),
            pods=Pods(endpoints, self.beside_trouble, self.beside_crash, unready if is_slow else None),
            unserved=self.beside_unserved,
            heard=self.beside_counts,
            held=self.beside_held or self.beside_counts,
            beside=self.champion_counts,
            usual_seconds=self.usual_seconds,
        )

    @property
    def _looks_at_route(self) -> bool:
        """Whether the operator looks at the route: one is taken a share of, or will be."""
        rollout, traffic = self.resource.status.rollout, self.resource.spec.rollout.trial.traffic
        is_begun = rollout is not None and rollout.step == RolloutStep.CANARY_GIVE and traffic.route is not None
        return is_begun or self.resource.status.canary_route is not None

    @property
    def route(self) -> Route | None:
        """The route as it is read."""
        if not self._looks_at_route:
            return None
        if self.rules is None:
            missing = Refusal(Verb.CANARY, "CanaryImpossible", "there is no HTTPRoute digits")
            return Route("digits", gone=True, obstacle=missing)
        fault = Refusal(Verb.CANARY, "CanaryImpossible", self.route_fault) if self.route_fault else None
        record, version = self.resource.status.canary_route, str(self.versions["httproutes", "digits"])
        ours = enumerate(self.rules) if record is not None and record.testers is not None else ()
        return Route(
            "digits",
            version,
            self.rules,
            STABLE,
            fault,
            looked_at=not self.route_slow,
            testers=tuple(index for index, rule in ours if [backend.name for backend in rule] == [TRIED]),
            untestable=self.route_untestable,
        )

    def edit_route(self, *rules: Rule) -> None:
        """Change the rules, as somebody else does."""
        self.rules = rules
        self.versions["httproutes", "digits"] += 1

    @property
    def traffic(self) -> Traffic:
        """Who else gets requests."""
        return self.traffic_by(self.beside)

    @property
    def owned_by_others(self) -> bool:
        """Whether another manager has set the field."""
        return self.value is not None and self.manager not in {None, FIELD_MANAGER}

    def update(self, *, metadata: dict[str, Any] | None = None, **parts: Any) -> None:
        """Change parts of the resource."""
        if metadata:
            parts["metadata"] = self.resource.metadata.model_copy(update=metadata)
        self.resource = self.resource.model_copy(update=parts)

    # What others do

    def change(self, **changes: Any) -> None:
        """Edit the spec, as a user would."""
        merged = self.resource.spec.model_dump(mode="json", by_alias=True, exclude_none=True) | changes
        generation = self.resource.metadata.generation + 1
        self.update(spec=ModelOptimizationSpec.model_validate(merged), metadata={"generation": generation})
        self.versions["modeloptimizations", "digits"] += 1

    def delete(self) -> None:
        """Delete the resource, as a user would."""
        if self.resource.metadata.finalizers:
            self.update(metadata={"deletion_timestamp": self.now})
            self.versions["modeloptimizations", "digits"] += 1
        else:
            self.gone = True

    def declare_again(self, *, collected: bool) -> None:
        """Declare a resource of the same name after it is gone, before or after the garbage of the old one went."""
        if collected:
            self.collect_canary()
        else:
            self.taken = {"jobs": set(self.jobs), "optimizationruns": set(self.runs)}
        self.jobs.clear()
        self.runs.clear()
        self.incarnation += 1
        self.uid, self.gone = f"mo-1{self.suffix}", False
        meta = ObjectMeta(name="digits", namespace="ml", uid=self.uid, generation=1)
        self.resource = ModelOptimization(metadata=meta, spec=self.resource.spec, status=UNSEEN)
        self.versions["modeloptimizations", "digits"] += 1

    def collect_canary(self) -> None:
        """Remove a canary whose owner is gone, as a garbage collector does."""
        owner = self.beside.owner if self.beside else None
        if owner is not None and owner.startswith("mo-1") and (owner != self.resource.metadata.uid or self.gone):
            self.beside = None
        if self.gone:
            self.service = None

    def edit_template(self) -> None:
        """Change another part of the pod template than the owned field, so that all pods are made anew."""
        number = int(self.template.rpartition("-")[2]) + 1
        self.template, self.changed, self.crash = f"template-{number}", self.now, None
        self.settled, self.replacing = False, self.settled or self.replacing
        self.versions["deployments", "digits"] += 1

    def edit_field(self, value: str | None, manager: str | None) -> None:
        """Set the owned field, or take it out, as a neighbour would who owns it from then on."""
        self.value, self.manager = value, manager
        self.versions["deployments", "digits"] += 1
