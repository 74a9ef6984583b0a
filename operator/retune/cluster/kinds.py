"""The kinds Retune reads and writes, and their paths in the API: one table, so that no path is spelled twice."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retune.api import GROUP, VERSION
from retune.api.target import TargetRef
from retune.targets import TARGETS, TargetKind

MANAGED = "app.kubernetes.io/managed-by=retune"
"""Label selector of everything Retune creates."""


@dataclass(frozen=True)
class Kind:
    """One kind of the API."""

    group: str
    version: str
    plural: str
    name: str
    selector: str = ""
    """Label selector of the objects that are watched and listed; empty for all."""

    def path(self, namespace: str | None = None, name: str | None = None, *, subresource: str | None = None) -> str:
        """Return the path of one object, of a namespace's collection, or of the whole collection."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        scope = f"/namespaces/{namespace}" if namespace else ""
        tail = "".join(f"/{part}" for part in (name, subresource) if part)
        return f"{root}{scope}/{self.plural}{tail}"


MODEL_OPTIMIZATIONS = Kind(GROUP, VERSION, "modeloptimizations", "ModelOptimization")
OPTIMIZATION_RUNS = Kind(GROUP, VERSION, "optimizationruns", "OptimizationRun")
JOBS = Kind("batch", "v1", "jobs", "Job", MANAGED)
PODS = Kind("", "v1", "pods", "Pod", MANAGED)
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Kind("", "v1", "events", "Event")
CONFIG_MAPS = Kind("", "v1", "configmaps", "ConfigMap")
SERVICES = Kind("", "v1", "services", "Service")
AUTOSCALERS = Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
WORKLOADS = tuple(Kind("kueue.x-k8s.io", version, "workloads", "Workload") for version in ("v1beta2", "v1beta1"))
"""What Kueue keeps of a Job, in the versions of its API, the newest first."""
HTTP_ROUTES = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")


def _of_target(target: TargetKind) -> Kind:
    group, _, version = target.api_version.partition("/")
    return Kind(group, version, target.resource, target.kind)


_TARGETS: Mapping[tuple[str, str], Kind] = {ref: _of_target(target) for ref, target in TARGETS.items()}
TARGET_KINDS = tuple(_TARGETS.values())
DEPLOYMENTS = _TARGETS["apps/v1", "Deployment"]
ROLLOUTS = _TARGETS["argoproj.io/v1alpha1", "Rollout"]


def target_kind(ref: TargetRef) -> Kind:
    """Return the kind of the workload that `ref` names."""
    return _TARGETS[ref.api_version, ref.kind]


def watched(target_kinds: Iterable[str]) -> tuple[Kind, ...]:
    """Return the kinds kept in memory, in the order they are listed: what a decision needs comes before what asks.

    Args:
        target_kinds: Names of the kinds of targets that the operator is set up for.
    """
    targets = (kind for kind in TARGET_KINDS if kind.name in set(target_kinds))
    return (*targets, OPTIMIZATION_RUNS, PODS, JOBS, MODEL_OPTIMIZATIONS)
