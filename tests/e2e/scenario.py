"""The objects that end-to-end tests are made of: a target that serves a model, and a resource that optimizes it."""

import copy
import json
from pathlib import Path
from typing import Any

from tests.e2e.kube import CONTAINER_SECURITY, POD_SECURITY, SERVER

Json = dict[str, Any]
NAMESPACE = "retune-e2e"
DATA = "e2e-data"
STORE = "retune-artifacts"
MODELS = f"pvc://{DATA}/models"
SETS = f"pvc://{DATA}/data"


def resource(name: str, *, deployment: str | None = None, **spec: Any) -> Json:
    """Return a ModelOptimization of the seeded model and a small search, with these fields of its spec changed."""
    base: Json = {
        "model": {"uri": f"{MODELS}/good.onnx"},
        "data": {
            "training": {"uri": f"{SETS}/train.npz"},
            "validation": {"uri": f"{SETS}/validation.npz"},
            "test": {"uri": f"{SETS}/test.npz"},
        },
        "objectives": [
            {"metric": "accuracy", "role": "Constrain", "goal": {"type": "MaxDegradation", "value": "0.05"}},
            {"metric": "size_bytes", "tolerance": "0.05"},
        ],
        "search": {"maxTrials": 4},
        "target": {"ref": {"name": deployment or name}},
        "rollout": {"bakeTime": "5s", "progressDeadline": "90s"},
        "execution": {"resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}},
    }
    for field, value in copy.deepcopy(spec).items():
        base[field] = base[field] | value if isinstance(value, dict) and field in base else value
    return {
        "apiVersion": "retune.dev/v1alpha1",
        "kind": "ModelOptimization",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": base,
    }


def data(**sets: str) -> Json:
    """Return spec.data with some of its files replaced."""
    base = {"training": "train.npz", "validation": "validation.npz", "test": "test.npz"} | sets
    return {name: {"uri": f"{SETS}/{file}"} for name, file in base.items()}


def idle_target(name: str, *, containers: tuple[str, ...] = ("server",)) -> Json:
    """Return a Deployment scaled to zero: enough to be a target where nothing goes live."""
    return _deployment(name, [{"name": each, "image": SERVER} for each in containers], replicas=0, volumes=[])


def server(
    name: str, *, model: str, claims: tuple[str, ...] = (DATA, STORE), code: Path | None = None
) -> tuple[Json, Json]:
    """Return a Deployment of one model server that was given `model`, with these claims mounted, and its settings.

    `code` is a module with a class `Model` that serves in place of the example's.
    """
    settings = {
        "name": "model",
        "implementation": f"{code.stem}.Model" if code else "retune_model.BundleModel",
        "parameters": {"uri": f"{MODELS}/{model}"},
    }
    source: Json = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "data": {"model-settings.json": json.dumps(settings)},
    }
    if code:
        source["data"][code.name] = code.read_text(encoding="utf-8")
    mounts = [{"name": each, "mountPath": f"/mnt/pvc/{each}", "readOnly": True} for each in claims]
    files = [{"name": "settings", "mountPath": f"/app/server/{file}", "subPath": file} for file in source["data"]]
    container = {
        "name": "server",
        "image": SERVER,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"containerPort": 8080}],
        "resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}},
        "readinessProbe": {"httpGet": {"path": "/v2/models/model/ready", "port": 8080}, "periodSeconds": 1},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}, *files, *mounts],
        "securityContext": CONTAINER_SECURITY,
    }
    volumes = [{"name": each, "persistentVolumeClaim": {"claimName": each}} for each in claims]
    more = [{"name": "tmp", "emptyDir": {}}, {"name": "settings", "configMap": {"name": name}}]
    return source, _deployment(name, [container], replicas=1, volumes=[*more, *volumes])


def _deployment(name: str, containers: list[Json], *, replicas: int, volumes: list[Json]) -> Json:
    labels = {"app": name}
    pod = {
        "automountServiceAccountToken": False,
        "securityContext": POD_SECURITY,
        "containers": containers,
        "volumes": volumes,
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "replicas": replicas,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}},
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
