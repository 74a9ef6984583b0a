"""A throw-away control plane: etcd and kube-apiserver (and chosen built-in controllers) in seconds, without a node.

For tests and benchmarks that need the real API but no containers. Each has ports and a folder of its own, so that
many can run at once, and its processes end with the thread that started it, however that ends: start it from a
thread that lives as long as the tests, such as the main one.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tools.localcluster import binaries, certs, components
from tools.localcluster.api import Api, ApiError
from tools.localcluster.processes import clean_environment
from tools.localcluster.settings import load
from tools.localcluster.shell import ClusterError, run, tail, wait_for

PREFIX = "retune-control-plane-"
TOKEN_SECONDS = 24 * 3600
START_TRIES = 3


@dataclass
class ControlPlane:
    """A running control plane. folder: everything it has, gone at its end. kubeconfig: a cluster administrator's."""

    folder: Path
    kubeconfig: Path
    server: str
    kubectl_path: Path
    commands: dict[str, tuple[str, ...]] = field(default_factory=dict)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def pki(self) -> Path:
        """Its keys and certificates."""
        return self.folder / "pki"

    def kubectl(self, *words: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl and return what it prints; raises ClusterError with its message when it fails."""
        chosen = kubeconfig or self.kubeconfig
        return run([self.kubectl_path, f"--kubeconfig={chosen}", *words], stdin=stdin)

    def user_kubeconfig(self, name: str, *, groups: Sequence[str] = ()) -> Path:
        """A kubeconfig for a user with a certificate of this cluster; the user has the rights that RBAC gives it."""
        return user_kubeconfig(self.pki, self.server, self.folder / "users", name, groups=groups)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig for an existing ServiceAccount, with a token of one day."""
        return service_account_kubeconfig(self.kubeconfig, self.pki, self.folder / "users", namespace, name)

    def stop(self, name: str, *, kill: bool = False) -> None:
        """End `etcd`, `kube-apiserver` or `kube-controller-manager`; `kill` gives it no chance to say goodbye."""
        process = self.processes.pop(name, None)
        if process:
            end(process, kill=kill)

    def start(self, name: str) -> None:
        """Start it again with the same address and data, and wait until it serves."""
        if name not in self.processes:
            self.processes[name] = spawn(self.folder, name, self.commands[name])
        if name != "kube-controller-manager":
            self.wait_ready()

    def pause(self, name: str) -> None:
        """Freeze a process: connections stay open and nothing answers."""
        self.processes[name].send_signal(signal.SIGSTOP)

    def resume(self, name: str) -> None:
        """Let a frozen process go on."""
        self.processes[name].send_signal(signal.SIGCONT)

    def wait_ready(self, *, seconds: float = 60) -> None:
        """Wait until the API server is ready; raises ClusterError with a log's end if a process ends instead."""
        api = Api(self.kubeconfig)

        def check() -> bool:
            for name, process in self.processes.items():
                if process.poll() is not None:
                    raise ClusterError(f"{name} ended with code {process.returncode}:\n{self.log(name)}")
            return api.healthy()

        wait_for(check, what="readiness of the API server", seconds=seconds, hint=lambda: self.log("kube-apiserver"))

    def log(self, name: str) -> str:
        """The end of a process's log."""
        return tail((self.folder / f"{name}.log").read_text(errors="replace"))

    def close(self) -> None:
        """End all processes, the API server before its database, and remove the folder."""
        for name in reversed(list(self.processes)):
            self.stop(name, kill=True)
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def control_plane(
    *,
    controllers: Sequence[str] = (),
    apiserver_args: Sequence[str] = (),
    etcd_sync: bool = False,
) -> Iterator[ControlPlane]:
    """Run a control plane for the length of a `with` block.

    controllers: names for kube-controller-manager's `--controllers`, such as `namespace-controller`,
    `garbage-collector-controller`, `serviceaccount-controller`, `job-controller`, `deployment-controller`,
    `replicaset-controller`; none, and it is not started. Without `serviceaccount-controller` pods need no
    ServiceAccount. apiserver_args: further arguments, winning over ours. etcd_sync: sync to disk as in production.
    Raises ClusterError when it does not start. Builds the binaries first if they are not cached (6 min).
    """
    plane = start_plane(controllers=controllers, apiserver_args=apiserver_args, etcd_sync=etcd_sync)
    try:
        yield plane
    finally:
        plane.close()


def start_plane(*, controllers: Sequence[str], apiserver_args: Sequence[str], etcd_sync: bool) -> ControlPlane:
    """Start one; another program may take a free port first, so there is more than one try."""
    for attempt in range(1, START_TRIES + 1):
        plane = prepare(controllers=controllers, apiserver_args=apiserver_args, etcd_sync=etcd_sync)
        try:
            for name, argv in plane.commands.items():
                plane.processes[name] = spawn(plane.folder, name, argv)
                if name == "kube-apiserver":
                    plane.wait_ready()
            return plane
        except BaseException as error:
            plane.close()
            if attempt == START_TRIES or not isinstance(error, ClusterError) or "in use" not in str(error):
                raise
    raise AssertionError("unreachable")


def prepare(*, controllers: Sequence[str], apiserver_args: Sequence[str], etcd_sync: bool) -> ControlPlane:
    """Folder, certificates, kubeconfigs and commands of a new control plane."""
    paths = binaries.ensure(load(), ("kubernetes",))
    remove_orphans()
    folder = Path(tempfile.mkdtemp(prefix=f"{PREFIX}{os.getpid()}-"))
    pki = folder / "pki"
    certs.ensure(pki, certs.CONTROL_PLANE)
    client, peer, port, manager_port = free_ports(4)
    server = f"https://127.0.0.1:{port}"
    admin, manager = folder / "kubeconfig", folder / "controller-manager.kubeconfig"
    write_private(admin, certs.kubeconfig(pki, "admin", server))
    write_private(manager, certs.kubeconfig(pki, "controller-manager", server))

    etcd = components.etcd_arguments(pki, folder / "etcd", client=client, peer=peer)
    apiserver = (
        *components.apiserver_arguments(pki, address="127.0.0.1", port=port, etcd=client),
        "--authorization-mode=RBAC",
        *(() if "serviceaccount-controller" in controllers else ("--disable-admission-plugins=ServiceAccount",)),
        *apiserver_args,
    )
    commands = {
        "etcd": (str(paths["etcd"]), *(word for word in etcd if not etcd_sync or word != "--unsafe-no-fsync")),
        "kube-apiserver": (str(paths["kube-apiserver"]), *apiserver),
    }
    if controllers:
        commands["kube-controller-manager"] = (
            str(paths["kube-controller-manager"]),
            *components.controller_manager_arguments(pki, manager),
            f"--secure-port={manager_port}",
            f"--controllers={','.join(controllers)}",
        )
    return ControlPlane(folder, admin, server, paths["kubectl"], commands)


def remove_orphans() -> None:
    """Remove folders of control planes whose owner was killed; their processes ended with it."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        owner = folder.name.removeprefix(PREFIX).partition("-")[0]
        if owner.isdigit() and not Path("/proc", owner).exists():
            shutil.rmtree(folder, ignore_errors=True)


def spawn(folder: Path, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
    """Start a process that the kernel ends with the thread that started it."""
    with (folder / f"{name}.log").open("ab") as log:
        return subprocess.Popen(
            ["/usr/bin/setpriv", "--pdeathsig=KILL", "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=clean_environment(),
            cwd=folder,
            start_new_session=True,
        )


def end(process: subprocess.Popen[bytes], *, kill: bool) -> None:
    """End a process and wait for it; one that does not go when asked is killed."""
    process.send_signal(signal.SIGCONT)
    process.send_signal(signal.SIGKILL if kill else signal.SIGTERM)
    try:
        process.wait(timeout=15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_ports(count: int) -> list[int]:
    """Different TCP ports that nobody listens on at this moment."""
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            probe.close()


def write_private(path: Path, text: str) -> Path:
    """Write a file that only its owner reads."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as handle:
        handle.write(text)
    return path


def user_kubeconfig(pki: Path, server: str, folder: Path, name: str, *, groups: Sequence[str] = ()) -> Path:
    """Mint a certificate and a kubeconfig for a user of any cluster whose authority is at hand."""
    file = "user-" + "".join(letter if letter.isalnum() else "-" for letter in "-".join((name, *groups)))
    certs.issue(pki, certs.Identity(file, name, tuple(groups)))
    return write_private(folder / f"{file}.kubeconfig", certs.kubeconfig(pki, file, server))


def service_account_kubeconfig(admin: Path, pki: Path, folder: Path, namespace: str, name: str) -> Path:
    """Ask for a token of a ServiceAccount and write a kubeconfig with it; raises ClusterError if it does not exist."""
    api = Api(admin)
    request = {
        "apiVersion": "authentication.k8s.io/v1",
        "kind": "TokenRequest",
        "spec": {"expirationSeconds": TOKEN_SECONDS},
    }
    try:
        answer = api.request("POST", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token", request)
    except ApiError as error:
        raise ClusterError(f"no token for ServiceAccount {namespace}/{name}: {error}") from error
    user = {"token": str(answer["status"]["token"])}
    text = certs.render_kubeconfig(pki, name, api.server, user=user, namespace=namespace)
    return write_private(folder / f"sa-{namespace}-{name}.kubeconfig", text)
