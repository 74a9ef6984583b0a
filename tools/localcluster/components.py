"""The cluster's daemons: with which arguments each runs and how it shows that it serves."""

from __future__ import annotations

import socket
import ssl
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

from tools.localcluster import binaries, policies
from tools.localcluster.api import Api
from tools.localcluster.configs import kubeconfig_of
from tools.localcluster.processes import Daemon
from tools.localcluster.settings import (
    CLUSTER_DOMAIN,
    NODE_IP,
    NODE_NAME,
    PACKAGE,
    POD_CIDR,
    PORTS,
    REPOSITORY,
    SERVICE_CIDR,
    Settings,
)

# The first three must serve before the others are started.
FOUNDATION = ("containerd", "etcd", "kube-apiserver")
NAMES = (
    *FOUNDATION,
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "coredns",
    "provisioner",
)
KUBE_ROUTER = "kube-router"
"""The enforcer of network policies, which runs only where it was asked for."""


def all_daemons(settings: Settings) -> list[Daemon]:
    """Every daemon in the order of starting."""
    return [
        containerd(settings),
        etcd(settings),
        apiserver(settings),
        controller_manager(settings),
        scheduler(settings),
        kubelet(settings),
        kube_proxy(settings),
        coredns(settings),
        provisioner(settings),
    ]


def etcd_arguments(pki: Path, data: Path, *, client: int, peer: int) -> tuple[str, ...]:
    """Arguments of a single etcd on loopback; it need not survive a power cut, so it does not sync to disk."""
    files = (f"--cert-file={pki}/etcd.crt", f"--key-file={pki}/etcd.key", f"--trusted-ca-file={pki}/etcd-ca.crt")
    peers = tuple(file.replace("--", "--peer-", 1) for file in files)
    return (
        "--name=retune",
        f"--data-dir={data}",
        "--unsafe-no-fsync",
        f"--listen-client-urls=https://127.0.0.1:{client}",
        f"--advertise-client-urls=https://127.0.0.1:{client}",
        f"--listen-peer-urls=https://127.0.0.1:{peer}",
        f"--initial-advertise-peer-urls=https://127.0.0.1:{peer}",
        f"--initial-cluster=retune=https://127.0.0.1:{peer}",
        *files,
        *peers,
        "--client-cert-auth",
        "--peer-client-cert-auth",
        "--log-level=warn",
        "--auto-compaction-retention=1h",
    )


def apiserver_arguments(pki: Path, *, address: str, port: int, etcd: int) -> tuple[str, ...]:
    """Arguments every API server of ours needs, with or without a node."""
    return (
        f"--etcd-servers=https://127.0.0.1:{etcd}",
        f"--etcd-cafile={pki}/etcd-ca.crt",
        f"--etcd-certfile={pki}/etcd.crt",
        f"--etcd-keyfile={pki}/etcd.key",
        f"--bind-address={address}",
        f"--secure-port={port}",
        f"--tls-cert-file={pki}/apiserver.crt",
        f"--tls-private-key-file={pki}/apiserver.key",
        f"--client-ca-file={pki}/ca.crt",
        f"--service-account-key-file={pki}/service-accounts.key",
        f"--service-account-signing-key-file={pki}/service-accounts.key",
        f"--service-account-issuer=https://kubernetes.default.svc.{CLUSTER_DOMAIN}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--profiling=false",
    )


def controller_manager_arguments(pki: Path, kubeconfig: Path) -> tuple[str, ...]:
    """Arguments every controller manager of ours needs; there is only one, so it takes no lease."""
    return (
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        "--leader-elect=false",
        "--use-service-account-credentials=true",
        f"--root-ca-file={pki}/ca.crt",
        f"--service-account-private-key-file={pki}/service-accounts.key",
        f"--cluster-signing-cert-file={pki}/ca.crt",
        f"--cluster-signing-key-file={pki}/ca.key",
        "--profiling=false",
    )


def containerd(settings: Settings) -> Daemon:
    """The container runtime."""
    config = settings.config / "containerd.toml"
    argv = ("/usr/bin/containerd", f"--config={config}", "--log-level=warn")
    return Daemon("containerd", argv, accepts(settings.containerd_socket), (config,))


def etcd(settings: Settings) -> Daemon:
    """The database."""
    arguments = etcd_arguments(settings.pki, settings.state / "etcd", client=PORTS.etcd, peer=PORTS.etcd_peer)
    health = answers(f"https://127.0.0.1:{PORTS.etcd}/health", pair=settings.pki / "etcd")
    return Daemon("etcd", (binary(settings, "etcd"), *arguments), health, pki_inputs(settings))


def apiserver(settings: Settings) -> Daemon:
    """The API server, on the node's address, which pods reach too."""
    pki = settings.pki
    argv = (
        binary(settings, "kube-apiserver"),
        *apiserver_arguments(pki, address=NODE_IP, port=PORTS.apiserver, etcd=PORTS.etcd),
        f"--advertise-address={NODE_IP}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true",
        "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-certificate-authority={pki}/ca.crt",
        f"--kubelet-client-certificate={pki}/apiserver-kubelet.crt",
        f"--kubelet-client-key={pki}/apiserver-kubelet.key",
    )
    return Daemon("kube-apiserver", argv, api_ready(settings.kubeconfig), pki_inputs(settings))


