"""A key of a ConfigMap as the field that names the model: agents in the target's pods follow it, and these run on.

The ConfigMap belongs to its user. It is never created or deleted, nor is the key. What agents tell is hostile input: it
decides when a rollout goes on or back, and never more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from retune.api.base import Json
from retune.api.target import ConfigMapKey
from retune.contract.results import Reason
from retune.plan.observed import Incident, Pods, Target
from retune.plan.told import Abort, Agent, Obstacle
from retune.targets.pod_template import owner_of

AGENT_FAULT: Final = "AgentFault"
_PASSING = frozenset({Reason.SERVER_UNREACHABLE, Reason.SOURCE_UNREACHABLE})
"""Faults that pass by themselves, as that of a server that still starts does: they are waited for."""
_OF_THE_VERSION = frozenset(
    {Reason.GOLDEN_MISMATCH, Reason.SERVER_REFUSED, Reason.MODEL_INVALID, Reason.MODEL_TOO_LARGE, Reason.BUNDLE_CORRUPT}
)
"""Faults that a version has wherever it is to serve. All others are those of a mount, of rights or of a network."""


def with_key(target: Target, found: Json | Obstacle | None, wanted: ConfigMapKey) -> Target:
    """Return the target with the key as its field; nothing of its pods is replaced at a promotion.

    Args:
        target: The workload whose pods follow the key.
        found: JSON of the ConfigMap; None where there is none, or why it cannot be looked at.
        wanted: The key.
    """
    obstacle = found if isinstance(found, Obstacle) else _obstacle(found, wanted)
    target = target.but(outage=None, obstacle=obstacle)
    if obstacle is not None or not isinstance(found, dict):
        return target.but(containers=())
    manager = owner_of(found["metadata"].get("managedFields") or (), ["f:data", f"f:{wanted.key}"])
    value = str(found["data"][wanted.key]).strip().rstrip("/") or None
    containers = (replace(known, value=value, indirect=False, manager=manager) for known in target.containers)
    return target.but(containers=tuple(containers), field_uid=found["metadata"]["uid"])


def _obstacle(found: Json | None, wanted: ConfigMapKey) -> Obstacle | None:
    """Return why the key cannot be owned."""
    name = f"ConfigMap {wanted.name}"
    if found is None:
        return Obstacle("ConfigMapNotFound", f"{name}, whose key its agents follow, does not exist: create it")
    if wanted.key not in (found.get("data") or {}):
        message = f"{name} has no key {wanted.key} below data: add it, empty or with the URI of a bundle"
        return Obstacle("ConfigMapKeyNotFound", message)
    if found.get("immutable"):
        message = f"{name} is immutable, so that no version can be given: make one without that field"
        return Obstacle("ConfigMapImmutable", message)
    return None


def forbidden(wanted: ConfigMapKey) -> Obstacle:
    """Return that the operator has no right to look at the ConfigMap."""
    message = f"this operator may not read ConfigMap {wanted.name}: name it in targets.configMaps of its chart"
    return Obstacle("ConfigMapForbidden", message)


def apply_body(wanted: ConfigMapKey, *, uid: str, value: str | None) -> Json:
    """Return the body of the server-side apply that owns exactly the key; it is emptied, but never given up.

    Args:
        wanted: The key.
        uid: UID of the ConfigMap, so that the server refuses when it was replaced or is gone.
        value: URI of a bundle.
    """
    metadata = {"name": wanted.name, "uid": uid}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {wanted.key: value or ""}}


def followed(target: Target, pods: Pods, agents: Mapping[str, Agent], *, value: str | None) -> tuple[Target, Pods]:
    """Return target and pods as the agents tell: what is given has arrived where an agent has proved it.

    Args:
        target: The workload as its controller last reported it.
        pods: Its pods.
        agents: What the agent of each ready pod tells, by the pod's endpoint.
        value: The key's value; None where it is empty.
    """
    late = [agent for agent in agents.values() if not _proves(agent, value)]
    proven = tuple(endpoint for endpoint in pods.endpoints if endpoint in agents and _proves(agents[endpoint], value))
    settled = target.settled and not late and len(proven) >= target.wanted
    progress = target.progress if settled or not target.settled else _in_words(len(proven), target.wanted, late, value)
    seen = replace(pods, endpoints=proven)
    return target.but(settled=settled, progress=progress, aborted=_given_up(late, value)), seen


def since(pods: Pods, start: datetime) -> Pods:
    """Return pods without what happened in them before a version was given: they have served others before it."""
    crash = pods.crash if pods.crash is not None and pods.crash.at >= start else None
    unready = pods.unready and Incident(pods.unready.message, max(pods.unready.at, start))
    return replace(pods, crash=crash, unready=unready)


def _proves(agent: Agent, value: str | None) -> bool:
    """Whether an agent says that its server serves the value's bundle, and has been asked its golden requests."""
    if not agent.ready or agent.wanted != value:
        return False
    return value is None or agent.served == f"sha256:{value.rpartition('/')[2]}"


def _given_up(late: Sequence[Agent], value: str | None) -> Abort | None:
    """Return that an agent cannot have its server serve the value, and that waiting does not help."""
    faults = [agent for agent in late if agent.wanted == value and agent.fault and agent.reason not in _PASSING]
    faults.sort(key=lambda agent: agent.reason not in _OF_THE_VERSION)
    if not faults:
        return None
    return Abort(_says(faults[0]), by_analysis=faults[0].reason in _OF_THE_VERSION, reason=AGENT_FAULT)


def _in_words(proven: int, wanted: int, late: Sequence[Agent], value: str | None) -> str:
    words = f"{proven} of {wanted} agents have proved it"
    return f"{words}; {_why(late[0], value)}" if late else words


def _why(agent: Agent, value: str | None) -> str:
    """Return why a pod does not serve a value yet."""
    if agent.silent is not None:
        return f"pod {agent.pod}: its agent cannot be asked: {agent.silent}"
    if agent.wanted != value:
        return f"pod {agent.pod}: its agent has not seen it yet, which takes a kubelet up to 90 s"
    return _says(agent) if agent.fault else f"pod {agent.pod}: its agent is giving it to the server"


def _says(agent: Agent) -> str:
    return f"pod {agent.pod}: its agent says: {agent.fault}"
