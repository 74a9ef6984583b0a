"""The Writer on a real API server keeps every case of the suite that the planner's world keeps too."""

from dataclasses import replace
from typing import Any

import pytest

from retune.api.objects import ModelOptimization
from retune.api.status import ModelOptimizationStatus
from retune.cluster.errors import Conflict
from retune.plan.actions import Action, ReplacePod
from retune.plan.observed import Observed
from retune.workloads import lease_name
from tests.cluster.gateway import ROUTES, http_route
from tests.cluster.harness import Bench
from tests.conformance.scene import (
    CANARY,
    EVENTS,
    JOB,
    JOBS,
    LATE_POD,
    LEASES,
    PODS,
    RESOURCE,
    ROUTE,
    RUN,
    RUNS,
    SERVICE,
    STABLE,
    TARGET,
    TARGET_UID,
    as_seen,
    attempt,
    outcome,
)
from tests.conformance.writer import WriterConformance
from tools.localcluster.api import ApiError

Json = dict[str, Any]
APIS = {
    TARGET: "/apis/apps/v1",
    JOBS: "/apis/batch/v1",
    PODS: "/api/v1",
    EVENTS: "/api/v1",
    LEASES: "/apis/coordination.k8s.io/v1",
    RESOURCE: "/apis/retune.dev/v1alpha1",
    RUNS: "/apis/retune.dev/v1alpha1",
    SERVICE: "/api/v1",
    ROUTE: ROUTES,
}
PLURALS = {CANARY: TARGET, SERVICE: "services"}
"""Of what the cases call otherwise."""
NAMES = {
    JOBS: JOB,
    PODS: LATE_POD,
    RUNS: RUN,
    LEASES: lease_name(TARGET_UID),
    RESOURCE: "digits",
    TARGET: "digits-server",
    CANARY: "digits-server-canary",
    SERVICE: "digits-server-canary",
    ROUTE: "digits",
}
POD = {"restartPolicy": "Never", "containers": [{"name": "c", "image": "x:test"}]}
NOW = "2026-11-25T12:00:00Z"


