"""What a pass sees of a canary: its Deployment from memory, and its pods and what they answer while it is tried.

Nothing is read live for a resource without a canary, but who scales the target of one that is about to get its own.
"""

from retune.api.base import Json
from retune.api.execution import Strategy
from retune.api.objects import ModelOptimization
from retune.api.status import RolloutStep
from retune.cluster.cache import Cache
from retune.cluster.client import Client
from retune.cluster.errors import Refused
from retune.cluster.kinds import AUTOSCALERS, PODS
from retune.cluster.parse import owner, resource_name
from retune.plan import names
from retune.plan.observed import Canary, Heard, Pods, Traffic
from retune.signals.beside import BesideReader
from retune.targets import kind_of
from retune.workloads.canary import MADE_OF


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

    async def observe(self, resource: ModelOptimization, pods: Pods) -> Traffic:
        """Return the facts; `pods` are the target's, of its present value."""
        namespace, target = resource.metadata.namespace, resource.spec.target.ref.name
        raw = self._cache.deployment(namespace, names.canary(target))
        canary = _canary(resource, raw) if raw else None
        if raw is None or canary is None:
            return Traffic(autoscaler=await self._autoscaler(resource))
        seen, heard, beside = Pods(), None, None
        if resource.status.rollout is not None:
            seen = await self._pods(resource, raw, canary)
            heard, beside = await self._heard(resource, canary, seen, pods)
        return Traffic(canary, seen, heard, beside, autoscaler=await self._autoscaler(resource))

    async def _pods(self, resource: ModelOptimization, raw: Json, canary: Canary) -> Pods:
        wanted, kind = resource.spec.target, kind_of(resource.spec.target.ref)
        container = canary.workload.container(wanted.container)
        if container is None:
            return Pods()
        pages = self._client.pages(PODS, resource.metadata.namespace, selector=kind.pod_selector(raw))
        pods = [pod async for page in pages for pod in page["items"]]
        port = wanted.inference.port if wanted.inference else 0
        return kind.pods(raw, pods, container=container.name, variable=wanted.injection.name, port=port)

    async def _heard(
        self, resource: ModelOptimization, canary: Canary, seen: Pods, pods: Pods
    ) -> tuple[Heard | None, Heard | None]:
        """Read what the canary and the target have answered, while a weight is tried."""
        rollout = resource.status.rollout
        if rollout is None or rollout.step != RolloutStep.WEIGHT or rollout.rollback_reason is not None:
            return None, None
        mark = f"{canary.workload.uid}/{rollout.version}"
        return await self._beside.heard(resource, seen.serving, pods.serving, mark=mark)

    async def _autoscaler(self, resource: ModelOptimization) -> str | None:
        """Return who scales the target of a canary that is about to be made."""
        rollout, ref = resource.status.rollout, resource.spec.target.ref
        is_begun = rollout is not None and rollout.step == RolloutStep.CANARY_GIVE and rollout.rollback_reason is None
        if not is_begun or resource.spec.rollout.strategy is not Strategy.CANARY:
            return None
        try:
            pages = self._client.pages(AUTOSCALERS, resource.metadata.namespace)
            scalers = [scaler async for page in pages for scaler in page["items"]]
        except Refused:
            return None  # an administrator has taken this right away: nobody is warned
        named = (scaler for scaler in scalers if _scales(scaler, ref.kind, ref.name))
        return next((scaler["metadata"]["name"] for scaler in named), None)


def _canary(resource: ModelOptimization, raw: Json) -> Canary | None:
    """Return a Deployment of the canary's name, unless it is somebody else's."""
    whose, wanted = owner(raw), resource.spec.target
    is_left_behind = whose is None and resource_name(raw) == resource.metadata.name
    if whose != resource.metadata.uid and not is_left_behind:
        return None
    return Canary(
        workload=kind_of(wanted.ref).parse(raw, variable=wanted.injection.name),
        made_of=(raw["metadata"].get("annotations") or {}).get(MADE_OF),
        owned=whose is not None,
        leaving="deletionTimestamp" in raw["metadata"],
    )


def _scales(scaler: Json, kind: str, name: str) -> bool:
    scaled = scaler["spec"]["scaleTargetRef"]
    return (scaled.get("kind"), scaled.get("name")) == (kind, name)
