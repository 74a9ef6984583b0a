"""What the cases of `tests.conformance.writer` are told of and play with: a scene, and every verb on it."""

from collections.abc import Awaitable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pytest

from retune.api.objects import OptimizationRunSpec, OptimizationRunStatus, Snapshot, Trigger
from retune.api.routed import CanaryRoute, RouteHeader
from retune.api.status import ModelOptimizationStatus, Outcome
from retune.cluster.errors import ApiError, Refused
from retune.plan import names
from retune.plan.actions import (
    AcquireLease,
    Action,
    CreateCanary,
    CreateCanaryService,
    CreateJob,
    CreateRun,
    DeleteJob,
    DeleteRun,
    EmitEvent,
    ExpireJob,
    HoldJob,
    InjectModel,
    RecordRun,
    RemoveCanary,
    RemoveCanaryService,
    ReplacePod,
    ScaleCanary,
    SetFinalizer,
    ShareRoute,
)
from retune.plan.observed import Job, Observed
from retune.traffic import Backend, Pair, Rule
from tests import samples

JOB, RUN, TARGET_UID = "digits-b1-0123", "digits-r1", "target-1"
JOBS, RUNS, LEASES = "jobs", "optimizationruns", "leases"
LATE_POD, PODS = "digits-late", "pods"
"""A pod of the target, which is there from the beginning."""
CANARY = "canary"
"""The Deployment beside the target."""
SERVICE, ROUTE = "canary service", "httproutes"
"""The Service of the canary's pods, and the route of others that names the target's Service."""
STABLE = "digits"
TARGET, RESOURCE, EVENTS = "deployments", "modeloptimizations", "events"
DELIVERED, BUNDLE = "file:///delivered", "pvc://store/bundles/a"
KEEP = "example.com/keep"
"""A finalizer of somebody else."""

DONE, CONFLICT, NOT_FOUND, NAMESPACE_GONE = "Done", "Conflict", "NotFound", "NamespaceGone"


async def outcome(carried_out: Awaitable[object]) -> str:
    """Return DONE, the reason of a refusal, or the name of another error of the API."""
    try:
        await carried_out
    except Refused as refused:
        return refused.reason
    except ApiError as error:
        return type(error).__name__
    return DONE


class Scene(Protocol):
    """A resource, its target, and one who carries actions out. What others do is not heard of before `look`."""

    async def carry_out(self, action: Action) -> str:
        """Carry an action out as a pass does; returns its `outcome`."""

    async def write_status(self, status: ModelOptimizationStatus) -> str:
        """Write the resource's status; returns its `outcome`."""

    async def look(self) -> Observed:
        """Hear of everything, and return what the next decision is made from."""

    async def remember(self) -> Observed:
        """Return what the next decision would be made from without hearing of anything."""

    async def restart(self) -> None:
        """Go on as another process, which remembers nothing and hears of everything."""

    def version(self, plural: str) -> str | None:
        """Return what changes with every change of the object that the cases are about; None where it is not there."""

    def events(self) -> list[tuple[str, str, str]]:
        """Return type, reason and message of the resource's events."""

    def finalizers(self) -> tuple[str, ...]:
        """Return the resource's finalizers."""

    def edit(self, **spec: Any) -> None:
        """Change fields of the resource's spec, as a person would."""

    def add_finalizer(self, name: str) -> None:
        """Put another finalizer on the resource."""

    def delete(self, plural: str) -> None:
        """Delete the object that the cases are about, as a person would."""

    def take_name(self, plural: str) -> None:
        """Give the name of our object to one of another owner, in place of ours where there is one."""

    def leave_behind(self, plural: str) -> None:
        """Take its owner from our object, as `kubectl delete --cascade=orphan` of the resource does."""

    def finish_job(self) -> None:
        """Let the Job end well."""

    def edit_route(self) -> None:
        """Give the route another rule, as those who own it would."""

    def edit_template(self) -> None:
        """Change the target's pod template, as a person would."""

    def set_field(self, value: str) -> None:
        """Set the owned field by another manager's manifest."""

    def replace_target(self) -> None:
        """Put another Deployment in the target's place."""

    def hold_lease_for_another(self) -> None:
        """Let another resource hold the Lease."""

    def remove_other_resource(self) -> None:
        """Delete that other resource; its Lease stays until a garbage collector comes."""

    def forbid_jobs_by_quota(self) -> None:
        """Let a quota admit no Job."""

    def end_namespace(self) -> None:
        """Delete the namespace; it still holds what is in it."""


