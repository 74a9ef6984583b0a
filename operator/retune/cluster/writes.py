"""Every write of the operator, one method a verb, each safe to repeat: what is done already counts as done.

What the server answers goes into the cache at once, so that the next decision knows of it before any watch does.
An object that exists already belongs to the resource only if its owner's UID says so; its name proves nothing. One
without an owner is adopted where it is what would have been created in its place.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime

from pydantic import ValidationError

from retune.api import API_VERSION, FIELD_MANAGER
from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.status import ModelOptimizationStatus
from retune.cluster import keys
from retune.cluster.cache import Cache
from retune.cluster.client import APPLY_PATCH, MERGE_PATCH, Client, Request
from retune.cluster.errors import AlreadyExists, ApiError, Conflict, NotFound, Refused
from retune.cluster.heritage import answers_the_same, is_left_behind
from retune.cluster.kinds import EVENTS, JOBS, LEASES, MODEL_OPTIMIZATIONS, OPTIMIZATION_RUNS, PODS, Kind, target_kind
from retune.cluster.parse import owner
from retune.cluster.route_writes import RouteWriter
from retune.cluster.unreadable import faults_of
from retune.notify import Notice
from retune.plan.actions import (
    AcquireLease,
    CreateJob,
    CreateRun,
    DeleteJob,
    DeleteRun,
    EmitEvent,
    ExpireJob,
    HoldJob,
    InjectModel,
    RecordRun,
    ReplacePod,
    SetFinalizer,
)
from retune.plan.guards.deletion import FINALIZER
from retune.plan.observed import Target
from retune.targets import kind_of
from retune.workloads import job_manifest, lease_manifest, lease_name, run_manifest, too_long
from retune.workloads.jobs import EXPIRED_SECONDS, JobSettings
from retune.workloads.labels import HELD

COMPONENT = "retune"
_CURE = "use an operator of the release that wrote it, or delete it, and it is made anew"


def merge_patch(old: Json, new: Json) -> Json:
    """Return the JSON merge patch (RFC 7386) that turns `old` into `new`; what both leave out is left alone."""
    patch: Json = {name: None for name in old if name not in new}
    for name, value in new.items():
        before = old.get(name)
        if isinstance(value, dict) and isinstance(before, dict):
            inner = merge_patch(before, value)
            if inner:
                patch[name] = inner
        elif value != before:
            patch[name] = value
    return patch


class Writer(RouteWriter):
    """Carries the plan's actions out.

    Args:
        client: Talks to the API server.
        cache: Gets what was written.
        settings: What Jobs are made with.
        instance: Name of this process in Events.
        tell: Called with every Event that was posted.
    """

    def __init__(
        self,
        client: Client,
        cache: Cache,
        settings: JobSettings,
        *,
        instance: str = COMPONENT,
        tell: Callable[[Notice], None] | None = None,
    ) -> None:
        super().__init__(client, cache)
        self._settings = settings
        self._instance = instance
        self._tell = tell

    async def status(self, resource: ModelOptimization, status: ModelOptimizationStatus) -> bool:
        """Write what changed of a status; False when nothing did. Raises Conflict when the resource has moved on."""
        if status == resource.status:
            return False
        changed = merge_patch(resource.status.to_dict(), status.to_dict())
        if not changed:
            return False
        meta = resource.metadata
        body = {"metadata": {"resourceVersion": meta.resource_version}, "status": changed}
        path = MODEL_OPTIMIZATIONS.path(meta.namespace, meta.name, subresource="status")
        await self._patch(MODEL_OPTIMIZATIONS, path, body)
        return True

    async def say_unreadable(self, key: str) -> bool:
        """Have a resource that cannot be read say so in its conditions; False where it does already."""
        seen = self._cache.unreadable[key]
        conditions = seen.told(datetime.now(UTC))
        if conditions is None:
            return False
        namespace, name = key.split("/")
        body = {"metadata": {"resourceVersion": str(seen.version)}, "status": {"conditions": conditions}}
        path = MODEL_OPTIMIZATIONS.path(namespace, name, subresource="status")
        with suppress(Conflict):  # it has changed meanwhile: the watch brings it
            await self._client.call(Request("PATCH", path, {}, body, MERGE_PATCH))
        return True

    async def acquire_lease(self, resource: ModelOptimization, action: AcquireLease) -> None:
        """Become the target's one writer; raises Refused (HeldByAnother) while another resource is."""
        namespace = resource.metadata.namespace
        try:
            await self._post(LEASES, namespace, lease_manifest(action, resource=resource))
        except AlreadyExists:
            held = await self._existing(LEASES, namespace, lease_name(action.target_uid))
            if owner(held) != resource.metadata.uid:
                await self._take_over(resource, action, held)

    async def _take_over(self, resource: ModelOptimization, action: AcquireLease, held: Json) -> None:
        """Take a Lease whose holder is gone; its resourceVersion lets only one of several heirs succeed."""
        holder = (held.get("spec") or {}).get("holderIdentity") or "someone"
        if await self._lives(resource.metadata.namespace, holder, uid=owner(held)):
            target = resource.spec.target.ref
            raise Refused(
                "HeldByAnother",
                f"ModelOptimization {holder} already optimizes {target.kind} {target.name}: delete one of the two",
            )
        manifest = lease_manifest(action, resource=resource)
        manifest["metadata"]["resourceVersion"] = held["metadata"]["resourceVersion"]
        path = LEASES.path(resource.metadata.namespace, lease_name(action.target_uid))
        await self._client.call(Request("PUT", path, body=manifest))

    async def _lives(self, namespace: str, name: str, *, uid: str | None) -> bool:
        try:
            holder = await self._client.get(MODEL_OPTIMIZATIONS, namespace, name)
        except NotFound:
            return False
        return bool(holder["metadata"]["uid"] == uid)

    async def create_job(self, resource: ModelOptimization, action: CreateJob, *, target: Target | None) -> None:
        """Create a Job; raises Refused: NameConflict, RequestTooLong, or the server's own reason."""
        if fault := too_long(action.request):
            raise Refused("RequestTooLong", fault)
        manifest = job_manifest(action, resource=resource, target=target, settings=self._settings)
        await self._create(JOBS, resource, manifest)

    async def create_run(self, resource: ModelOptimization, action: CreateRun) -> None:
        """Create an OptimizationRun; raises Refused (NameConflict) when its name belongs to someone else."""
        await self._create(OPTIMIZATION_RUNS, resource, run_manifest(action, resource=resource))

    async def _create(self, kind: Kind, resource: ModelOptimization, manifest: Json) -> None:
        namespace, name = resource.metadata.namespace, manifest["metadata"]["name"]
        try:
            raw = await self._post(kind, namespace, manifest)
        except AlreadyExists:
            raw = await self._existing(kind, namespace, name)
            if owner(raw) != resource.metadata.uid:
                raw = await self._adopt(kind, manifest, raw)
        try:
            self._cache.put(kind, raw)
        except ValidationError as error:
            text = f"this operator cannot read {kind.name} {name} ({'; '.join(faults_of(error))}): {_CURE}"
            raise Refused("Unreadable", text) from error

    async def _adopt(self, kind: Kind, manifest: Json, raw: Json) -> Json:
        """Become the owner of what a resource of this name left behind; raises Refused (NameConflict) for all else."""
        meta = raw["metadata"]
        if not answers_the_same(raw, manifest):
            whose = "belongs to something else"
            if is_left_behind(raw, manifest):
                whose = "was left behind by an earlier resource of this name, and asks for something else"
            text = f"{kind.name} {meta['name']} {whose}: delete it, or rename this resource"
            raise Refused("NameConflict", text) from None
        owners = [*(meta.get("ownerReferences") or ()), *manifest["metadata"]["ownerReferences"]]
        body = {"metadata": {"resourceVersion": meta["resourceVersion"], "ownerReferences": owners}}
        path = kind.path(meta["namespace"], meta["name"])
        return await self._client.call(Request("PATCH", path, body=body, content_type=MERGE_PATCH))

    async def hold_job(self, resource: ModelOptimization, action: HoldJob) -> None:
        """Suspend or resume a Job of ours; one that is gone needs neither."""
        job = self._cache.jobs_of(resource).get(action.name)
        if job is None:
            return
        note = {HELD: "true"} if action.held else {HELD: None}
        body = {"metadata": {"uid": job.uid, "annotations": note}, "spec": {"suspend": action.held}}
        await self._patch_child(JOBS, resource, action.name, body)

    async def expire_job(self, resource: ModelOptimization, action: ExpireJob) -> None:
        """Let the deadline of a Job of ours be over; one that is gone needs no end."""
        job = self._cache.jobs_of(resource).get(action.name)
        if job is not None:
            body = {"metadata": {"uid": job.uid}, "spec": {"activeDeadlineSeconds": EXPIRED_SECONDS}}
            await self._patch_child(JOBS, resource, action.name, body)

    async def record_run(self, resource: ModelOptimization, action: RecordRun) -> None:
        """Write what changed of the status of a run of ours; a run that was deleted stays so."""
        known = self._cache.runs_of(resource).get(action.name)
        changed = merge_patch(known.status.to_dict(), action.status.to_dict()) if known else {}
        if known and changed:
            version = known.metadata.resource_version  # the status of a custom resource heeds no UID
            body = {"metadata": {"resourceVersion": version}, "status": changed}
            await self._patch_child(OPTIMIZATION_RUNS, resource, action.name, body, subresource="status")

    async def delete_job(self, resource: ModelOptimization, action: DeleteJob) -> None:
        """Delete a Job of the resource and its pods."""
        job = self._cache.jobs_of(resource).get(action.name)
        await self._delete(JOBS, resource, action.name, uid=job.uid if job else None)

    async def delete_run(self, resource: ModelOptimization, action: DeleteRun) -> None:
        """Delete a run of the resource."""
        run = self._cache.runs_of(resource).get(action.name)
        await self._delete(OPTIMIZATION_RUNS, resource, action.name, uid=run.metadata.uid if run else None)

    async def _delete(self, kind: Kind, resource: ModelOptimization, name: str, *, uid: str | None) -> None:
        if uid is None:
            return
        namespace = resource.metadata.namespace
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        body["preconditions"] = {"uid": uid}
        with suppress(NotFound, Conflict):  # gone, or replaced by another that is not to be deleted
            await self._client.call(Request("DELETE", kind.path(namespace, name), body=body))
        self._cache.forget(kind, namespace, name)

    async def inject(self, resource: ModelOptimization, action: InjectModel, *, target: Target | None) -> None:
        """Own the field of the target that was decided on by server-side apply, or give it up.

        Raises Conflict when the resource has moved on, because what serves is decided on its newest status alone.
        Raises Refused (FieldConflict) when another manager owns it, also where it cannot be emptied for that reason:
        the server lets everybody give up what is not theirs, and says nothing.
        """
        if target is None:
            return
        await self._refuse_outdated(resource)
        if resource.spec.target.injection.config_map is not None:
            await keys.give(self._client, resource, action, target=target)
            return
        ref, namespace, name = resource.spec.target.ref, resource.metadata.namespace, target.name
        body = kind_of(ref).apply_body(
            name=name,
            uid=target.uid,
            container=action.container,
            variable=action.variable,
            value=action.value,
            is_init=_is_init(target, action.container),
        )
        kind, query = target_kind(ref), {"fieldManager": FIELD_MANAGER, "force": "true" if action.force else "false"}
        try:
            await self._patch(kind, kind.path(namespace, name), body, content_type=APPLY_PATCH, query=query)
        except (Conflict, NotFound):
            await self._look_again(kind, namespace, name)
        except Refused as refused:
            if "metadata.uid" not in refused.message:
                raise
            await self._look_again(kind, namespace, name)  # another object has the name by now
        if action.value is None:
            self._refuse_kept(resource, action)

    async def replace_pod(self, resource: ModelOptimization, action: ReplacePod) -> None:
        """Delete a pod of the target; raises Conflict when the resource has moved on."""
        await self._refuse_outdated(resource)
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": action.uid}}
        with suppress(NotFound, Conflict):  # gone, or replaced already
            path = PODS.path(resource.metadata.namespace, action.name)
            await self._client.call(Request("DELETE", path, body=body))

    def _refuse_kept(self, resource: ModelOptimization, action: InjectModel) -> None:
        """Raise Refused where the field that was given up has a value all the same."""
        ref = resource.spec.target.ref
        raw = self._cache.target(resource)
        container = kind_of(ref).parse(raw, variable=action.variable).container(action.container) if raw else None
        if container is not None and container.value is not None:
            who = container.manager or "another manager"
            text = f"{who} owns {action.variable} of {ref.kind} {ref.name}: it keeps its value {container.value}"
            raise Refused("FieldConflict", text)

    async def set_finalizer(self, resource: ModelOptimization, action: SetFinalizer) -> None:
        """Add or remove our finalizer, unless the resource has changed meanwhile (Conflict)."""
        meta = resource.metadata
        others = [name for name in meta.finalizers if name != FINALIZER]
        wanted = [*others, FINALIZER] if action.present else others
        if tuple(wanted) == meta.finalizers:
            return
        body = {"metadata": {"resourceVersion": meta.resource_version, "finalizers": wanted}}
        await self._patch(MODEL_OPTIMIZATIONS, MODEL_OPTIMIZATIONS.path(meta.namespace, meta.name), body)

    async def emit(self, resource: ModelOptimization, action: EmitEvent) -> None:
        """Post an Event; where that fails, nobody hears of the transition, but it takes place."""
        try:
            event = await self._post(EVENTS, resource.metadata.namespace, self._event(resource, action))
        except ApiError:
            return
        if self._tell is not None:
            self._tell(_notice(resource, action, event))

    def _event(self, resource: ModelOptimization, action: EmitEvent) -> Json:
        meta, moment = resource.metadata, datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta.name}.{time.time_ns():x}", "namespace": meta.namespace},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": "ModelOptimization",
                "name": meta.name,
                "namespace": meta.namespace,
                "uid": meta.uid,
                "resourceVersion": meta.resource_version,
            },
            "reason": action.reason,
            "message": action.message[:1024],
            "type": "Warning" if action.warning else "Normal",
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._instance,
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
        }

    async def _post(self, kind: Kind, namespace: str, manifest: Json) -> Json:
        return await self._client.call(Request("POST", kind.path(namespace), body=manifest))

    async def _patch(
        self, kind: Kind, path: str, body: Json, *, content_type: str = MERGE_PATCH, query: dict[str, str] | None = None
    ) -> None:
        request = Request("PATCH", path, query or {}, body, content_type)
        self._cache.put(kind, await self._client.call(request))

    async def _patch_child(
        self, kind: Kind, resource: ModelOptimization, name: str, body: Json, *, subresource: str | None = None
    ) -> None:
        """Patch a Job or run of ours, which the body must tell by UID or version.

        Raises Conflict when it is still ours and has changed; one that is gone or another's by now is left alone.
        """
        namespace = resource.metadata.namespace
        try:
            await self._patch(kind, kind.path(namespace, name, subresource=subresource), body)
        except NotFound:
            self._cache.forget(kind, namespace, name)
        except Conflict:
            if await self._is_still_ours(kind, resource, name):
                raise
        except Refused as refused:
            if "metadata.uid" not in refused.message or await self._is_still_ours(kind, resource, name):
                raise

    async def _is_still_ours(self, kind: Kind, resource: ModelOptimization, name: str) -> bool:
        await self._look_again(kind, resource.metadata.namespace, name)
        children = self._cache.jobs_of(resource) if kind is JOBS else self._cache.runs_of(resource)
        return name in children


def _notice(resource: ModelOptimization, action: EmitEvent, event: Json) -> Notice:
    meta = resource.metadata
    return Notice(
        id=event["metadata"]["uid"],
        namespace=meta.namespace,
        name=meta.name,
        reason=action.reason,
        message=event["message"],
        warning=action.warning,
        time=datetime.fromisoformat(event["firstTimestamp"]),
    )


def _is_init(target: Target, container: str) -> bool:
    """Whether a container of the target runs before the others."""
    known = target.container(container)
    return known is not None and known.is_init
