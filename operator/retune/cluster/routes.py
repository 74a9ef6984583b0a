"""What a pass sees of the route that shares requests between a target and its canary, read live.

Nothing is read for a resource that shares requests in another way and has left nothing in a route. Whatever keeps a
canary from getting requests by it is told as a sentence: this is where a person finds out what to do.
"""

from dataclasses import replace

from retune.api.base import Json
from retune.api.objects import ModelOptimization
from retune.api.rolling import RolloutStep
from retune.api.rollout import CanaryRouteRef, CanaryTraffic, Rollout, Strategy
from retune.api.routed import RouteHeader
from retune.cluster.client import Client
from retune.cluster.errors import NotFound, Refused
from retune.cluster.kinds import DEPLOYMENTS, HTTP_ROUTES, SERVICES
from retune.cluster.parse import owner
from retune.plan import names
from retune.plan.observed import UNKNOWN, Refusal, Route, Verb
from retune.traffic import Pair
from retune.workloads.canary import selecting
from retune.workloads.rules import backends
from retune.workloads.testers import obstacle, places

IMPOSSIBLE = "CanaryImpossible"
_NEEDED = ("Accepted", "ResolvedRefs")
_HELP = "canary.httpRoutes of the chart does that"


class RouteReader:
    """Observes routes.

    Args:
        client: Reads routes, Services and targets.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def observe(self, resource: ModelOptimization) -> tuple[Route | None, str | None]:
        """Return the route, and the UID of the canary's own Service; None for what is not there or of no interest."""
        record, asked = resource.status.canary_route, _begun(resource)
        if record is None and (asked is None or asked.route is None):
            return None, None
        name = record.name if record else asked.route.name if asked and asked.route else ""
        route, raw = await self._route(resource, name)
        try:
            services = await self._services(resource.metadata.namespace)
        except Refused as refused:
            return replace(route, obstacle=_refusal(refused)), UNKNOWN if record else None
        if record is not None:
            route = replace(route, service=record.service)
            return _with_testers(resource, route, raw, record.testers), _own(resource, services)
        route = await self._with_service(resource, route, services, asked.route if asked else None)
        return _with_testers(resource, route, raw, asked.header if asked else None), _own(resource, services)

    async def _route(self, resource: ModelOptimization, name: str) -> tuple[Route, Json | None]:
        """Return the route, and its JSON where there is one."""
        namespace, spec = resource.metadata.namespace, resource.spec.rollout
        try:
            raw = await self._client.get(HTTP_ROUTES, namespace, name)
        except NotFound as error:
            return Route(name, gone=True, obstacle=_impossible(_missing(namespace, name, str(error), spec))), None
        except Refused as refused:
            return Route(name, obstacle=_refusal(refused)), None
        return route_of(raw), raw

    async def _services(self, namespace: str) -> list[Json]:
        return [service async for page in self._client.pages(SERVICES, namespace) for service in page["items"]]

    async def _with_service(
        self, resource: ModelOptimization, route: Route, services: list[Json], ref: CanaryRouteRef | None
    ) -> Route:
        """Return the route with the Service that stands for the target in it, or with why there is none."""
        namespace, target = resource.metadata.namespace, resource.spec.target.ref.name
        if route.obstacle or ref is None:
            return route
        try:
            raw = await self._client.get(DEPLOYMENTS, namespace, target)
        except NotFound:
            return replace(route, obstacle=_impossible(f"there is no Deployment {target}"))
        labels = (raw["spec"]["template"].get("metadata") or {}).get("labels") or {}
        fitting = [item["metadata"]["name"] for item in services if selecting([item], labels)]
        service = _chosen(route, fitting, ref.service)
        if service is not None:
            return replace(route, service=service)
        field = f"{resource.spec.rollout.trial_field}.traffic.route.service"
        return replace(route, obstacle=_impossible(_no_service(route, target, fitting, ref.service, field)))


def _begun(resource: ModelOptimization) -> CanaryTraffic | None:
    """Return how a trial asks for its requests that is about to begin."""
    spec, rollout = resource.spec.rollout, resource.status.rollout
    is_begun = rollout is not None and rollout.step == RolloutStep.CANARY_GIVE and rollout.rollback_reason is None
    return spec.trial.traffic if is_begun and spec.is_tried else None


def _with_testers(resource: ModelOptimization, route: Route, raw: Json | None, header: RouteHeader | None) -> Route:
    """Return the route with its rules for testers, or with why it can have none."""
    if raw is None or header is None or route.service is None:
        return route
    pair = Pair(route.service, names.canary_service(resource.spec.target.ref.name))
    return replace(route, testers=places(raw, header, pair), untestable=obstacle(raw, header, pair))