def attempt() -> OptimizationRunSpec:
    """Return the spec of a first run."""
    spec = samples.resource().spec
    return OptimizationRunSpec(
        number=1,
        trigger=Trigger(reason="Initial", message="first run"),
        spec_generation=1,
        spec_hash="0123",
        champion_version=1,
        champion_digest=samples.DIGEST,
        snapshot=Snapshot(model=spec.model, data=spec.data, objectives=spec.better),
    )


CREATE_JOB = CreateJob(JOB, samples.baseline_request(), cpu_limit=None)
CREATE_RUN = CreateRun(RUN, attempt())
CREATE_OTHER_JOB = CreateJob(JOB, samples.baseline_request().model_copy(update={"threads": 7}), cpu_limit=None)
CREATE_OTHER_RUN = CreateRun(RUN, attempt().model_copy(update={"spec_hash": "4567"}))
HOLD_JOB, RELEASE_JOB = HoldJob(JOB, held=True), HoldJob(JOB, held=False)
RECORD_RUN = RecordRun(RUN, OptimizationRunStatus(outcome=Outcome.NO_GAIN, message="nothing better"))
INJECT, GIVE_UP = InjectModel("server", "MODEL_URI", BUNDLE), InjectModel("server", "MODEL_URI", None)
FORCE = InjectModel("server", "MODEL_URI", BUNDLE, force=True)
CREATE_CANARY = CreateCanary("server", "MODEL_URI", BUNDLE, template="as seen", replicas=1, overlaps=True)
SCALE_CANARY, REMOVE_CANARY = ScaleCanary("as seen", 3), RemoveCanary("as seen")
REMOVE_ROUTED = RemoveCanary("as seen", routed=True)
CREATE_SERVICE, REMOVE_SERVICE = CreateCanaryService(STABLE), RemoveCanaryService("as seen")
AS_SEEN = "as seen"
WHOLE: Rule = (Backend(STABLE, 1), Backend("other", 1))
"""The backends of the route's one rule."""
HEADER = RouteHeader(name="x-tester", value="yes")
BY_ROUTE = ModelOptimizationStatus(canary_route=CanaryRoute(name="digits", service=STABLE, testers=HEADER))
"""A status that lets a route be looked at."""


def share_route(percent: int) -> ShareRoute:
    """Return the action that gives the canary a share of the route's first rule; none at 0."""
    return ShareRoute("digits", AS_SEEN, STABLE, ((percent, ()),))


SHARE_ROUTE, RESTORE_ROUTE = share_route(10), share_route(0)
OPEN_ROUTE = ShareRoute("digits", AS_SEEN, STABLE, (), testers=HEADER, opened=(0,))
CLOSE_ROUTE = ShareRoute("digits", AS_SEEN, STABLE, ())
"""Testers get a copy of the first rule, and lose it."""
EMIT = EmitEvent("Promoted", "version 2 is champion")


@dataclass(frozen=True)
class Verb:
    """An action, the kind of the object that it changes, and what must have been done before."""

    action: Action
    plural: str
    before: tuple[Action | ModelOptimizationStatus, ...] = ()


