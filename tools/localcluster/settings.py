"""Where the local cluster lives: folders, addresses, ports and names, decided once from the environment.

Everything is the cluster's own (folders, sockets, ports, bridge, cgroup), so that it can run beside a machine's own
containerd, kubelet or etcd. This module must never create or change anything.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent
REPOSITORY = PACKAGE.parent.parent

KUBERNETES_VERSION = "v1.35.4"
CLUSTER_NAME = "retune"
NODE_NAME = "retune-node"

NODE_IP = "10.245.0.1"
POD_CIDR = "10.244.0.0/16"
SERVICE_CIDR = "10.96.0.0/16"
API_SERVICE_IP = "10.96.0.1"
DNS_SERVICE_IP = "10.96.0.10"
CLUSTER_DOMAIN = "cluster.local"
BRIDGE = "retune0"
CNI_NETWORK = "retune-pods"

STORAGE_CLASS = "standard"
PROVISIONER = "retune.dev/host-folder"
REGISTRY = "localhost/retune"
PAUSE_IMAGE = f"{REGISTRY}/busybox:dev"
BASE_IMAGE = f"{REGISTRY}/base:bookworm"


@dataclass(frozen=True)
class Ports:
    """TCP ports of the cluster's own processes; uncommon on purpose."""

    apiserver: int = 26443
    etcd: int = 26379
    etcd_peer: int = 26380
    kubelet: int = 26250
    kubelet_health: int = 26248
    controller_manager: int = 26257
    scheduler: int = 26259
    proxy_health: int = 26256
    proxy_metrics: int = 26249
    dns: int = 53  # not uncommon: network policies let out names at this port, and see it as it is behind the Service
    dns_ready: int = 26181
    policies_health: int = 26244


PORTS = Ports()


@dataclass(frozen=True)
class Settings:
    """Folders of one cluster.

    cache: downloads and builds that survive `down --purge`. state: everything one cluster remembers.
    """

    cache: Path
    state: Path

    @property
    def ident(self) -> str:
        """Short name of this state folder; part of the run folder's and the cgroup's name."""
        return f"{CLUSTER_NAME}-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"

    @property
    def run(self) -> Path:
        """Sockets and other things that mean nothing once all processes ended; short enough for a socket's path."""
        return Path("/run") / self.ident

    @property
    def pki(self) -> Path:
        """Keys and certificates of the cluster."""
        return self.state / "pki"

    @property
    def config(self) -> Path:
        """Rendered configuration files and the components' kubeconfigs."""
        return self.state / "config"

    @property
    def logs(self) -> Path:
        """One log file a component."""
        return self.state / "logs"

    @property
    def records(self) -> Path:
        """One record a started process: pid, start time, boot, hash of its specification."""
        return self.state / "records"

    @property
    def volumes(self) -> Path:
        """Folders behind the PersistentVolumes."""
        return self.state / "volumes"

    @property
    def bin(self) -> Path:
        """Links to every binary, for PATH."""
        return self.state / "bin"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.state / "kubeconfig"

    @property
    def containerd_socket(self) -> Path:
        """Socket of the cluster's own containerd."""
        return self.run / "containerd.sock"

    @property
    def server(self) -> str:
        """Address of the API server, the same for host and pods."""
        return f"https://{NODE_IP}:{PORTS.apiserver}"


def load() -> Settings:
    """Settings from RETUNE_CACHE and RETUNE_CLUSTER_DIR, or their defaults below XDG_CACHE_HOME."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("RETUNE_CACHE") or home / "retune").resolve()
    state = Path(os.environ.get("RETUNE_CLUSTER_DIR") or cache / "cluster").resolve()
    return Settings(cache=cache, state=state)
