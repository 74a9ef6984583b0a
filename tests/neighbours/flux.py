"""Flux's kustomize-controller for tests, as a process beside any API server, and a folder that it takes for Git.

Played is what Flux's source-controller does: an archive of the commit by HTTP, and a GitRepository that names it.
"""

import hashlib
import io
import os
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from tests.cluster.harness import Bench
from tests.faults.stagehand import now
from tools.localcluster import binaries
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import load

Json = dict[str, Any]
MANAGER = "kustomize-controller"
_SOURCES = "github.com/fluxcd/source-controller@v1.9.0"
_SOURCE, _KUSTOMIZE = "/apis/source.toolkit.fluxcd.io/v1", "/apis/kustomize.toolkit.fluxcd.io/v1"
_MERGE = "application/merge-patch+json"
_PATIENCE_SECONDS = 60.0


def crds() -> list[Json]:
    """The CustomResourceDefinitions of Kustomizations, and of every kind of source: the controller watches them all."""
    modules = ("github.com/fluxcd/kustomize-controller", _SOURCES)
    folders = [binaries.source_folder(load(), binaries.FLUX, module) / "config" / "crd" / "bases" for module in modules]
    return [yaml.safe_load(path.read_text()) for folder in folders for path in sorted(folder.glob("*.yaml"))]


@contextmanager
def controller(kubeconfig: Path, log: Path) -> Iterator[None]:
    """Run the controller of the pinned release; its CRDs must be served already."""
    program = binaries.ensure(load(), [binaries.FLUX])[MANAGER]
    health, metrics = free_ports(2)
    flags = [f"--health-addr=127.0.0.1:{health}", f"--metrics-addr=127.0.0.1:{metrics}"]
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    environment |= {"KUBECONFIG": str(kubeconfig), "RUNTIME_NAMESPACE": "default", "TMPDIR": str(log.parent)}
    with log.open("wb") as sink:
        argv = [str(program), *flags, "--enable-leader-election=false"]
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env=environment)
        try:
            yield
        finally:
            process.kill()
            process.wait()


class Repository:
    """What a namespace has in Git, and Flux's Kustomization of it, which is reconciled when a test says so."""

    def __init__(self, bench: Bench, address: str, archives: dict[str, bytes]) -> None:
        self._bench, self._address, self._archives = bench, address, archives
        self._asked = 0
        spec: Json = {"interval": "1h", "url": f"{address}/{bench.namespace}.git"}
        bench.create("gitrepositories", _named("GitRepository", _SOURCE, spec), api=_SOURCE)
        source = {"kind": "GitRepository", "name": "shop"}
        spec = {"interval": "1h", "prune": True, "sourceRef": source, "targetNamespace": bench.namespace}
        bench.create("kustomizations", _named("Kustomization", _KUSTOMIZE, spec), api=_KUSTOMIZE)

    def commit(self, files: Mapping[str, object]) -> None:
        """Have Flux apply these documents, by file name."""
        archive = _archive({name: yaml.safe_dump(document) for name, document in files.items()})
        digest = hashlib.sha256(archive).hexdigest()
        self._archives[f"/{digest}.tar.gz"] = archive
        artifact = {
            "url": f"{self._address}/{digest}.tar.gz",
            "path": f"{digest}.tar.gz",
            "digest": f"sha256:{digest}",
            "revision": f"main@sha1:{digest[:40]}",
            "size": len(archive),
            "lastUpdateTime": now(),
        }
        ready = {"type": "Ready", "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": now()}
        status = {"artifact": artifact, "conditions": [ready], "observedGeneration": 1}
        path = self._bench.path("gitrepositories", "shop", api=_SOURCE)
        self._bench.patch(f"{path}/status", {"status": status})
        self.reconcile(str(artifact["revision"]))

    def reconcile(self, revision: str | None = None) -> None:
        """Have Flux apply what is in Git once more, and wait until it has."""
        self._asked += 1
        path = self._bench.path("kustomizations", "shop", api=_KUSTOMIZE)
        asked = {"reconcile.fluxcd.io/requestedAt": str(self._asked)}
        self._bench.patch(path, {"metadata": {"annotations": asked}})
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while not self._has_applied(status := self._bench.api.get(path).get("status", {}), revision):
            assert time.monotonic() < deadline, f"Flux has not applied the commit: {status}"
            time.sleep(0.1)

    def _has_applied(self, status: Json, revision: str | None) -> bool:
        is_ready = any(
            (condition["type"], condition["status"]) == ("Ready", "True") for condition in status.get("conditions", ())
        )
        is_newest = revision in {None, status.get("lastAppliedRevision")}
        return is_ready and is_newest and status.get("lastHandledReconcileAt") == str(self._asked)


@contextmanager
def repository(bench: Bench) -> Iterator[Repository]:
    """A repository for a namespace."""
    archives: dict[str, bytes] = {}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer with an archive."""
            archive = archives.get(self.path)
            self.send_response(404 if archive is None else 200)
            self.end_headers()
            self.wfile.write(archive or b"")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Repository(bench, f"http://127.0.0.1:{server.server_port}", archives)
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _named(kind: str, api: str, spec: Json) -> Json:
    return {"apiVersion": api.removeprefix("/apis/"), "kind": kind, "metadata": {"name": "shop"}, "spec": spec}


def _archive(files: Mapping[str, str]) -> bytes:
    """Return these files as a compressed archive."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, text in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(text.encode())
            archive.addfile(entry, io.BytesIO(text.encode()))
    return buffer.getvalue()