VERBS = (
    Verb(AcquireLease(TARGET_UID), LEASES),
    Verb(CREATE_JOB, JOBS),
    Verb(HOLD_JOB, JOBS, before=(CREATE_JOB,)),
    Verb(RELEASE_JOB, JOBS, before=(CREATE_JOB, HOLD_JOB)),
    Verb(ExpireJob(JOB), JOBS, before=(CREATE_JOB,)),
    Verb(DeleteJob(JOB), JOBS, before=(CREATE_JOB,)),
    Verb(CREATE_RUN, RUNS),
    Verb(RECORD_RUN, RUNS, before=(CREATE_RUN,)),
    Verb(DeleteRun(RUN), RUNS, before=(CREATE_RUN,)),
    Verb(INJECT, TARGET),
    Verb(GIVE_UP, TARGET, before=(INJECT,)),
    Verb(ReplacePod(LATE_POD, "as made"), PODS),
    Verb(CREATE_CANARY, CANARY),
    Verb(SCALE_CANARY, CANARY, before=(CREATE_CANARY,)),
    Verb(REMOVE_CANARY, CANARY, before=(CREATE_CANARY,)),
    Verb(REMOVE_ROUTED, CANARY, before=(CREATE_CANARY,)),
    Verb(CREATE_SERVICE, SERVICE, before=(BY_ROUTE,)),
    Verb(REMOVE_SERVICE, SERVICE, before=(BY_ROUTE, CREATE_SERVICE)),
    Verb(SHARE_ROUTE, ROUTE, before=(BY_ROUTE,)),
    Verb(RESTORE_ROUTE, ROUTE, before=(BY_ROUTE, SHARE_ROUTE)),
    Verb(OPEN_ROUTE, ROUTE, before=(BY_ROUTE,)),
    Verb(CLOSE_ROUTE, ROUTE, before=(BY_ROUTE, OPEN_ROUTE)),
    Verb(SetFinalizer(present=True), RESOURCE),
    Verb(SetFinalizer(present=False), RESOURCE, before=(SetFinalizer(present=True),)),
)
"""Every verb whose repetition changes nothing; events are told as often as they are emitted."""
ON_CHILDREN = tuple(verb for verb in VERBS if verb.plural in {JOBS, RUNS})
CREATING = tuple(verb for verb in ON_CHILDREN if not verb.before)
OTHERWISE = (Verb(CREATE_OTHER_JOB, JOBS, before=(CREATE_JOB,)), Verb(CREATE_OTHER_RUN, RUNS, before=(CREATE_RUN,)))
"""Creating what has the same name and asks for something else."""
CHANGING = tuple(verb for verb in ON_CHILDREN if verb.before)
ON_CANARY = tuple(verb for verb in VERBS if verb.plural == CANARY)


def as_seen(action: Action, observed: Observed) -> Action:
    """Return an action as the next decision asks for it: about what it sees of target, canary and route."""
    canary, target = observed.traffic.canary, observed.target
    if isinstance(action, RemoveCanaryService):
        return replace(action, uid=observed.traffic.service or "none")
    if isinstance(action, ShareRoute):
        return _share_as_seen(action, observed)
    if isinstance(action, CreateCanary):
        return replace(action, template=target.template if target else "none")
    if isinstance(action, ScaleCanary | RemoveCanary):
        return replace(action, uid=canary.workload.uid if canary else "none")
    return action


def _share_as_seen(action: ShareRoute, observed: Observed) -> ShareRoute:
    """Return the share of the first rule, or its copy for testers, as it follows from the rules that are seen."""
    route, pair = observed.traffic.route, Pair(STABLE, names.canary_service(observed.resource.spec.target.ref.name))
    if action.version != AS_SEEN or route is None or not route.rules:
        return action
    if not action.rules:
        opened, closed = ((), route.testers) if action.testers is None else (() if route.testers else (0,), ())
        return replace(action, version=route.version, opened=opened, closed=closed)
    ((percent, _),) = action.rules
    wanted = pair.shared(WHOLE, percent) if percent else WHOLE
    return replace(action, version=route.version, rules=((0, wanted),))


def every(verbs: tuple[Verb, ...]) -> pytest.MarkDecorator:
    """Return the mark that runs a case once for each of these verbs."""
    return pytest.mark.parametrize("verb", verbs, ids=lambda verb: str(verb.action)[:60])


async def prepared(scene: Scene, *actions: Action | ModelOptimizationStatus) -> Observed:
    """Carry out, or write as status, what a case begins with; returns what was heard of it."""
    for action in actions:
        if isinstance(action, ModelOptimizationStatus):
            assert await scene.write_status(action) == DONE
        else:
            assert await scene.carry_out(action) == DONE
    return await scene.look()


async def the_job(scene: Scene) -> Job:
    """Return the Job as it is seen."""
    return (await scene.look()).jobs[JOB]


async def field(scene: Scene) -> tuple[str | None, str | None]:
    """Return value and manager of the owned field, as the next decision sees them."""
    target = (await scene.look()).target
    assert target is not None
    return target.containers[0].value, target.containers[0].manager
