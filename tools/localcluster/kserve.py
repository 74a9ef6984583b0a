"""KServe for the local cluster and for tests: controller, CRDs and settings of the pinned release, in Standard mode.

Controller and charts come from one Go module, so that they fit each other. Nothing is pulled from an image registry,
and cert-manager is not needed: the webhooks' certificate is of the cluster's own making.
"""

from __future__ import annotations

import base64
import json
from typing import Any

import yaml

from tools.localcluster import binaries, certs, images, packages
from tools.localcluster.settings import REGISTRY, Settings
from tools.localcluster.shell import ClusterError, run, say

Json = dict[str, Any]
NAMESPACE = "kserve"
IMAGE = f"{REGISTRY}/kserve-controller:dev"
NEEDED = ("defaulter", "pod-mutator")
"""The webhooks without which KServe does not do its work: the others only refuse."""
_MODULE = "github.com/kserve/kserve"
_MANAGER, _SERVICE = "kserve-controller-manager", "kserve-webhook-server-service"
_CERTIFICATE = "kserve-webhook-server-cert"
_RIGHTS = ("ServiceAccount", "ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding")


def ensure(settings: Settings) -> str:
    """Build the controller, load its image and install KServe in the running cluster; returns the image's name."""
    packages.ensure(settings)
    if not settings.containerd_socket.exists():
        raise ClusterError("the cluster does not run, so KServe cannot be installed; start it with `up`")
    program = binaries.ensure(settings, (binaries.KSERVE,))["manager"]
    images.load(settings, IMAGE, images.of_program(settings, IMAGE, "kserve-controller", program.parent))
    say(f"installing KServe into namespace {NAMESPACE}: about 30 s")
    _apply(settings, *crds(settings))
    _kubectl(settings, "wait", "--for=condition=Established", "--timeout=60s", *_names(crds(settings)))
    _apply(settings, *in_the_cluster(settings))
    _kubectl(settings, "--namespace", NAMESPACE, "rollout", "status", f"deployment/{_MANAGER}", "--timeout=3m")
    _apply(settings, webhooks(settings, _authority(settings)))
    return IMAGE


def crds(settings: Settings) -> list[Json]:
    """Return the CustomResourceDefinitions."""
    return _rendered(settings, "kserve-crd")


def configuration(settings: Settings) -> list[Json]:
    """Return the namespace, the settings without an ingress, and how KServe fetches models."""
    chart = {document["kind"]: document for document in _resources(settings)}
    config = chart["ConfigMap"]
    ingress = json.loads(config["data"]["ingress"]) | {"disableIngressCreation": True}
    config["data"]["ingress"] = json.dumps(ingress)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
    return [namespace, config, chart["ClusterStorageContainer"]]


def in_the_cluster(settings: Settings) -> list[Json]:
    """Return all that the controller needs to run as a pod, without its webhooks' configuration."""
    chart = _resources(settings)
    (manager,) = [document for document in chart if document["kind"] == "Deployment"]
    services = [document for document in chart if document["metadata"]["name"] == _SERVICE]
    rights = [document for document in chart if document["kind"] in _RIGHTS]
    return [*configuration(settings), *rights, *services, _certificate(settings), _alone(manager)]


def webhooks(settings: Settings, authority: bytes, *, url: str | None = None) -> Json:
    """Return the configuration of the webhooks that are needed.

    Args:
        settings: Where the module lies.
        authority: Certificate of whoever signed the webhooks', as PEM.
        url: Where a controller outside the cluster listens; None for the Service.
    """
    kind = "MutatingWebhookConfiguration"
    (found,) = [document for document in _resources(settings) if document["kind"] == kind]
    bundle = base64.b64encode(authority).decode()
    for hook in found["webhooks"]:
        asked = hook["clientConfig"]
        where = {"url": f"{url}{asked['service']['path']}"} if url else {"service": asked["service"]}
        hook["clientConfig"] = where | {"caBundle": bundle}
    kept = [hook for hook in found["webhooks"] if hook["name"].endswith(NEEDED)]
    return found | {"metadata": {"name": found["metadata"]["name"]}, "webhooks": kept}


def _alone(manager: Json) -> Json:
    """Return the controller's Deployment with the image that was built, and without the proxy of its metrics."""
    pod = manager["spec"]["template"]["spec"]
    (container,) = [container for container in pod["containers"] if container["name"] == "manager"]
    container |= {"image": IMAGE, "imagePullPolicy": "IfNotPresent", "resources": {"requests": {"cpu": "50m"}}}
    container["readinessProbe"] |= {"initialDelaySeconds": 1, "periodSeconds": 2}
    pod["containers"] = [container]
    return manager


def _certificate(settings: Settings) -> Json:
    """Return the Secret with the webhooks' certificate, which stays the same from one installation to the next."""
    folder = settings.state / "kserve-pki"
    host = f"{_SERVICE}.{NAMESPACE}.svc"
    certs.ensure(folder, [certs.Identity("server", host, names=(f"DNS:{host}",))])
    data = {
        f"tls.{name}": base64.b64encode((folder / f"server.{name}").read_bytes()).decode() for name in ("crt", "key")
    }
    meta = {"name": _CERTIFICATE, "namespace": NAMESPACE}
    return {"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": meta, "data": data}


def _authority(settings: Settings) -> bytes:
    return (settings.state / "kserve-pki" / "ca.crt").read_bytes()


def _resources(settings: Settings) -> list[Json]:
    return _rendered(settings, "kserve-resources", "--set", "kserve.controller.deploymentMode=Standard")


def _rendered(settings: Settings, name: str, *values: str) -> list[Json]:
    """Return the documents of one of the release's charts."""
    chart = binaries.source_folder(settings, binaries.KSERVE, _MODULE) / "charts" / name
    helm = binaries.ensure(settings, ["helm"])["helm"]
    rendered = run([helm, "template", binaries.KSERVE, chart, "--namespace", NAMESPACE, *values])
    return [document for document in yaml.safe_load_all(rendered) if document]


def _names(documents: list[Json]) -> list[str]:
    return [f"customresourcedefinition/{document['metadata']['name']}" for document in documents]


def _apply(settings: Settings, *documents: Json) -> None:
    _kubectl(
        settings, "apply", "--server-side", "--force-conflicts", "--filename", "-", stdin=yaml.safe_dump_all(documents)
    )


def _kubectl(settings: Settings, *words: str, stdin: str | None = None) -> None:
    program = binaries.ensure(settings)["kubectl"]
    run([program, f"--kubeconfig={settings.kubeconfig}", *words], stdin=stdin)
