"""The kinds Retune reads and writes, and their paths in the API: one table, so that no path is spelled twice."""

from dataclasses import dataclass

from retune.api import GROUP, VERSION

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
DEPLOYMENTS = Kind("apps", "v1", "deployments", "Deployment")
LEASES = Kind("coordination.k8s.io", "v1", "leases", "Lease")
EVENTS = Kind("", "v1", "events", "Event")
SERVICES = Kind("", "v1", "services", "Service")
AUTOSCALERS = Kind("autoscaling", "v2", "horizontalpodautoscalers", "HorizontalPodAutoscaler")
HTTP_ROUTES = Kind("gateway.networking.k8s.io", "v1", "httproutes", "HTTPRoute")

WATCHED = (DEPLOYMENTS, OPTIMIZATION_RUNS, PODS, JOBS, MODEL_OPTIMIZATIONS)
"""Kinds kept in memory, in the order they are listed: what a decision needs comes before what asks for it."""
