"""What a pass sees of a canary: its Deployment from memory, and its pods and what they answer while it is tried.

Nothing is read live for a resource without a canary, but who scales the target of one that is about to get its own.
"""

from dataclasses import replace

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.rolling import RolloutStep
from retune.cluster.cache import Cache
from retune.cluster.client import Client
from retune.cluster.errors import Refused
from retune.cluster.kinds import AUTOSCALERS, PODS, SERVICES
from retune.cluster.parse import owner, resource_name
from retune.cluster.routes import RouteReader
from retune.plan import names
from retune.plan.observed import Canary, Pods, Traffic
from retune.signals.beside import BesideReader
from retune.targets import DEPLOYMENT
from retune.workloads.canary import MADE_OF, REACHED_BY, selecting


class TrafficReader:
    """Observes who gets requests besides the target's pods.

    Args:
        client: Reads pods and autoscalers.
        cache: What is known of Deployments.
        beside: Asks pods what they have answered.
    """

    def __init__(self, client: Client, cache: Cache, beside: BesideReader) -> None:
        self._client = client
        self._cache = cache
        self._beside = beside
        self._routes = RouteReader(client)

    async def observe(self, resource: ModelOptimization, pods: Pods) -> Traffic:
        """Return the facts; `pods` are the target's, of its present value."""
        route, service = await self._routes.observe(resource)
        return replace(await self._canary(resource, pods), route=route, service=service)

    async def _canary(self, resource: ModelOptimization, pods: Pods) -> Traffic:
        """Return what there is of a canary's own."""
        namespace, target = resource.metadata.namespace, resource.spec.target.ref.name
        raw = self._cache.deployment(namespace, names.canary(target))
        canary = _canary(resource, raw) if raw else None
        if raw is None or canary is None:
            return Traffic(autoscaler=await self._autoscaler(resource))
        if resource.status.rollout is None:
            return Traffic(canary)
        listed = await self._pods(resource, raw)
        seen = _seen(resource, raw, canary, listed)
        if not _is_weighed(resource):
            return Traffic(canary, seen, autoscaler=await self._autoscaler(resource))
        answered = await self._beside.heard(resource, seen.serving, pods.serving, mark=_mark(resource, canary))
        return Traffic(
            canary,
            seen,
            await self._is_unserved(resource, listed),
            heard=answered.heard,
            held=answered.held,
            beside=answered.beside,
            usual_seconds=answered.usual_seconds,
        )

    async def _pods(self, resource: ModelOptimization, raw: Json) -> list[Json]:
        selector = DEPLOYMENT.pod_selector(raw)
        pages = self._client.pages(PODS, resource.metadata.namespace, selector=selector)
        return [pod async for page in pages for pod in page["items"]]

    async def _is_unserved(self, resource: ModelOptimization, pods: list[Json]) -> bool:
        """Return whether there are pods of the canary and no Service selects them any more."""
        try:
            pages = self._client.pages(SERVICES, resource.metadata.namespace)
            services = [service async for page in pages for service in page["items"]]
        except Refused:
            return False  # an administrator has taken this right away: one did when the canary was made
        return bool(pods) and not any(selecting(services, pod["metadata"].get("labels") or {}) for pod in pods)

    async def _autoscaler(self, resource: ModelOptimization) -> str | None:
        """Return who scales the target of a canary that is about to be made."""
        rollout, ref = resource.status.rollout, resource.spec.target.ref
        is_begun = rollout is not None and rollout.step == RolloutStep.CANARY_GIVE and rollout.rollback_reason is None
        if not is_begun or not resource.spec.rollout.is_tried:
            return None
        try:
            pages = self._client.pages(AUTOSCALERS, resource.metadata.namespace)
            scalers = [scaler async for page in pages for scaler in page["items"]]
        except Refused:
            return None  # an administrator has taken this right away: nobody is warned
        named = (scaler for scaler in scalers if _scales(scaler, ref.kind, ref.name))
        return next((scaler["metadata"]["name"] for scaler in named), None)


def _seen(resource: ModelOptimization, raw: Json, canary: Canary, pods: list[Json]) -> Pods:
    """Return how the canary's pods are."""
    wanted = resource.spec.target
    container = canary.workload.container(wanted.container)
    if container is None:
        return Pods()
    port = wanted.inference.port if wanted.inference else 0
    variable = wanted.injection.field
    return DEPLOYMENT.pods(raw, pods, container=container.name, variable=variable, port=port)


def _is_weighed(resource: ModelOptimization) -> bool:
    """Return whether a weight of the canary is tried."""
    rollout = resource.status.rollout
    return rollout is not None and rollout.step == RolloutStep.WEIGHT and rollout.rollback_reason is None


def _mark(resource: ModelOptimization, canary: Canary) -> str:
    """Return what tells a weight from every other one, and the time before its pods were ready from that after it."""
    rollout = resource.status.rollout
    weight = (rollout.version, rollout.weight_index, rollout.weight_start_time) if rollout else ()
    return "/".join(str(part) for part in (canary.workload.uid, *weight))


def _canary(resource: ModelOptimization, raw: Json) -> Canary | None:
    """Return a Deployment of the canary's name, unless it is somebody else's."""
    whose, wanted = owner(raw), resource.spec.target
    is_left_behind = whose is None and resource_name(raw) == resource.metadata.name
    if whose != resource.metadata.uid and not is_left_behind:
        return None
    annotations = raw["metadata"].get("annotations") or {}
    return Canary(
        workload=DEPLOYMENT.parse(raw, variable=wanted.injection.field),
        made_of=annotations.get(MADE_OF),
        owned=whose is not None,
        leaving="deletionTimestamp" in raw["metadata"],
        service=annotations.get(REACHED_BY),
    )


def _scales(scaler: Json, kind: str, name: str) -> bool:
    scaled = scaler["spec"]["scaleTargetRef"]
    return (scaled.get("kind"), scaled.get("name")) == (kind, name)
