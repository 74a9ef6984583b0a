"""Envoy Gateway on the local cluster, installed by its own chart, and one Gateway whose proxy listens inside."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.e2e import kube
from tools import kubectl
from tools.localcluster import gateway
from tools.localcluster.settings import load

Json = dict[str, Any]
SYSTEM, NAME, CLASS = "envoy-gateway-system", "gate", "envoy"
_CONTROLLER = "gateway.envoyproxy.io/gatewayclass-controller"


@dataclass(frozen=True)
class Gateway:
    """A Gateway that is ready."""

    name: str
    address: str
    """Where requests are sent from within the cluster."""


def install(folder: Path, *, namespace: str) -> Gateway:
    """Install controller and CRDs, and wait until a Gateway in the namespace is programmed; safe to repeat."""
    settings = load()
    gateway_api, own = gateway.crds(settings)
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-k", str(gateway_api))
    kube.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(own))
    kube.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    values = folder / "own.yaml"
    values.write_text(yaml.safe_dump(_values()), encoding="utf-8")
    words = ["upgrade", "--install", "eg", str(gateway.chart(settings, folder)), "--values", str(values)]
    words += ["--namespace", SYSTEM, "--create-namespace", "--wait", "--timeout", "5m"]
    kubectl.run([kubectl.find_program("helm"), *words])
    kube.apply(*_objects(namespace))
    kube.kubectl("wait", f"gateway/{NAME}", "-n", namespace, "--for=condition=Programmed", "--timeout=3m")
    found = kube.get("gateway", NAME, namespace=namespace)
    return Gateway(NAME, str(found["status"]["addresses"][0]["value"]))


def _values() -> Json:
    manager = {"shutdownManager": {"image": gateway.CONTROLLER_IMAGE}}
    return {
        "crds": {"enabled": False},
        "topologyInjector": {"enabled": False},
        "config": {"envoyGateway": {"provider": {"type": "Kubernetes", "kubernetes": manager}}},
    }


def _objects(namespace: str) -> tuple[Json, Json, Json]:
    """Return proxy, class and Gateway: one small proxy of the loaded image, with an address inside the cluster."""
    container = {"image": gateway.PROXY_IMAGE, "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}}}
    kubernetes = {"envoyDeployment": {"replicas": 1, "container": container}, "envoyService": {"type": "ClusterIP"}}
    proxy = {
        "apiVersion": "gateway.envoyproxy.io/v1alpha1",
        "kind": "EnvoyProxy",
        "metadata": {"name": CLASS, "namespace": SYSTEM},
        "spec": {
            "provider": {"type": "Kubernetes", "kubernetes": kubernetes},
            "shutdown": {"drainTimeout": "5s"},
        },
    }
    reference = {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": CLASS, "namespace": SYSTEM}
    kind = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "GatewayClass",
        "metadata": {"name": CLASS},
        "spec": {"controllerName": _CONTROLLER, "parametersRef": reference},
    }
    listener = {"name": "http", "port": 80, "protocol": "HTTP"}
    gate = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "Gateway",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {"gatewayClassName": CLASS, "listeners": [listener]},
    }
    return proxy, kind, gate
