"""Plays the parts that a control plane without nodes lacks: Job controller, Deployment controller and kubelet.

Everything it does is a write to a real API server, as those parts would make it, so that what the operator sees and
what it may do are decided by that server. It is used where a test needs hundreds of whole passes in minutes.
"""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from retune.contract.exits import Exit
from retune.contract.paths import REQUEST_ANNOTATION
from retune.contract.requests import (
    InspectRequest,
    JobRequest,
    RenderRequest,
    SuggestRequest,
    SurveyRequest,
    parse_request,
)
from retune.contract.results import Failure, JobResult, encode_result
from tests.answers import answer
from tests.cluster.gateway import ROUTES, look_at
from tests.faults.background import Background
from tools.localcluster.api import Api, ApiError

Json = dict[str, Any]
_MERGE = "application/merge-patch+json"


def now() -> str:
    """Return this moment as the API writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


class Stagehand(Background):
    """Finishes every Job with an honest result and settles every Deployment until stopped.

    reply, written: what a Job answers, and how its image writes that down.
    namespace: where; in all namespaces when it is not given. routes: whether HTTPRoutes are looked at, as by a Gateway.
    deployments: whether Deployments are settled, for want of their controller.
    """

    pause = 0.05

    def __init__(
        self,
        api: Api,
        *,
        reply: Callable[[JobRequest], JobResult] = answer,
        written: Callable[[JobResult], bytes] = encode_result,
        namespace: str | None = None,
        routes: bool = False,
        deployments: bool = True,
    ) -> None:
        self.api = api
        self._reply, self._written = reply, written
        self._routes, self._deployments = routes, deployments
        self._within = f"/namespaces/{namespace}" if namespace else ""
        self.jobs_seen: dict[tuple[str, str], set[str]] = {}
        """UIDs that were seen under a namespace and Job name: more than one means that a Job was made twice."""
        self.values_seen: dict[str, list[str | None]] = {}
        """Values of MODEL_URI that the Deployment which a namespace's user made has had, in order."""
        super().__init__("stagehand")

    def play_once(self) -> None:
        """End Jobs, settle Deployments and look at routes."""
        for job in self.api.get(f"/apis/batch/v1{self._within}/jobs?fieldSelector=status.successful%3D0")["items"]:
            self.finish(job)
        path = f"/apis/apps/v1{self._within}/deployments"
        for deployment in self.api.get(path)["items"] if self._deployments else ():
            self.settle(deployment)
        for route in self.api.get(f"{ROUTES}{self._within}/httproutes")["items"] if self._routes else ():
            look_at(self.api, route)

    def finish(self, job: Json) -> None:
        """Let a Job that runs end with the answer to its request, which may be that it failed."""
        meta = job["metadata"]
        self.jobs_seen.setdefault((meta["namespace"], meta["name"]), set()).add(meta["uid"])
        if job["spec"].get("suspend") or job.get("status", {}).get("conditions") or "deletionTimestamp" in meta:
            return
        try:
            self._end(job, failed=self._run_pod(job))
        except ApiError as error:
            if error.status not in {404, 409}:
                raise

    def _run_pod(self, job: Json) -> bool:
        """Make the Job's pod and end it; returns whether it failed."""
        meta, template = job["metadata"], job["spec"]["template"]
        request = parse_request(template["metadata"]["annotations"][REQUEST_ANNOTATION])
        assert not isinstance(request, InspectRequest | SurveyRequest | RenderRequest | SuggestRequest), (
            "no Job in the cluster does that"
        )
        result = self._reply(request)
        failed, message = isinstance(result, Failure), self._written(result).decode()
        labels = template["metadata"]["labels"] | {"batch.kubernetes.io/controller-uid": meta["uid"]}
        name = f"{meta['name']}-pod"
        self._make_pod(name, meta["namespace"], labels, template["spec"], _reference("batch/v1", "Job", meta))
        code, reason, phase = (Exit.BAD_INPUT, "Error", "Failed") if failed else (Exit.DONE, "Completed", "Succeeded")
        ended = {"exitCode": int(code), "reason": reason, "message": message, "startedAt": now(), "finishedAt": now()}
        container = template["spec"]["containers"][0]["name"]
        self._pod_status(name, meta["namespace"], {"phase": phase, "containerStatuses": [_ended(container, ended)]})
        return failed

    def _end(self, job: Json, *, failed: bool) -> None:
        meta = job["metadata"]
        kinds = ("FailureTarget", "Failed") if failed else ("SuccessCriteriaMet", "Complete")
        conditions = [
            {
                "type": kind,
                "status": "True",
                "reason": "PodFailurePolicy" if failed else "CompletionsReached",
                "message": "done",
                "lastProbeTime": now(),
                "lastTransitionTime": now(),
            }
            for kind in kinds
        ]
        counts = {"failed": 1} if failed else {"completionTime": now(), "succeeded": 1}
        status = {"startTime": now(), "conditions": conditions} | counts
        if not failed and job["spec"].get("completionMode") == "Indexed":
            status["completedIndexes"] = "0"
        path = f"/apis/batch/v1/namespaces/{meta['namespace']}/jobs/{meta['name']}/status"
        self.api.request("PATCH", path, {"status": status}, kind=_MERGE)

    def settle(self, deployment: Json) -> None:
        """Let a Deployment have a pod of its newest template, and all pods that it wants available."""
        try:
            self._deployment(deployment)
        except ApiError as error:
            if error.status != 404:  # it was deleted meanwhile
                raise

    def _deployment(self, deployment: Json) -> None:
        meta, template = deployment["metadata"], deployment["spec"]["template"]
        if deployment.get("status", {}).get("observedGeneration") == meta["generation"]:
            return
        environment = {each["name"]: each.get("value") for each in template["spec"]["containers"][0].get("env", ())}
        if "ownerReferences" not in meta:
            self.values_seen.setdefault(meta["namespace"], []).append(environment.get("MODEL_URI"))
        mark = f"g{meta['generation']}"
        name = f"{meta['name']}-{mark}"
        labels = template["metadata"]["labels"] | {"pod-template-hash": mark}
        owner = _reference("apps/v1", "ReplicaSet", {"name": name, "uid": meta["uid"]})
        self._make_pod(name, meta["namespace"], labels, template["spec"], owner)
        ready = [{"type": "Ready", "status": "True", "lastTransitionTime": now()}]
        self._pod_status(name, meta["namespace"], {"phase": "Running", "podIP": "10.9.9.9", "conditions": ready})
        number = deployment["spec"].get("replicas", 1)
        counts = dict.fromkeys(("replicas", "updatedReplicas", "readyReplicas", "availableReplicas"), number)
        status = {"observedGeneration": meta["generation"]} | counts
        path = f"/apis/apps/v1/namespaces/{meta['namespace']}/deployments/{meta['name']}/status"
        self.api.request("PATCH", path, {"status": status}, kind=_MERGE)

    def _make_pod(self, name: str, namespace: str, labels: Json, spec: Json, owner: Json) -> None:
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels, "ownerReferences": [owner]},
            "spec": json.loads(json.dumps(spec)),
        }
        try:
            self.api.request("POST", f"/api/v1/namespaces/{namespace}/pods", body)
        except ApiError as error:
            if error.status != 409:
                raise

    def _pod_status(self, name: str, namespace: str, status: Json) -> None:
        path = f"/api/v1/namespaces/{namespace}/pods/{name}/status"
        self.api.request("PATCH", path, {"status": status}, kind=_MERGE)


def _reference(version: str, kind: str, meta: Json) -> Json:
    return {"apiVersion": version, "kind": kind, "name": meta["name"], "uid": meta["uid"], "controller": True}


def _ended(container: str, state: Json) -> Json:
    known = {"image": "x", "imageID": "x", "ready": False, "restartCount": 0}
    return known | {"name": container, "state": {"terminated": state}}
