"""The one list of ways to share requests."""

from retune.api.rollout import CanaryTraffic
from retune.traffic.base import TrafficKind
from retune.traffic.http_route import HTTPRoute
from retune.traffic.replicas import Replicas

TRAFFIC: dict[str, TrafficKind] = {kind.name: kind for kind in (Replicas(), HTTPRoute())}


def kind_of(traffic: CanaryTraffic) -> TrafficKind:
    """Return how requests are shared; the CRD admits only kinds in this list."""
    return TRAFFIC[traffic.kind]
