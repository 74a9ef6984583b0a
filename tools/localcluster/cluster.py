"""Bringing the whole cluster up and down, and telling how it is.

`up` looks at what is there and does only what is missing, so it resumes after any interruption and repairs what was
killed. When none of the daemons runs, it first clears what a former life left behind.
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from tools.localcluster import (
    addons,
    binaries,
    certs,
    components,
    configs,
    images,
    node,
    packages,
    policies,
    processes,
)
from tools.localcluster.api import Api, ApiError
from tools.localcluster.processes import Daemon
from tools.localcluster.settings import (
    CLUSTER_DOMAIN,
    DNS_SERVICE_IP,
    NODE_IP,
    NODE_NAME,
    PORTS,
    STORAGE_CLASS,
    Settings,
)
from tools.localcluster.shell import ClusterError, locked, say, wait_for

LOCAL_PORTS = ("etcd", "etcd_peer", "kubelet_health", "controller_manager", "scheduler", "proxy_health", "dns_ready")
NODE_PORTS = (PORTS.apiserver, PORTS.kubelet, PORTS.dns)
FREE_BIND = 15  # Linux's IP_FREEBIND: an address counts that the machine does not have yet
ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"


def lock(settings: Settings) -> Any:
    """The lock that up, down and image loading share; outside the state folder, which `--purge` deletes."""
    return locked(settings.cache / "locks" / f"{settings.ident}.lock")


def up(settings: Settings, *, enforce: bool = False) -> None:
    """Make the cluster run and wait until it serves pods, names and volumes.

    Args:
        settings: Where the cluster lives.
        enforce: Whether network policies count from now on. Where they did before, they do until `down`.
    """
    enforce = enforce or processes.recorded(settings, components.KUBE_ROUTER)
    packages.ensure(settings)
    binaries.ensure(settings, binaries.CLUSTER)
    if enforce:
        packages.ensure(settings, packages.POLICY_PACKAGES)
        binaries.ensure(settings, (binaries.KUBE_ROUTER,))
    with lock(settings):
        started = time.monotonic()
        changed = start(settings)
        wait_serving(settings)
        if set(changed) == set(components.NAMES):
            wait_pods(settings)
        if enforce:
            changed += start_some(settings, [components.kube_router(settings)])
        if changed:
            say(f"the cluster is ready after {time.monotonic() - started:.1f} s: {', '.join(changed)} started")


def start(settings: Settings) -> list[str]:
    """Start every daemon that does not run as it should; returns their names."""
    binaries.link(settings)
    certs.ensure(settings.pki, certs.CLUSTER)
    configs.write_all(settings)
    daemons = components.all_daemons(settings)
    if not any(processes.running(settings, daemon.name) for daemon in daemons):
        clear(settings)
    if not node.prepared(settings):
        say("making the node's address and network rules")
        node.prepare(settings)
    foundation = [daemon for daemon in daemons if daemon.name in components.FOUNDATION]
    changed = start_some(settings, foundation)
    images.ensure_pause(settings)
    addons.apply(Api(settings.kubeconfig))
    return changed + start_some(settings, [daemon for daemon in daemons if daemon not in foundation])


def clear(settings: Settings) -> None:
    """Before a cold start: end and remove what a former life left, and see that nobody else has our ports."""
    node.sweep(settings)
    taken = [f"{host}:{port}" for host, port in addresses() if not free(host, port)]
    if taken:
        raise ClusterError(
            f"these addresses are in use by another program: {', '.join(taken)}. Is a local cluster of another state"
            " folder (RETUNE_CLUSTER_DIR) running? See `ss -ltnp`; end it with its own `down`, then try again"
        )
    say("starting the cluster: about 20 s")


def addresses() -> list[tuple[str, int]]:
    """Where the daemons will listen."""
    local = [("127.0.0.1", getattr(PORTS, name)) for name in LOCAL_PORTS]
    return [*local, *((NODE_IP, port) for port in NODE_PORTS)]


def free(host: str, port: int) -> bool:
    """Whether a TCP address can be listened on."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.setsockopt(socket.IPPROTO_IP, FREE_BIND, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def start_some(settings: Settings, daemons: Sequence[Daemon]) -> list[str]:
    """Start those that do not run, all at once, then wait until each serves."""
    changed = [daemon.name for daemon in daemons if processes.ensure(settings, daemon)]
    for daemon in daemons:
        processes.wait_ready(settings, daemon)
    return changed


def wait_serving(settings: Settings) -> None:
    """Wait for what users need: a node that reported since its kubelet started, and answers from cluster DNS."""
    api = Api(settings.kubeconfig)
    since = kubelet_started(settings)

    def hint() -> str:
        return processes.log_end(settings, "kubelet")

    wait_for(lambda: node_ready(api, since=since), what=f"readiness of node {NODE_NAME}", seconds=60, hint=hint)
    wait_for(lambda: kubelet_knows_pods(api), what="the kubelet's knowledge of its pods", seconds=30, hint=hint)
    wait_for(lambda: exists(api, ACCOUNT), what="the controllers' first ServiceAccount", seconds=30)
    wait_for(dns_answers, what="an answer from cluster DNS", seconds=30)


def kubelet_started(settings: Settings) -> float:
    """When the kubelet started, in seconds since the epoch, rounded down as the API rounds."""
    return float(int((settings.records / "kubelet").stat().st_mtime))