class RealScene:
    """A namespace on the API server, and the parts of an operator without its watches."""

    def __init__(self, bench: Bench) -> None:
        bench.deploy()
        bench.serve()
        backends = [{"name": name, "port": 80, "weight": 1} for name in (STABLE, "other")]
        bench.create(ROUTE, http_route("digits", backends), api=ROUTES)
        pod = {"metadata": {"name": LATE_POD}, "spec": POD}
        self._late_pod = bench.create(PODS, pod, api=APIS[PODS])["metadata"]["uid"]
        self._bench = bench
        self._key = bench.declare(execution={})
        self._operator = bench.operator()

    async def carry_out(self, action: Action) -> str:
        """Carry an action out as the reconciler does, which reads a resource anew that has moved on."""
        observed = await self.remember()
        action = as_seen(action, observed)
        if isinstance(action, ReplacePod):
            action = replace(action, uid=self._late_pod)
        told = await outcome(self._operator.reconciler._verbs(observed)[type(action)](action))
        if told == Conflict.__name__:
            await self._operator.reader.refresh(self._bench.namespace, NAMES[RESOURCE])
        return told

    async def write_status(self, status: ModelOptimizationStatus) -> str:
        """Write the resource's status."""
        return await outcome(self._operator.writer.status(self._resource(), status))

    async def look(self) -> Observed:
        """List everything."""
        await self._operator.resync.once()
        return await self.remember()

    async def remember(self) -> Observed:
        """Observe from memory."""
        return await self._operator.reader.observe(self._resource())

    def _resource(self) -> ModelOptimization:
        resource = self._operator.cache.resource(self._key)
        assert resource is not None
        return resource

    async def restart(self) -> None:
        """Begin anew with an empty memory."""
        self._operator = self._bench.operator()
        await self._operator.resync.once()

    def _path(self, plural: str, name: str | None = None, subresource: str = "") -> str:
        name, api = name or NAMES[plural], APIS[TARGET if plural == CANARY else plural]
        return self._bench.path(PLURALS.get(plural, plural), name, api=api) + subresource

    def _stored(self, plural: str) -> Json | None:
        try:
            return self._bench.api.get(self._path(plural))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def version(self, plural: str) -> str | None:
        """Return UID and resourceVersion."""
        stored = self._stored(plural)
        return f"{stored['metadata']['uid']} {stored['metadata']['resourceVersion']}" if stored else None

    def events(self) -> list[tuple[str, str, str]]:
        """List the events about the resource."""
        items = self._bench.items(EVENTS, api=APIS[EVENTS])
        subject = {"kind": "ModelOptimization", "name": NAMES[RESOURCE]}  # a Service of that name has events of its own
        about = [each for each in items if subject.items() <= each["involvedObject"].items()]
        assert {each["reportingComponent"] for each in about} <= {"retune"}
        return [(each["type"], each["reason"], each["message"]) for each in about]

    def finalizers(self) -> tuple[str, ...]:
        """Read the resource's metadata."""
        return tuple(self._bench.resource()["metadata"].get("finalizers", ()))

    def edit(self, **spec: Any) -> None:
        """Patch the spec."""
        self._bench.patch(self._path(RESOURCE), {"spec": spec})

    def add_finalizer(self, name: str) -> None:
        """Patch the list."""
        self._bench.patch(self._path(RESOURCE), {"metadata": {"finalizers": [*self.finalizers(), name]}})

    def delete(self, plural: str) -> None:
        """Delete; what it owns stays, since no garbage collector runs here."""
        self._bench.api.request("DELETE", self._path(plural) + "?propagationPolicy=Background")

    def take_name(self, plural: str) -> None:
        """Make an object that looks like ours and belongs to a resource of the same name that is gone."""
        if self._stored(plural):
            self.delete(plural)
        owner = {"apiVersion": "retune.dev/v1alpha1", "kind": "ModelOptimization", "name": "digits", "uid": "gone"}
        labels = {"app.kubernetes.io/managed-by": "retune", "retune.dev/resource": "digits"}
        if plural == SERVICE:
            meta = {"name": NAMES[SERVICE], "labels": labels, "ownerReferences": [owner | {"controller": True}]}
            self._bench.create("services", {"metadata": meta, "spec": {"ports": [{"port": 80}]}}, api=APIS[SERVICE])
            return
        if plural == CANARY:
            self._bench.deploy(NAMES[CANARY], ownerReferences=[owner | {"controller": True}], labels=labels)
            return
        meta = {"name": NAMES[plural], "labels": labels, "ownerReferences": [owner | {"controller": True}]}
        spec = {"template": {"spec": POD}} if plural == JOBS else attempt().to_dict()
        kind = {JOBS: "Job", RUNS: "OptimizationRun"}[plural]
        body = {"apiVersion": APIS[plural].removeprefix("/apis/"), "kind": kind, "metadata": meta, "spec": spec}
        self._bench.create(plural, body, api=APIS[plural])

    def leave_behind(self, plural: str) -> None:
        """Do what the garbage collector does, which does not run here."""
        self._bench.patch(self._path(plural), {"metadata": {"ownerReferences": None}})

    def finish_job(self) -> None:
        """Say in the status what a Job controller would."""
        conditions = [
            {"type": kind, "status": "True", "lastProbeTime": NOW, "lastTransitionTime": NOW}
            for kind in ("SuccessCriteriaMet", "Complete")
        ]
        status = {"startTime": NOW, "completionTime": NOW, "succeeded": 1, "conditions": conditions}
        self._bench.patch(self._path(JOBS, subresource="/status"), {"status": status})

    def edit_route(self) -> None:
        """Patch its list of rules."""
        path = self._path(ROUTE)
        rules = self._bench.api.get(path)["spec"]["rules"]
        self._bench.patch(path, {"spec": {"rules": [*rules, {"backendRefs": [{"name": "other", "port": 80}]}]}})

    def edit_template(self) -> None:
        """Patch an annotation of its pods."""
        template = {"metadata": {"annotations": {"example.com/edited": "yes"}}}
        self._bench.patch(self._path(TARGET), {"spec": {"template": template}})

    def set_field(self, value: str) -> None:
        """Apply the Deployment's manifest with the field in it."""
        self._bench.deploy(value=value)

    def replace_target(self) -> None:
        """Delete the Deployment and apply it again."""
        self.delete(TARGET)
        self._bench.deploy()

    def hold_lease_for_another(self) -> None:
        """Declare another resource, and make the Lease as it would."""
        self._bench.declare("other")
        uid = self._bench.resource("other")["metadata"]["uid"]
        owner = {"apiVersion": "retune.dev/v1alpha1", "kind": "ModelOptimization", "name": "other", "uid": uid}
        meta = {"name": NAMES[LEASES], "ownerReferences": [owner | {"controller": True}]}
        self._bench.create(LEASES, {"metadata": meta, "spec": {"holderIdentity": "other"}}, api=APIS[LEASES])

    def remove_other_resource(self) -> None:
        """Delete it."""
        self._bench.api.request("DELETE", self._path(RESOURCE, "other"))

    def forbid_jobs_by_quota(self) -> None:
        """Make a ResourceQuota whose status says that it is counted."""
        hard = {"count/jobs.batch": "0"}
        self._bench.create("resourcequotas", {"metadata": {"name": "none"}, "spec": {"hard": hard}}, api="/api/v1")
        path = self._bench.path("resourcequotas", "none", api="/api/v1")
        self._bench.patch(f"{path}/status", {"status": {"hard": hard, "used": {"count/jobs.batch": "0"}}})

    def end_namespace(self) -> None:
        """Delete the namespace, which no controller empties here."""
        self._bench.api.request("DELETE", f"/api/v1/namespaces/{self._bench.namespace}")


class TestWriter(WriterConformance):
    """The suite on the real Writer."""

    @pytest.fixture
    async def scene(self, bench: Bench, routes: None) -> RealScene:
        """A namespace of its own with a route, and memory filled once."""
        scene = RealScene(bench)
        await scene.look()
        return scene
