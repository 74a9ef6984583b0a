"""The Writer over a server in memory: verb by verb what `retune.cluster.writes.Writer` does on a real one.

`tests.conformance.writer` says what that is, and runs on both.
"""

from dataclasses import replace

from retune.api import FIELD_MANAGER
from retune.api.objects import ModelOptimization, ObjectMeta, OptimizationRun
from retune.api.status import ModelOptimizationStatus
from retune.cluster.errors import Conflict, NamespaceGone, NotFound, Refused
from retune.plan.actions import (
    AcquireLease,
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
from retune.plan.guards.deletion import FINALIZER
from retune.plan.observed import Job, JobPhase, Queue, Target
from tests.unit.plan.server import CONTAINER, FINISHED, FOR_TESTERS, THEIRS, TRIED, Beside, Server


class MemoryWriter:
    """Carries actions out on a Server."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def status(self, resource: ModelOptimization, status: ModelOptimizationStatus) -> bool:
        """Write a status, which must be one that the API's types allow; False when nothing changed."""
        if status == resource.status:
            return False
        assert ModelOptimizationStatus.model_validate(status.to_dict()) == status
        self._arrive_at_resource()
        self._server.commit("modeloptimizations", "digits")
        self._server.update(status=status)
        self._server.hear()
        return True

    def _arrive_at_resource(self) -> None:
        server = self._server
        server.arrive()
        if server.gone:
            raise NotFound("the resource is gone")
        if server.heard_version != server.version:
            raise Conflict("the resource has moved on")

    def _arrive_to_create(self) -> None:
        self._server.arrive()
        if self._server.namespace_ends:
            raise NamespaceGone("the namespace is being terminated")

    async def acquire_lease(self, resource: ModelOptimization, action: AcquireLease) -> None:
        """Hold the target's Lease, unless another resource that lives does."""
        self._arrive_to_create()
        leases, mine = self._server.leases, resource.metadata.uid
        holder = leases.get(action.target_uid)
        if holder == mine:
            return
        if holder in self._server.rivals:
            raise Refused("HeldByAnother", "held by ml/other")
        self._server.commit("leases", action.target_uid)
        leases[action.target_uid] = mine

    async def create_job(self, resource: ModelOptimization, action: CreateJob, *, target: Target | None) -> None:
        """Have a Job of this name; one with a queue begins suspended."""
        self._arrive_to_create()
        if self._server.quota:
            raise Refused("QuotaExceeded", "exceeded quota")
        left = self._server.left_jobs.get(action.name)
        is_another = left is not None and self._server.requests[action.name] != action.request
        self._refuse_taken("jobs", action.name, is_another=is_another)
        if action.name in self._server.jobs:
            return
        self._server.commit("jobs", action.name)
        if left is not None:
            self._server.jobs[action.name] = self._server.left_jobs.pop(action.name)
            return
        phase = JobPhase.SUSPENDED if resource.spec.execution.queue_name else JobPhase.WAITING
        uid = f"{action.name}-{self._server.versions['jobs', action.name]}"
        queue = Queue(resource.spec.execution.queue_name) if resource.spec.execution.queue_name else None
        self._server.jobs[action.name] = Job(name=action.name, uid=uid, phase=phase, queue=queue)
        self._server.requests[action.name] = action.request

    def _refuse_taken(self, plural: str, name: str, *, is_another: bool) -> None:
        if is_another or name in self._server.taken[plural]:
            raise Refused("NameConflict", f"{name} belongs to something else")

    async def hold_job(self, resource: ModelOptimization, action: HoldJob) -> None:
        """Suspend or resume a Job of ours that is there."""
        self._server.arrive()
        job = self._server.jobs.get(action.name)
        if job is None:
            return
        waiting = JobPhase.SUSPENDED if action.held else JobPhase.WAITING
        changed = replace(job, phase=job.phase if job.phase in FINISHED else waiting, held=action.held)
        if changed != job:
            self._server.commit("jobs", action.name)
            self._server.jobs[action.name] = changed

    async def expire_job(self, resource: ModelOptimization, action: ExpireJob) -> None:
        """End a Job of ours that is there; its controller does so at once."""
        self._server.arrive()
        job = self._server.jobs.get(action.name)
        if job is not None and not job.expired:
            self._server.commit("jobs", action.name)
            self._server.jobs[action.name] = replace(job, expired=True)

    async def delete_job(self, resource: ModelOptimization, action: DeleteJob) -> None:
        """Remove a Job of ours that is there."""
        self._server.arrive()
        if action.name in self._server.jobs:
            self._server.commit("jobs", action.name)
            del self._server.jobs[action.name]

    async def create_run(self, resource: ModelOptimization, action: CreateRun) -> None:
        """Have a run of this name."""
        self._arrive_to_create()
        left = self._server.left_runs.get(action.name)
        self._refuse_taken("optimizationruns", action.name, is_another=left is not None and left.spec != action.spec)
        if action.name in self._server.runs:
            return
        self._server.commit("optimizationruns", action.name)
        if left is not None:
            self._server.runs[action.name] = self._server.left_runs.pop(action.name)
        else:
            version = self._server.versions["optimizationruns", action.name]
            meta = ObjectMeta(name=action.name, namespace="ml", uid=f"{action.name}-{version}")
            self._server.runs[action.name] = OptimizationRun(metadata=meta, spec=action.spec)

    async def record_run(self, resource: ModelOptimization, action: RecordRun) -> None:
        """Write the status of a run of ours that is there."""
        self._server.arrive()
        run = self._server.runs.get(action.name)
        if run is not None and run.status != action.status:
            self._server.commit("optimizationruns", action.name)
            self._server.runs[action.name] = run.model_copy(update={"status": action.status})

    async def delete_run(self, resource: ModelOptimization, action: DeleteRun) -> None:
        """Remove a run of ours that is there."""
        self._server.arrive()
        if action.name in self._server.runs:
            self._server.commit("optimizationruns", action.name)
            del self._server.runs[action.name]

    async def inject(self, resource: ModelOptimization, action: InjectModel, *, target: Target | None) -> None:
        """Own the field of the target that was decided on, or give it up, as server-side apply does."""
        server = self._server
        if target is None:
            return
        self._arrive_at_resource()
        if server.inject_refused:
            raise Refused(server.inject_refused, "Retune may not patch deployments.apps")
        if server.target_uid != target.uid:
            return
        if action.value is None:
            self._give_up()
        elif action.container != CONTAINER:
            raise Refused("Invalid", "spec.template.spec.containers[1].image: Required value")
        else:
            self._own(action.value, force=action.force)

    def _give_up(self) -> None:
        server = self._server
        if server.value is None:
            return
        if server.manager != FIELD_MANAGER:
            raise Refused("FieldConflict", f"owned by {server.manager}")
        self._set(None, None)

    def _own(self, value: str, *, force: bool) -> None:
        server = self._server
        if value == server.value:
            if server.manager is None:
                server.commit("deployments", "digits")
                server.manager = FIELD_MANAGER
            return
        if server.owned_by_others and not force:
            raise Refused("FieldConflict", f"owned by {server.manager}")
        self._set(value, FIELD_MANAGER)

    def _set(self, value: str | None, manager: str | None) -> None:
        server = self._server
        server.commit("deployments", "digits")
        server.value, server.manager, server.changed, server.crash = value, manager, server.now, None
        server.settled, server.replacing = False, server.settled or server.replacing
        server.served.append(value)

    async def replace_pod(self, resource: ModelOptimization, action: ReplacePod) -> None:
        """Delete a pod; another of the same name that is there by now is left alone."""
        self._arrive_at_resource()
        if self._server.pods_kept:
            raise Refused("Forbidden", "Retune may not delete pods in namespace ml")
        left = tuple(pod for pod in self._server.behind if (pod.name, pod.uid) != (action.name, action.uid))
        if left != self._server.behind:
            self._server.commit("pods", action.name)
            self._server.behind = left

    async def create_canary(self, resource: ModelOptimization, action: CreateCanary, *, target: Target | None) -> None:
        """Have a Deployment beside the target that was decided on."""
        server = self._server
        if target is None:
            return
        self._arrive_at_resource()
        if (server.target_uid, server.template) != (target.uid, action.template):
            return
        if server.namespace_ends:
            raise NamespaceGone("the namespace is being terminated")
        self._refuse_beside()
        if server.beside is not None:
            if server.beside.owner != resource.metadata.uid:
                raise Refused("NameConflict", "Deployment digits-canary belongs to something else")
            return
        server.commit("canary", "digits")
        uid = f"canary-{server.versions['canary', 'digits']}"
        owner = resource.metadata.uid
        server.beside = Beside(uid, action.value, action.template, action.replicas, owner, action.service)
        server.beside_crash, server.changed_beside = None, server.now
        server.tried.append(action.value)

    def _refuse_beside(self) -> None:
        if self._server.beside_refused:
            raise Refused(*self._server.beside_refused)

    async def scale_canary(self, resource: ModelOptimization, action: ScaleCanary) -> None:
        """Have so many pods of the canary, where it is still that one."""
        server = self._server
        self._arrive_at_resource()
        self._refuse_beside()
        beside = server.beside
        if beside is not None and beside.uid == action.uid and beside.replicas != action.replicas:
            server.commit("canary", "digits")
            server.beside, server.changed_beside = replace(beside, replicas=action.replicas), server.now
            server.beside_settled = server.beside_settled and not server.beside_slow

    async def remove_canary(self, resource: ModelOptimization, action: RemoveCanary) -> None:
        """Remove the canary, where it is still that one."""
        server = self._server
        if action.routed:
            self._arrive_at_resource()
        else:
            server.arrive()
        self._refuse_beside()
        if server.beside is not None and server.beside.uid == action.uid:
            server.commit("canary", "digits")
            server.beside = None
            names = {backend.name for rule in server.rules or () for backend in rule}
            server.removed_while_named |= TRIED in names

    async def create_canary_service(self, resource: ModelOptimization, action: CreateCanaryService) -> None:
        """Have a Service of the canary's pods."""
        server = self._server
        self._arrive_at_resource()
        if server.namespace_ends:
            raise NamespaceGone("the namespace is being terminated")
        self._refuse_beside()
        if server.service == THEIRS:
            raise Refused("NameConflict", "Service digits-canary belongs to something else")
        if server.service is None:
            server.commit("services", "digits")
            server.service = f"service-{server.versions['services', 'digits']}"

    async def remove_canary_service(self, resource: ModelOptimization, action: RemoveCanaryService) -> None:
        """Remove that Service, where it is still that one."""
        server = self._server
        server.arrive()
        self._refuse_beside()
        if server.service is not None and server.service == action.uid:
            server.commit("services", "digits")
            server.service = None

    async def share_route(self, resource: ModelOptimization, action: ShareRoute) -> None:
        """Give rules their backends, where the route is still of that version."""
        server = self._server
        self._arrive_at_resource()
        if server.rules is None or str(server.versions["httproutes", "digits"]) != action.version:
            return
        if server.route_refused:
            raise Refused(*server.route_refused)
        changed = dict(action.rules)
        closed = set(action.closed)
        kept = [changed.get(index, rule) for index, rule in enumerate(server.rules) if index not in closed]
        rules = (*kept, *(FOR_TESTERS for _ in action.opened))
        if rules != server.rules:
            server.commit("httproutes", "digits")
            server.rules = rules
            server.routed.append(rules)

    async def set_finalizer(self, resource: ModelOptimization, action: SetFinalizer) -> None:
        """Add or remove our finalizer beside those of others."""
        others = [name for name in resource.metadata.finalizers if name != FINALIZER]
        wanted = (*others, FINALIZER) if action.present else tuple(others)
        if wanted == resource.metadata.finalizers:
            return
        self._arrive_at_resource()
        if action.present and resource.metadata.deletion_timestamp:
            raise Refused("Invalid", "no new finalizers can be added if the object is being deleted")
        server = self._server
        server.commit("modeloptimizations", "digits")
        server.update(metadata={"finalizers": wanted})
        server.hear()
        server.gone = not wanted and resource.metadata.deletion_timestamp is not None

    async def emit(self, resource: ModelOptimization, action: EmitEvent) -> None:
        """Tell people, where there is somewhere to tell it."""
        self._server.arrive()
        if not self._server.namespace_ends:
            self._server.events.append(replace(action, message=action.message[:1024]))
