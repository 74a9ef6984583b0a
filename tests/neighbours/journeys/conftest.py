"""The operator on a real cluster, set up for the kinds of targets that other programs bring, and real data."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from examples.kube import SYSTEM
from tests.e2e import kube
from tests.e2e.conftest import once, seeded
from tests.e2e.scenario import NAMESPACE
from tests.neighbours import argo_rollouts

__all__ = ["once", "seeded"]


@pytest.fixture(scope="session")
def operator(once: Callable[[str, Callable[[], None]], None]) -> str:
    """The chart, installed with the images of this tree and every kind of target; returns its namespace."""
    once("operator", lambda: kube.install_operator("resyncSeconds=60", "targets.kinds={StatefulSet,Rollout}"))
    return SYSTEM


@pytest.fixture(scope="session")
def argo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Argo Rollouts: its CRDs in the cluster, and its controller on this machine, for the tests' namespace alone."""
    definitions = argo_rollouts.crds()
    names = [f"customresourcedefinition/{crd['metadata']['name']}" for crd in definitions]
    for crd in definitions:
        kube.apply_whole(crd)
    kube.kubectl("wait", "--for=condition=Established", "--timeout=1m", *names)
    log = tmp_path_factory.mktemp("argo") / "log"
    flags = ("--namespaced", f"--namespace={NAMESPACE}")
    with argo_rollouts.controller(Path(os.environ["KUBECONFIG"]), log, *flags):
        yield
    kube.kubectl("delete", *names, "--ignore-not-found", "--timeout=2m")