def _own(resource: ModelOptimization, services: list[Json]) -> str | None:
    """Return the UID of the Service of the canary's pods, unless one of its name is somebody else's."""
    name = names.canary_service(resource.spec.target.ref.name)
    own = (item for item in services if item["metadata"]["name"] == name and owner(item) == resource.metadata.uid)
    return next((item["metadata"]["uid"] for item in own), None)


def _chosen(route: Route, fitting: list[str], wanted: str | None) -> str | None:
    """Return the Service that stands for the target: as the spec says, or the one that a rule names."""
    if wanted is not None:
        return wanted if wanted in fitting else None
    named = {backend.name for rule in route.rules for backend in rule}
    possible = [name for name in fitting if name in named]
    return possible[0] if len(possible) == 1 else None


def _no_service(route: Route, target: str, fitting: list[str], wanted: str | None, field: str) -> str:
    if wanted is not None:
        return f"Service {wanted} does not select the pods of Deployment {target}: correct {field}"
    if not fitting:
        return f"no Service selects the pods of Deployment {target}: make one, and name it in HTTPRoute {route.name}"
    listed = ", ".join(sorted(fitting))
    if len(fitting) == 1:
        return f"HTTPRoute {route.name} names no Service of Deployment {target}: let a rule have {listed} as a backend"
    return (
        f"HTTPRoute {route.name} does not name exactly one Service of Deployment {target}, which has {listed}: say in "
        f"{field} which one stands for it"
    )


def route_of(raw: Json) -> Route:
    """Return a route, with why its Gateways do not take it if that is so."""
    meta = raw["metadata"]
    rules = tuple(backends(rule, namespace=meta["namespace"]) for rule in raw["spec"].get("rules") or ())
    conditions = _conditions(raw)
    why = _not_taken(meta["name"], conditions)
    return Route(
        name=meta["name"],
        version=meta["resourceVersion"],
        rules=rules,
        obstacle=_impossible(why) if why else None,
        looked_at=all(entry.get("observedGeneration", 0) >= meta.get("generation", 0) for _, entry in conditions),
    )


def _conditions(raw: Json) -> list[tuple[str, Json]]:
    """Return what is said of the route for each of its parents, with the parent's name; empty where nothing is said."""
    told, namespace = (raw.get("status") or {}).get("parents") or (), raw["metadata"]["namespace"]
    pairs: list[tuple[str, Json]] = []
    for parent in raw["spec"].get("parentRefs") or ():
        entries = [entry for entry in told if _place(entry["parentRef"], namespace) == _place(parent, namespace)]
        conditions = {item["type"]: item for entry in entries for item in entry.get("conditions") or ()}
        pairs += [(str(parent["name"]), conditions.get(kind, {"type": kind})) for kind in _NEEDED]
    return pairs


def _place(parent: Json, namespace: str) -> tuple[object, ...]:
    """Return what tells a parent from others."""
    return (parent.get("namespace") or namespace, *(parent.get(field) for field in ("name", "sectionName", "port")))


def _not_taken(name: str, conditions: list[tuple[str, Json]]) -> str | None:
    """Return why requests do not come by a route, as a sentence."""
    if not conditions:
        return f"HTTPRoute {name} has no parent: name its Gateway in spec.parentRefs"
    for parent, condition in conditions:
        if condition.get("status") != "True":
            said = condition.get("message") or condition.get("reason") or "it has said nothing of it yet"
            return f"HTTPRoute {name} is not {condition['type']} by its parent {parent}: {said}"
    return None


def _missing(namespace: str, name: str, message: str, spec: Rollout) -> str:
    if f'"{name}"' not in message:
        other = "spec.rollout.canary.traffic.kind to Replicas"
        other = other if spec.strategy is Strategy.CANARY else "spec.rollout.strategy to Canary"
        return "this cluster has no HTTPRoute of gateway.networking.k8s.io/v1: install the Gateway API, or set " + other
    return (
        f"there is no HTTPRoute {name} in namespace {namespace}: make one there, as those of other namespaces are not "
        f"changed, or correct {spec.trial_field}.traffic.route.name"
    )


def _impossible(message: str) -> Refusal:
    return Refusal(Verb.CANARY, IMPOSSIBLE, message)


def _refusal(refused: Refused) -> Refusal:
    text = f"{refused.message}; {_HELP}" if refused.reason == "Forbidden" else refused.message
    return Refusal(Verb.CANARY, refused.reason, text)
