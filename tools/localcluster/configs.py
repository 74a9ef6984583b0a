"""Configuration files of the components, rendered into the state folder.

Each file is written only when its text changes, because a changed file restarts its component.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from tools.localcluster import certs
from tools.localcluster.settings import (
    CLUSTER_DOMAIN,
    CNI_NETWORK,
    DNS_SERVICE_IP,
    NODE_IP,
    NODE_NAME,
    PAUSE_IMAGE,
    POD_CIDR,
    PORTS,
    Settings,
)
from tools.localcluster.shell import write_if_changed

RESOLV_CONF = Path("/etc/resolv.conf")
CLIENTS = ("controller-manager", "scheduler", "kubelet", "kube-proxy", "coredns", "provisioner", "kube-router")


def write_all(settings: Settings) -> None:
    """Write every file that differs from what is there."""
    folder = settings.config
    write_if_changed(folder / "containerd.toml", containerd(settings))
    write_if_changed(folder / "cni" / "10-retune.conflist", cni(settings))
    write_if_changed(folder / "kubelet.yaml", yaml.safe_dump(kubelet(settings)))
    write_if_changed(folder / "kube-proxy.yaml", yaml.safe_dump(kube_proxy(settings)))
    write_if_changed(folder / "Corefile", corefile(settings))
    for client in CLIENTS:
        write_if_changed(kubeconfig_of(settings, client), certs.kubeconfig(settings.pki, client, settings.server))
    write_if_changed(settings.kubeconfig, certs.kubeconfig(settings.pki, certs.ADMIN.file, settings.server))


def kubeconfig_of(settings: Settings, client: str) -> Path:
    """Where a component's kubeconfig lies."""
    return settings.config / f"{client}.kubeconfig"


def containerd(settings: Settings) -> str:
    """Containerd of our own: folders and socket apart, no /opt, and no wish for a lower OOM score than root may set."""
    return f"""
version = 2
root = "{settings.state}/containerd"
state = "{settings.run}/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.internal.v1.restart"]
[grpc]
  address = "{settings.containerd_socket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  restrict_oom_score_adj = true
  tolerate_missing_hugetlb_controller = true
  netns_mounts_under_state_dir = true
  stream_server_address = "127.0.0.1"
  stream_server_port = "0"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{settings.config}/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    snapshotter = "overlayfs"
    default_runtime_name = "runc"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
    BinaryName = "/usr/sbin/runc"
    Root = "{settings.run}/runc"
    SystemdCgroup = false
""".lstrip()


def cni(settings: Settings) -> str:
    """Pods are routed point to point, not bridged: then Services work without the kernel's bridge filter."""
    addresses = {
        "type": "host-local",
        "ranges": [[{"subnet": POD_CIDR}]],
        "routes": [{"dst": "0.0.0.0/0"}],
        "dataDir": f"{settings.run}/addresses",
    }
    plugin = {"type": "ptp", "ipMasq": False, "ipam": addresses}
    return json.dumps({"cniVersion": "0.4.0", "name": CNI_NETWORK, "plugins": [plugin]}, indent=2)


def kubelet(settings: Settings) -> dict[str, Any]:
    """The kubelet: v1 control groups allowed, images never collected (they cannot be pulled again), late eviction."""
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": NODE_IP,
        "port": PORTS.kubelet,
        "healthzBindAddress": "127.0.0.1",
        "healthzPort": PORTS.kubelet_health,
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": f"{settings.pki}/ca.crt"},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": f"{settings.pki}/kubelet-server.crt",
        "tlsPrivateKeyFile": f"{settings.pki}/kubelet-server.key",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": f"/{settings.ident}",
        "failCgroupV1": False,
        "failSwapOn": False,
        "makeIPTablesUtilChains": False,
        "clusterDNS": [DNS_SERVICE_IP],
        "clusterDomain": CLUSTER_DOMAIN,
        "resolvConf": str(RESOLV_CONF),
        "containerRuntimeEndpoint": f"unix://{settings.containerd_socket}",
        "podLogsDir": f"{settings.state}/pod-logs",
        "volumePluginDir": f"{settings.state}/volume-plugins",
        "evictionHard": {"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "imageGCHighThresholdPercent": 100,
        "nodeStatusUpdateFrequency": "5s",
    }


def kube_proxy(settings: Settings) -> dict[str, Any]:
    """kube-proxy by nftables; the machine's own connection tracking limits stay as they are."""
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "nftables",
        "clusterCIDR": POD_CIDR,
        "hostnameOverride": NODE_NAME,
        "bindAddress": NODE_IP,
        "healthzBindAddress": f"127.0.0.1:{PORTS.proxy_health}",
        "metricsBindAddress": f"127.0.0.1:{PORTS.proxy_metrics}",
        "clientConnection": {"kubeconfig": str(kubeconfig_of(settings, "kube-proxy"))},
        "conntrack": {"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }


def corefile(settings: Settings) -> str:
    """Cluster DNS on the node's address; other names go to the machine's own resolvers, if it has any."""
    forward = f"forward . {RESOLV_CONF}" if has_resolver() else ""
    return f"""
.:{PORTS.dns} {{
    bind {NODE_IP}
    errors
    ready 127.0.0.1:{PORTS.dns_ready}
    kubernetes {CLUSTER_DOMAIN} in-addr.arpa ip6.arpa {{
        kubeconfig {kubeconfig_of(settings, "coredns")}
        pods insecure
        fallthrough in-addr.arpa ip6.arpa
        ttl 5
    }}
    {forward}
    cache 5
    loadbalance
}}
""".lstrip()


def has_resolver() -> bool:
    """Whether the machine names a resolver."""
    return RESOLV_CONF.exists() and "nameserver" in RESOLV_CONF.read_text()
