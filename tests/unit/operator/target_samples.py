"""One workload of every kind of target, at rest, and pods of it, as their controllers write them."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Json = dict[str, Any]
VARIABLE, VALUE, BEFORE = "MODEL_URI", "pvc://a/bundles/2", "pvc://a/bundles/1"
"""The owned variable, what it names, and what it named before."""
TEMPLATE: Json = {
    "metadata": {"labels": {"app": "digits"}},
    "spec": {
        "nodeSelector": {"class": "edge"},
        "tolerations": [{"key": "edge", "operator": "Exists"}],
        "containers": [
            {
                "name": "server",
                "image": "server:1",
                "env": [{"name": "OTHER", "value": "x"}, {"name": VARIABLE, "value": VALUE}],
                "resources": {"limits": {"cpu": "1500m"}, "requests": {"cpu": "100m"}},
            },
            {"name": "sidecar", "image": "sidecar:1"},
        ],
    },
}
SELECTOR: Json = {"matchLabels": {"app": "digits"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}
COUNTS = {"replicas": 2, "updatedReplicas": 2, "availableReplicas": 2}


def workload(api_version: str, kind: str, *, spec: Json, status: Json) -> Json:
    """A workload of two pods with that template."""
    return {
        "apiVersion": api_version,
        "kind": kind,
        "metadata": {"name": "digits", "namespace": "ml", "uid": "d-1", "generation": 4},
        "spec": {"replicas": 2, "selector": SELECTOR, "template": copy.deepcopy(TEMPLATE)} | spec,
        "status": {"observedGeneration": 4} | COUNTS | status,
    }


def pod(name: str, owner: tuple[str, str], *, value: str | None, ready: bool, labels: Json, **meta: Any) -> Json:
    """A pod that runs; `owner` is kind and name of who made it."""
    env = [] if value is None else [{"name": VARIABLE, "value": value}]
    return {
        "metadata": {
            "name": name,
            "uid": f"uid-of-{name}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "digits"} | labels,
            "ownerReferences": [{"kind": owner[0], "name": owner[1]}],
        }
        | meta,
        "spec": {"containers": [{"name": "server", "env": env}, {"name": "sidecar"}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }


def _of_deployment(name: str, *, value: str | None = VALUE, ready: bool = True, owner: str = "digits") -> Json:
    mark = "old" if value == BEFORE else "new"
    labels = {"pod-template-hash": mark}
    return pod(name, ("ReplicaSet", f"{owner}-{mark}"), value=value, ready=ready, labels=labels)


def _of_stateful_set(name: str, *, value: str | None = VALUE, ready: bool = True, owner: str = "digits") -> Json:
    labels = {"controller-revision-hash": f"{owner}-{value == BEFORE}"}
    return pod(name, ("StatefulSet", owner), value=value, ready=ready, labels=labels)


def _of_rollout(name: str, *, value: str | None = VALUE, ready: bool = True, owner: str = "digits") -> Json:
    mark = "old" if value == BEFORE else "new"
    labels = {"rollouts-pod-template-hash": mark}
    return pod(name, ("ReplicaSet", f"{owner}-{mark}"), value=value, ready=ready, labels=labels)


SOURCE = "internal.serving.kserve.io/storage-initializer-sourceuri"
KSERVE_CONTAINER = "kserve-container"


def _of_inference_service(name: str, *, value: str | None = VALUE, ready: bool = True, owner: str = "digits") -> Json:
    mark = "old" if value == BEFORE else "new"
    made_by, labels = ("ReplicaSet", f"{owner}-predictor-{mark}"), {"pod-template-hash": mark}
    made = pod(name, made_by, value=None, ready=ready, labels=labels, annotations={SOURCE: value})
    made["spec"]["containers"] = [{"name": KSERVE_CONTAINER}]
    return made


def _made_by_kserve() -> Json:
    made = workload("apps/v1", "Deployment", spec={}, status={})
    made["metadata"]["name"] = "digits-predictor"
    template = made["spec"]["template"]
    template["metadata"]["annotations"] = {SOURCE: VALUE, "serving.kserve.io/deploymentMode": "Standard"}
    template["spec"]["containers"] = [{"name": KSERVE_CONTAINER, "resources": {"limits": {"cpu": "1"}}}]
    return made


def _inference_service() -> Json:
    model = {"modelFormat": {"name": "retune"}, "name": "", "resources": {}, "storageUri": VALUE}
    return {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": "digits", "namespace": "ml", "uid": "d-1", "generation": 4},
        "spec": {"predictor": {"minReplicas": 2, "model": model}},
        "status": {"observedGeneration": 3, "deploymentMode": "Standard"},
        "beside": {"digits-predictor": _made_by_kserve()},
    }


def _generation(raw: Json) -> None:
    raw["metadata"]["generation"] += 1


def _storage_uri(raw: Json) -> None:
    raw["spec"]["predictor"]["model"]["storageUri"] = "pvc://a/bundles/3"


@dataclass(frozen=True)
class Sample:
    """A kind's workload, and how a pod of it looks."""

    raw: Json
    pod: Callable[..., Json]
    """By name; with value, ready, and the name of the workload that made it."""
    container: str = "server"
    change: Callable[[Json], None] = _generation
    """Changes the workload as others or Retune would, before its controller has seen it."""


SAMPLES: dict[tuple[str, str], Sample] = {
    ("apps/v1", "Deployment"): Sample(workload("apps/v1", "Deployment", spec={}, status={}), _of_deployment),
    ("apps/v1", "StatefulSet"): Sample(
        workload(
            "apps/v1",
            "StatefulSet",
            spec={"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}}},
            status={"currentRevision": "digits-5d4", "updateRevision": "digits-5d4", "currentReplicas": 2},
        ),
        _of_stateful_set,
    ),
    ("argoproj.io/v1alpha1", "Rollout"): Sample(
        workload(
            "argoproj.io/v1alpha1",
            "Rollout",
            spec={
                "strategy": {
                    "canary": {
                        "steps": [{"setWeight": 25}, {"pause": {}}, {"setWeight": 50}, {"pause": {"duration": "1h"}}]
                    }
                }
            },
            status={
                "observedGeneration": "4",
                "phase": "Healthy",
                "currentPodHash": "new",
                "stableRS": "new",
                "currentStepIndex": 4,
            },
        ),
        _of_rollout,
    ),
    ("serving.kserve.io/v1beta1", "InferenceService"): Sample(
        _inference_service(), _of_inference_service, container=KSERVE_CONTAINER, change=_storage_uri
    ),
}
