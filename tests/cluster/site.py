"""A place where a model serves: it is backed up, loses things and gets them back, as in a disaster.

The API server is real. Jobs are answered, and pods settle, as the controllers that do not run here would have it.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from retune.contract.paths import REQUEST_ANNOTATION
from retune.contract.requests import JobRequest, parse_request
from retune.contract.results import JobResult, encode_result
from retune.runtime import Operator
from tests.answers import answer
from tests.cluster.harness import MERGE, RESOURCES, Bench, Clock, env_of, settle
from tests.faults.stagehand import Stagehand

Json = dict[str, Any]
APPS, BATCH, CORE = "/apis/apps/v1", "/apis/batch/v1", "/api/v1"
COORDINATION = "/apis/coordination.k8s.io/v1"
KINDS = {
    "ModelOptimization": ("modeloptimizations", RESOURCES),
    "OptimizationRun": ("optimizationruns", RESOURCES),
    "Deployment": ("deployments", APPS),
    "Job": ("jobs", BATCH),
    "Pod": ("pods", CORE),
    "Lease": ("leases", COORDINATION),
}
_OF_THE_SERVER = ("uid", "resourceVersion", "generation", "creationTimestamp", "managedFields", "ownerReferences")
_MOST_PASSES = 40


@dataclass
class Site:
    """A namespace with the resource `digits` and its target. reply, written: what Jobs answer, and how.

    pods_settle: whether new pods become available.
    """

    bench: Bench
    clock: Clock = field(default_factory=Clock)
    reply: Callable[[JobRequest], JobResult] = answer
    written: Callable[[JobResult], bytes] = encode_result
    pods_settle: bool = True

    @property
    def key(self) -> str:
        """The resource's key."""
        return f"{self.bench.namespace}/digits"

    def deliver(self, **spec: Any) -> None:
        """Apply the manifests of a target and of a resource, as on the first day."""
        self.bench.deploy(replicas=1)
        self.declare(**spec)

    def declare(self, **spec: Any) -> None:
        """Apply the resource's manifest."""
        self.bench.declare(**({"execution": {}, "rollout": {"bakeTime": "0s"}} | spec))

    def operator(self) -> Operator:
        """A new process at this site's clock."""
        return self.clock.drive(self.bench.operator())

    async def play(self, operator: Operator | None = None) -> None:
        """Take passes, end Jobs and settle pods until nothing is left to do; no status names what does not serve."""
        operator, passes = operator or self.operator(), 1
        while await self.step(operator):
            passes += 1
            assert passes < _MOST_PASSES, "the operator does not come to rest"

    async def play_until(self, field: str) -> None:
        """Play as `play` does, with an operator of its own, until the status has a field such as `run`."""
        operator, passes = self.operator(), 0
        while field not in self.status:
            await self.step(operator)
            passes += 1
            assert passes < _MOST_PASSES, f"the operator does not come to status.{field}"

    async def step(self, operator: Operator) -> bool:
        """End Jobs, settle pods and take one pass; returns whether it changed anything."""
        self.finish_jobs()
        self._settle_pods()
        changed, _ = await settle(operator, self.key)
        self.assert_truthful()
        return changed

    def finish_jobs(self) -> None:
        """End every Job that runs."""
        for job in self.bench.jobs:
            Stagehand(self.bench.api, reply=self.reply, written=self.written).finish(job)

    def _settle_pods(self) -> None:
        """Say in the Deployment's status what its controller would when every pod is the newest and available."""
        targets = self.bench.items("deployments", api=APPS) if self.pods_settle else []
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), 1)
        for target in targets:
            path = self.bench.path("deployments", target["metadata"]["name"], api=APPS)
            status = counts | {"observedGeneration": target["metadata"]["generation"]}
            self.bench.patch(f"{path}/status", {"status": status})

    def assert_truthful(self) -> None:
        """Hold the status against the target: a champion that is said to serve is what the target names."""
        champion, ready = self.status.get("champion"), self.reason("Ready")
        if champion is None or ready != ("True", "ChampionServing"):
            return
        assert self.value == champion.get("injectedValue")
        if self.value and "/bundles/" in self.value:
            assert champion["digest"] == f"sha256:{self.value.rpartition('/')[2]}"

    @property
    def status(self) -> Json:
        """The resource's status as the server holds it."""
        found: Json = self.bench.resource().get("status", {})
        return found

    @property
    def champion(self) -> tuple[int, str]:
        """Version and digest of the champion."""
        return self.status["champion"]["version"], self.status["champion"]["digest"]

    @property
    def value(self) -> str | None:
        """What the target's variable names."""
        return next((entry.get("value") for entry in env_of(self.bench) if entry["name"] == "MODEL_URI"), None)

    @property
    def jobs(self) -> set[str]:
        """Names of the Jobs that there are."""
        return {job["metadata"]["name"] for job in self.bench.jobs}

    def job(self, part: str) -> Json:
        """The one Job with this in its name."""
        (found,) = (job for job in self.bench.jobs if part in job["metadata"]["name"])
        return found

    def reason(self, kind: str) -> tuple[str, str] | None:
        """Status and reason of a condition; None where the resource has none of that type."""
        conditions = self.status.get("conditions", [])
        return next(((each["status"], each["reason"]) for each in conditions if each["type"] == kind), None)

    def edit(self, **spec: Any) -> None:
        """Change the resource's spec."""
        self.bench.patch(self.bench.path("modeloptimizations", "digits"), {"spec": spec})

    def write_status(self, status: Json) -> None:
        """Put a status in the place of the present one, as a restore in place does."""
        path = self.bench.path("modeloptimizations", "digits")
        raw = self.bench.api.get(path) | {"status": status}
        self.bench.api.request("PUT", f"{path}/status", raw)

    def backup(self, *kinds: str) -> list[Json]:
        """Everything of these kinds, as `kubectl get --output json` writes it."""
        names = ",".join(KINDS[kind][0] for kind in kinds)
        text = self.bench.plane.kubectl("get", names, "--namespace", self.bench.namespace, "--output", "json")
        found: list[Json] = json.loads(text)["items"]
        return found

    def restore(self, objects: list[Json], *, status: bool) -> None:
        """Create objects of a backup under new UIDs; with their status by a second write, or without it."""
        for saved in objects:
            plural, api = KINDS[saved["kind"]]
            kept = {name: value for name, value in saved["metadata"].items() if name not in _OF_THE_SERVER}
            metadata = kept | {"namespace": self.bench.namespace}
            body = {name: value for name, value in saved.items() if name != "status"} | {"metadata": metadata}
            self.bench.create(plural, body, api=api)
            if status and "status" in saved:
                path = self.bench.path(plural, metadata["name"], api=api)
                self.bench.api.request("PATCH", f"{path}/status", {"status": saved["status"]}, kind=MERGE)

    def lose(self, *kinds: str) -> None:
        """Delete everything of these kinds."""
        for kind in kinds:
            plural, api = KINDS[kind]
            for found in self.bench.items(plural, api=api):
                path = self.bench.path(plural, found["metadata"]["name"], api=api)
                now = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Background"}
                self.bench.api.request("DELETE", path, now | {"gracePeriodSeconds": 0})


async def promoted(bench: Bench, **spec: Any) -> Site:
    """A site whose first run brought version 2, which serves."""
    site = Site(bench)
    site.deliver(**spec)
    await site.play()
    assert site.reason("RolledOut") == ("True", "Promoted")
    assert site.status["champion"]["version"] == 2
    return site


def request_of(job: Json) -> Any:
    """What a Job is asked."""
    return parse_request(job["spec"]["template"]["metadata"]["annotations"][REQUEST_ANNOTATION])


def seals_of(job: Json) -> dict[str, str]:
    """The keys that a Job seals its records by."""
    variables = job["spec"]["template"]["spec"]["containers"][0]["env"]
    return {entry["name"]: entry["value"] for entry in variables if "SEAL" in entry["name"]}