def controller_manager(settings: Settings) -> Daemon:
    """The built-in controllers."""
    kubeconfig = kubeconfig_of(settings, "controller-manager")
    argv = (
        binary(settings, "kube-controller-manager"),
        *controller_manager_arguments(settings.pki, kubeconfig),
        f"--secure-port={PORTS.controller_manager}",
        f"--cluster-cidr={POD_CIDR}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
    )
    health = answers(f"https://127.0.0.1:{PORTS.controller_manager}/healthz")
    return Daemon("kube-controller-manager", argv, health, (kubeconfig,))


def scheduler(settings: Settings) -> Daemon:
    """The scheduler."""
    kubeconfig = kubeconfig_of(settings, "scheduler")
    argv = (
        binary(settings, "kube-scheduler"),
        f"--kubeconfig={kubeconfig}",
        "--bind-address=127.0.0.1",
        f"--secure-port={PORTS.scheduler}",
        "--leader-elect=false",
        "--profiling=false",
    )
    return Daemon("kube-scheduler", argv, answers(f"https://127.0.0.1:{PORTS.scheduler}/healthz"), (kubeconfig,))


def kubelet(settings: Settings) -> Daemon:
    """The node's agent."""
    config, kubeconfig = settings.config / "kubelet.yaml", kubeconfig_of(settings, "kubelet")
    argv = (
        binary(settings, "kubelet"),
        f"--config={config}",
        f"--kubeconfig={kubeconfig}",
        f"--root-dir={settings.state}/kubelet",
        f"--hostname-override={NODE_NAME}",
        f"--node-ip={NODE_IP}",
    )
    health = answers(f"http://127.0.0.1:{PORTS.kubelet_health}/healthz")
    return Daemon("kubelet", argv, health, (config, kubeconfig, *pki_inputs(settings)))


def kube_proxy(settings: Settings) -> Daemon:
    """Services."""
    config = settings.config / "kube-proxy.yaml"
    argv = (binary(settings, "kube-proxy"), f"--config={config}")
    health = answers(f"http://127.0.0.1:{PORTS.proxy_health}/healthz")
    return Daemon("kube-proxy", argv, health, (config, kubeconfig_of(settings, "kube-proxy")))


def coredns(settings: Settings) -> Daemon:
    """Cluster DNS, as a process of the host behind the usual Service: it needs no image and starts with the rest."""
    config = settings.config / "Corefile"
    argv = (binary(settings, "coredns"), "-conf", str(config))
    health = answers(f"http://127.0.0.1:{PORTS.dns_ready}/ready")
    return Daemon("coredns", argv, health, (config, kubeconfig_of(settings, "coredns")))


def provisioner(settings: Settings) -> Daemon:
    """Folders for PersistentVolumeClaims."""
    kubeconfig = kubeconfig_of(settings, "provisioner")
    argv = (sys.executable, "-m", "tools.localcluster.provisioner", str(kubeconfig), str(settings.volumes))
    sources = (PACKAGE / "provisioner.py", PACKAGE / "api.py", PACKAGE / "settings.py", kubeconfig)
    env = {"PYTHONPATH": str(REPOSITORY), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1"}
    return Daemon("provisioner", argv, lambda: True, sources, env)


def kube_router(settings: Settings) -> Daemon:
    """Network policies, and nothing else of what kube-router can do; it needs the node's object to be there."""
    kubeconfig = kubeconfig_of(settings, "kube-router")
    program = binaries.ensure(settings, (binaries.KUBE_ROUTER,))["kube-router"]
    argv = (
        str(program),
        f"--kubeconfig={kubeconfig}",
        f"--hostname-override={NODE_NAME}",
        f"--service-cluster-ip-range={SERVICE_CIDR}",
        "--run-firewall=true",
        "--run-router=false",
        "--run-service-proxy=false",
        "--run-loadbalancer=false",
        "--enable-cni=false",
        f"--health-port={PORTS.policies_health}",
        "--v=1",
    )
    healthy = answers(f"http://127.0.0.1:{PORTS.policies_health}/healthz")
    return Daemon(KUBE_ROUTER, argv, lambda: healthy() and policies.enforced(), (kubeconfig,))


def binary(settings: Settings, name: str) -> str:
    """The real path of a binary, so that a new version restarts its daemon."""
    return str((settings.bin / name).resolve())


def pki_inputs(settings: Settings) -> tuple[Path, ...]:
    """A file that changes whenever the certificates do."""
    return (settings.pki / "ca.crt",)


def accepts(path: Path) -> Callable[[], bool]:
    """A check whether a Unix socket takes connections."""

    def check() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    return check


def answers(url: str, *, pair: Path | None = None) -> Callable[[], bool]:
    """A check whether a local health address answers with success. pair: client certificate and key, without suffix."""

    def check() -> bool:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        if pair:
            context.load_cert_chain(f"{pair}.crt", f"{pair}.key")
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=context)
        )
        try:
            with opener.open(url, timeout=3) as response:
                return bool(response.status == 200)
        except OSError:
            return False

    return check


def api_ready(kubeconfig: Path) -> Callable[[], bool]:
    """A check whether the API server is ready, as the kubeconfig's user."""

    def check() -> bool:
        return Api(kubeconfig).healthy()

    return check
