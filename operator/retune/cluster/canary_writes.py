"""Writes of a canary's Deployment, each safe to repeat, and each only while the decision for it is the newest.

A Deployment of its name that belongs to something else is left alone, whatever it serves.
"""

from contextlib import suppress

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.cluster.cache import Cache
from retune.cluster.client import MERGE_PATCH, Client, Request
from retune.cluster.errors import AlreadyExists, Conflict, NotFound, Refused, Transient
from retune.cluster.kinds import DEPLOYMENTS, MODEL_OPTIMIZATIONS, SERVICES, Kind
from retune.cluster.parse import owner
from retune.plan import names
from retune.plan.actions import CreateCanary, RemoveCanary, ScaleCanary
from retune.plan.observed import Target
from retune.targets import DEPLOYMENT
from retune.workloads.canary import canary_manifest, impossibility


class CanaryWriter:
    """Carries out what a plan asks of a canary."""

    def __init__(self, client: Client, cache: Cache) -> None:
        self._client = client
        self._cache = cache

    async def create_canary(self, resource: ModelOptimization, action: CreateCanary, *, target: Target | None) -> None:
        """Create the canary of the target that was decided on.

        Raises Conflict when the resource has moved on, and Refused: CanaryImpossible, NameConflict, or the server's own
        reason. A target that has changed since is only looked at again.
        """
        raw = await self._unchanged(resource, action, target)
        if raw is None:
            return
        services = await self._services(resource.metadata.namespace)
        manifest = canary_manifest(action, resource=resource, target=raw, services=services)
        fault = impossibility(manifest, target=raw, services=services, overlaps=action.overlaps)
        if fault:
            raise Refused("CanaryImpossible", fault)
        await self._refuse_outdated(resource)
        self._cache.put(DEPLOYMENTS, await self._created(resource, manifest))

    async def _unchanged(self, resource: ModelOptimization, action: CreateCanary, target: Target | None) -> Json | None:
        """Return the target as it is, whole, or None where it is not the one that was decided on."""
        if target is None:
            return None
        namespace = resource.metadata.namespace
        try:
            raw = await self._client.get(DEPLOYMENTS, namespace, target.name)
        except NotFound:
            await self._refuse_outdated(resource)
            self._cache.forget(DEPLOYMENTS, namespace, target.name)
            return None
        self._cache.put(DEPLOYMENTS, raw)
        now = DEPLOYMENT.parse(raw, variable=action.variable)
        return raw if (now.uid, now.template) == (target.uid, action.template) else None

    async def _services(self, namespace: str) -> list[Json]:
        return [service async for page in self._client.pages(SERVICES, namespace) for service in page["items"]]

    async def _created(self, resource: ModelOptimization, manifest: Json) -> Json:
        namespace, name = resource.metadata.namespace, manifest["metadata"]["name"]
        try:
            return await self._client.call(Request("POST", DEPLOYMENTS.path(namespace), body=manifest))
        except AlreadyExists:
            raw = await self._existing(DEPLOYMENTS, namespace, name)
        if owner(raw) != resource.metadata.uid:
            self._cache.put(DEPLOYMENTS, raw)
            text = (
                f"Deployment {name} belongs to something else: delete it, or set spec.rollout.strategy to RollingUpdate"
            )
            raise Refused("NameConflict", text)
        return raw

    async def scale_canary(self, resource: ModelOptimization, action: ScaleCanary) -> None:
        """Have so many pods of that canary; one that is gone needs none. Raises Conflict as `create_canary`."""
        await self._refuse_outdated(resource)
        namespace, name = resource.metadata.namespace, names.canary(resource.spec.target.ref.name)
        body = {"metadata": {"uid": action.uid}, "spec": {"replicas": action.replicas}}
        try:
            request = Request("PATCH", DEPLOYMENTS.path(namespace, name), body=body, content_type=MERGE_PATCH)
            self._cache.put(DEPLOYMENTS, await self._client.call(request))
        except (Conflict, NotFound):
            await self._look_again(DEPLOYMENTS, namespace, name)
        except Refused as refused:
            if "metadata.uid" not in refused.message:
                raise
            await self._look_again(DEPLOYMENTS, namespace, name)  # another object has the name by now

    async def remove_canary(self, resource: ModelOptimization, action: RemoveCanary) -> None:
        """Delete that canary and its pods; raises Conflict when that depends on a resource that has moved on."""
        if action.routed:
            await self._refuse_outdated(resource)
        namespace, name = resource.metadata.namespace, names.canary(resource.spec.target.ref.name)
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
        body["preconditions"] = {"uid": action.uid}
        with suppress(NotFound, Conflict):  # gone, or replaced by another that is not to be deleted
            await self._client.call(Request("DELETE", DEPLOYMENTS.path(namespace, name), body=body))
        await self._look_again(DEPLOYMENTS, namespace, name)

    async def _refuse_outdated(self, resource: ModelOptimization) -> None:
        """Raise Conflict where the resource has changed since something was decided on what serves."""
        meta = resource.metadata
        raw = await self._client.get(MODEL_OPTIMIZATIONS, meta.namespace, meta.name)
        if raw["metadata"]["resourceVersion"] != meta.resource_version:
            raise Conflict(f"ModelOptimization {meta.namespace}/{meta.name} has changed since it was decided on")

    async def _existing(self, kind: Kind, namespace: str, name: str) -> Json:
        try:
            return await self._client.get(kind, namespace, name)
        except NotFound as error:
            raise Transient(f"{kind.name} {namespace}/{name} went away while it was looked at") from error

    async def _look_again(self, kind: Kind, namespace: str, name: str) -> None:
        try:
            self._cache.put(kind, await self._client.get(kind, namespace, name))
        except NotFound:
            self._cache.forget(kind, namespace, name)
