"""Writes that let a route share requests with a canary: its Service, and the backends of rules that others own.

A route is changed only as it was when that was decided, and by a patch that says so to the API server: where others
were faster, nothing is written, and the next decision looks at what they did.
"""

from contextlib import suppress

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.cluster.canary_writes import CanaryWriter
from retune.cluster.client import JSON_PATCH, Request
from retune.cluster.errors import AlreadyExists, Conflict, NotFound, Refused
from retune.cluster.kinds import HTTP_ROUTES, SERVICES
from retune.cluster.parse import owner
from retune.plan import names
from retune.plan.actions import CreateCanaryService, RemoveCanaryService, ShareRoute
from retune.workloads.routes import service_manifest, share_patch


class RouteWriter(CanaryWriter):
    """Carries out what a plan asks of a route and of the Service that it sends a canary's requests to."""

    async def create_canary_service(self, resource: ModelOptimization, action: CreateCanaryService) -> None:
        """Create the Service of the canary's pods.

        Raises Conflict when the resource has moved on, and Refused: CanaryImpossible, NameConflict, or the server's own
        reason.
        """
        await self._refuse_outdated(resource)
        namespace = resource.metadata.namespace
        stable = await self._service(namespace, action.service)
        if stable is None:
            raise Refused("CanaryImpossible", f"there is no Service {action.service} in namespace {namespace}")
        manifest = service_manifest(resource, stable)
        try:
            await self._client.call(Request("POST", SERVICES.path(namespace), body=manifest))
        except AlreadyExists:
            await self._refuse_foreign(resource, manifest["metadata"]["name"])

    async def _service(self, namespace: str, name: str) -> Json | None:
        services = await self._services(namespace)
        return next((service for service in services if service["metadata"]["name"] == name), None)

    async def _refuse_foreign(self, resource: ModelOptimization, name: str) -> None:
        raw = await self._service(resource.metadata.namespace, name)
        if raw is not None and owner(raw) != resource.metadata.uid:
            text = f"Service {name} belongs to something else: delete it, or set spec.rollout.strategy to RollingUpdate"
            raise Refused("NameConflict", text)

    async def remove_canary_service(self, resource: ModelOptimization, action: RemoveCanaryService) -> None:
        """Delete that Service of the canary's pods; one that is gone, or replaced by another, is not."""
        namespace, name = resource.metadata.namespace, names.canary_service(resource.spec.target.ref.name)
        body: Json = {"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": action.uid}}
        with suppress(NotFound, Conflict):
            await self._client.call(Request("DELETE", SERVICES.path(namespace, name), body=body))

    async def share_route(self, resource: ModelOptimization, action: ShareRoute) -> None:
        """Give rules of a route their backends, where it is still of the version that was decided on.

        Raises Conflict when the resource has moved on, and Refused with the server's own reason.
        """
        await self._refuse_outdated(resource)
        namespace = resource.metadata.namespace
        raw = await self._route_of(namespace, action)
        if raw is None:
            return
        patch = share_patch(raw, action, canary=names.canary_service(resource.spec.target.ref.name))
        path = HTTP_ROUTES.path(namespace, action.route)
        try:
            await self._client.call(Request("PATCH", path, content_type=JSON_PATCH, operations=patch))
        except NotFound:
            return
        except Refused as refused:
            if refused.reason != "Invalid" or await self._route_of(namespace, action) is not None:
                raise  # a test of the patch that fails is answered like this too: then the route has changed

    async def _route_of(self, namespace: str, action: ShareRoute) -> Json | None:
        """Return the route that was decided on, or None where it is another by now."""
        with suppress(NotFound):
            raw = await self._client.get(HTTP_ROUTES, namespace, action.route)
            return raw if raw["metadata"]["resourceVersion"] == action.version else None
        return None
