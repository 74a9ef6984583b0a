"""What the cluster holds from the start: the DNS Service, the default StorageClass, and rights of our own daemons."""

from __future__ import annotations

from tools.localcluster.api import Api, Document
from tools.localcluster.settings import (
    DNS_SERVICE_IP,
    NODE_IP,
    PORTS,
    PROVISIONER,
    STORAGE_CLASS,
)

RBAC = "/apis/rbac.authorization.k8s.io/v1"
KUBE_SYSTEM = "/api/v1/namespaces/kube-system"
READ = ["get", "list", "watch"]


def apply(api: Api) -> None:
    """Apply every object; nothing is written when nothing differs."""
    for path, document in objects():
        api.apply(f"{path}/{document['metadata']['name']}", document)


def objects() -> list[tuple[str, Document]]:
    """Every object with the path of its collection."""
    return [
        (f"{KUBE_SYSTEM}/services", dns_service()),
        ("/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices", dns_endpoints()),
        ("/apis/storage.k8s.io/v1/storageclasses", storage_class()),
        *role("retune-coredns", dns_rules()),
        *role("retune-provisioner", provisioner_rules()),
        *role("retune-kube-router", policies_rules()),
        binding("retune-apiserver-kubelet", role_name="system:kubelet-api-admin"),
    ]


def dns_service() -> Document:
    """The usual DNS Service; it has no selector since CoreDNS is a process of the host."""
    ports = [{"name": f"dns-{kind.lower()}", "port": 53, "protocol": kind} for kind in ("UDP", "TCP")]
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "kube-dns", "labels": {"k8s-app": "kube-dns"}},
        "spec": {"clusterIP": DNS_SERVICE_IP, "ports": ports},
    }


def dns_endpoints() -> Document:
    """Where CoreDNS listens."""
    ports = [{"name": f"dns-{kind.lower()}", "port": PORTS.dns, "protocol": kind} for kind in ("UDP", "TCP")]
    labels = {
        "kubernetes.io/service-name": "kube-dns",
        "endpointslice.kubernetes.io/managed-by": "retune-localcluster",
    }
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "kube-dns-host", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [{"addresses": [NODE_IP], "conditions": {"ready": True}}],
        "ports": ports,
    }


def storage_class() -> Document:
    """The default StorageClass, named as in kind."""
    return {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": PROVISIONER,
        "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate",
    }


def dns_rules() -> list[Document]:
    """What CoreDNS reads."""
    return [
        {"apiGroups": [""], "resources": ["endpoints", "services", "pods", "namespaces"], "verbs": READ},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
    ]


def provisioner_rules() -> list[Document]:
    """What the storage provisioner reads and writes."""
    return [
        {"apiGroups": [""], "resources": ["persistentvolumeclaims"], "verbs": READ},
        {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": [*READ, "create", "delete"]},
    ]


def policies_rules() -> list[Document]:
    """What the enforcer of network policies reads."""
    return [
        {"apiGroups": [""], "resources": ["pods", "namespaces", "nodes", "services", "endpoints"], "verbs": READ},
        {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": READ},
        {"apiGroups": ["networking.k8s.io"], "resources": ["networkpolicies"], "verbs": READ},
    ]


def role(user: str, rules: list[Document]) -> list[tuple[str, Document]]:
    """A ClusterRole for one user, and its binding."""
    document = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": user},
        "rules": rules,
    }
    return [(f"{RBAC}/clusterroles", document), binding(user, role_name=user)]


def binding(user: str, *, role_name: str) -> tuple[str, Document]:
    """A ClusterRoleBinding of a user to a ClusterRole."""
    group = "rbac.authorization.k8s.io"
    document = {
        "apiVersion": f"{group}/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": user},
        "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": role_name},
        "subjects": [{"apiGroup": group, "kind": "User", "name": user}],
    }
    return f"{RBAC}/clusterrolebindings", document
