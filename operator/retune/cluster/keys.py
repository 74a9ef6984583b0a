"""The key of a ConfigMap that names the model: read live at each pass, and owned by server-side apply.

ConfigMaps are not watched: to be told of one, the operator would have to be told of all. So a change by others is
noticed at the next look, of which there is one a minute at least.
"""

from collections.abc import Sequence

from retune.api import FIELD_MANAGER
from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.target import ConfigMapKey
from retune.cluster.client import APPLY_PATCH, Client, Request
from retune.cluster.errors import Conflict, NotFound, Refused
from retune.cluster.kinds import CONFIG_MAPS
from retune.plan.actions import InjectModel
from retune.plan.observed import Pods, Target
from retune.plan.told import Obstacle
from retune.signals.agents import AgentReader, Asked
from retune.targets import config_map
from retune.targets.serving import endpoint

LOOK_SECONDS = 60.0
"""Longest time between two looks at a key."""


class KeyReader:
    """Looks at keys, and asks the agents that follow them.

    Args:
        client: Reads ConfigMaps.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._agents = AgentReader()

    async def found(self, resource: ModelOptimization) -> Json | Obstacle | None:
        """Return the ConfigMap of a resource, or why it cannot be looked at; None where there is none."""
        wanted = resource.spec.target.injection.config_map
        if wanted is None:
            return None
        try:
            return await self._client.get(CONFIG_MAPS, resource.metadata.namespace, wanted.name)
        except NotFound:
            return None
        except Refused:
            return config_map.forbidden(wanted)

    async def followed(
        self, resource: ModelOptimization, target: Target, pods: Pods, listed: Sequence[Json]
    ) -> tuple[Target, Pods]:
        """Return target and pods as their agents tell.

        Args:
            resource: A resource whose field is a key.
            target: Its target.
            pods: The target's pods.
            listed: JSON of pods, among which are those.
        """
        wanted, inference = resource.spec.target.injection.config_map, resource.spec.target.inference
        container = target.container(resource.spec.target.container)
        if wanted is None or container is None:
            return target, pods
        ready = _by_endpoint(listed, inference.port if inference else 0)
        asked = {url: Asked(*_agent(ready[url], wanted)) for url in pods.endpoints if url in ready}
        told = dict(zip(asked, await self._agents.told(tuple(asked.values())), strict=True))
        target, pods = config_map.followed(target, pods, told, value=container.value)
        rollout = resource.status.rollout
        return target, config_map.since(pods, rollout.start_time) if rollout else pods

    async def close(self) -> None:
        """Close connections."""
        await self._agents.close()


def _by_endpoint(listed: Sequence[Json], port: int) -> dict[str, Json]:
    """Return those pods that have an address, by the endpoint of their servers."""
    return {endpoint(pod, port): pod for pod in listed if pod.get("status", {}).get("podIP")}


def _agent(pod: Json, wanted: ConfigMapKey) -> tuple[str, str]:
    """Return the name of a pod and the base URL of its agent."""
    return str(pod["metadata"]["name"]), endpoint(pod, wanted.agent_port)


async def give(client: Client, resource: ModelOptimization, action: InjectModel, *, target: Target) -> None:
    """Own the key that was decided on; a ConfigMap that is gone or was replaced since is only looked at again.

    Raises Refused (FieldConflict) when another manager owns the key and it is not to be taken over.
    """
    wanted, uid = resource.spec.target.injection.config_map, target.field_uid
    if wanted is None or uid is None:
        return
    path = CONFIG_MAPS.path(resource.metadata.namespace, wanted.name)
    query = {"fieldManager": FIELD_MANAGER, "force": "true" if action.force else "false"}
    body = config_map.apply_body(wanted, uid=uid, value=action.value)
    try:
        await client.call(Request("PATCH", path, query, body, APPLY_PATCH))
    except (Conflict, NotFound):
        return
    except Refused as refused:
        if "metadata.uid" not in refused.message:
            raise