def node_ready(api: Api, *, since: float) -> bool:
    """Whether the node is ready by a report that is not older than `since`."""
    try:
        status = api.get(f"/api/v1/nodes/{NODE_NAME}").get("status", {})
    except (ApiError, OSError):
        return False
    for condition in status.get("conditions", []):
        if condition["type"] == "Ready" and condition["status"] == "True":
            return datetime.fromisoformat(condition["lastHeartbeatTime"]).timestamp() >= since
    return False


def wait_pods(settings: Settings) -> None:
    """After a cold start: wait until no pod is still shown as it was before the stop."""
    api, since = Api(settings.kubeconfig), kubelet_started(settings)
    try:
        wait_for(lambda: pods_told(api, since=since), what="news of all pods from before the stop", seconds=60)
    except ClusterError as error:
        say(f"{error}; the cluster works, see `kubectl get pods -A`")


def pods_told(api: Api, *, since: float) -> bool:
    """Whether no pod claims to run since before this time."""
    pods = api.get("/api/v1/pods?fieldSelector=status.phase%3DRunning")["items"]
    states = [one["state"] for pod in pods for one in pod["status"].get("containerStatuses", [])]
    starts = [state["running"]["startedAt"] for state in states if "running" in state]
    return all(datetime.fromisoformat(start).timestamp() >= since for start in starts)


def exists(api: Api, path: str) -> bool:
    """Whether an object exists."""
    try:
        api.get(path)
    except (ApiError, OSError):
        return False
    return True


def kubelet_knows_pods(api: Api) -> bool:
    """Whether the kubelet knows every pod that is shown as running; just after its start it denies logs and exec."""
    try:
        shown = api.get(f"/api/v1/pods?fieldSelector=status.phase%3DRunning,spec.nodeName%3D{NODE_NAME}")["items"]
        known = api.get(f"/api/v1/nodes/{NODE_NAME}/proxy/pods")["items"] or []
    except (ApiError, OSError):
        return False
    return {pod["metadata"]["uid"] for pod in shown} <= {pod["metadata"]["uid"] for pod in known}


def dns_answers() -> bool:
    """Whether the API server's name resolves by the DNS Service's address, as in a pod."""
    name = f"kubernetes.default.svc.{CLUSTER_DOMAIN}"
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    query = struct.pack(">6H", 1, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack(">2H", 1, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(1)
        try:
            channel.sendto(query, (DNS_SERVICE_IP, 53))
            answer = channel.recv(512)
        except OSError:
            return False
    flags, _, count = struct.unpack(">3H", answer[2:8])
    return bool(flags & 0xF == 0 and count > 0)


def down(settings: Settings, *, purge: bool = False) -> None:
    """Stop everything the cluster started, pods included, and remove what it made outside its state folder."""
    with lock(settings):
        daemons = [*components.NAMES, components.KUBE_ROUTER]
        if any(processes.running(settings, name) for name in daemons) or node.traces(settings):
            say("stopping the cluster: a few seconds")
            for name in reversed(daemons):
                processes.stop(settings, name)
            node.sweep(settings)
        if purge and settings.state.exists():
            say(f"deleting {settings.state}")
            node.purge(settings)


def stop_enforcing(settings: Settings) -> None:
    """Stop the enforcer of network policies, and let every pod reach every other again."""
    with lock(settings):
        if processes.recorded(settings, components.KUBE_ROUTER):
            processes.stop(settings, components.KUBE_ROUTER)
        policies.remove()


def load_images(settings: Settings, names: Sequence[str]) -> list[str]:
    """Build images of the project and load them into the running cluster; returns their tags."""
    packages.ensure(settings)
    if not processes.running(settings, "containerd"):
        raise ClusterError("the cluster does not run, so images cannot be loaded; start it with `up`")
    return images.ensure(settings, names)


def status(settings: Settings) -> dict[str, Any]:
    """Components with pid and readiness, the node, and versions."""
    rows = []
    complete = settings.pki.exists() and settings.kubeconfig.exists() and settings.bin.exists()
    ready = {daemon.name: daemon.ready for daemon in components.all_daemons(settings)} if complete else {}
    if complete and processes.recorded(settings, components.KUBE_ROUTER):
        ready[components.KUBE_ROUTER] = components.kube_router(settings).ready
    for name in ready or components.NAMES:
        record = processes.running(settings, name)
        rows.append({"name": name, "pid": record.pid if record else None, "ready": bool(record and ready[name]())})
    return {
        "components": rows,
        "node": {"name": NODE_NAME, "address": NODE_IP, "ready": bool(complete) and node_is_up(settings)},
        "versions": versions(settings),
        "kubeconfig": str(settings.kubeconfig),
        "state": str(settings.state),
        "defaultStorageClass": STORAGE_CLASS,
    }


def node_is_up(settings: Settings) -> bool:
    """Whether the API server calls the node ready."""
    return node_ready(Api(settings.kubeconfig), since=0)


def versions(settings: Settings) -> dict[str, str]:
    """What the API server and the node say about their versions; empty when they cannot be asked."""
    try:
        api = Api(settings.kubeconfig)
        info = api.get(f"/api/v1/nodes/{NODE_NAME}")["status"]["nodeInfo"]
        server = str(api.get("/version")["gitVersion"])
    except (ApiError, OSError, KeyError):
        return {}
    return {
        "kubernetes": server,
        "kubelet": info["kubeletVersion"],
        "runtime": info["containerRuntimeVersion"],
        "kernel": info["kernelVersion"],
    }
