"""Argo Rollouts for tests: its CRDs, and its controller as a process beside any API server."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tools.localcluster import binaries
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import load

Json = dict[str, Any]
_MODULE = "github.com/argoproj/argo-rollouts"


def crds() -> list[Json]:
    """The CustomResourceDefinitions of the pinned release."""
    folder = binaries.source_folder(load(), binaries.ARGO_ROLLOUTS, _MODULE) / "manifests" / "crds"
    return [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*-crd.yaml"))]


@dataclass(frozen=True)
class Controller:
    """A controller that runs."""

    pid: int
    metrics: int
    """Port of its metrics."""


@contextmanager
def controller(kubeconfig: Path, log: Path, *flags: str) -> Iterator[Controller]:
    """Run the controller of the pinned release; its CRDs must be served already."""
    program = binaries.ensure(load(), [binaries.ARGO_ROLLOUTS])["rollouts-controller"]
    health, metrics = free_ports(2)
    own = (f"--healthzPort={health}", f"--metricsPort={metrics}", "--leader-elect=false", "--loglevel=warn")
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    with log.open("wb") as sink:
        argv = [str(program), f"--kubeconfig={kubeconfig}", *own, *flags]
        process = subprocess.Popen(argv, stdout=sink, stderr=sink, env=environment)
        try:
            yield Controller(process.pid, metrics)
        finally:
            process.kill()
            process.wait()
