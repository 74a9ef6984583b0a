"""The operator installed by its chart on a real cluster, and a namespace with real data, good and bad."""

from pathlib import Path

import pytest

from examples.digits.kube import RELEASE, SYSTEM
from tests.e2e import kube
from tests.e2e.scenario import DATA, NAMESPACE, STORE


@pytest.fixture(scope="session")
def operator() -> str:
    """The chart, installed with the images of this tree; returns its namespace."""
    kube.install_operator("resyncSeconds=60")
    return SYSTEM


@pytest.fixture(scope="session")
def seeded(operator: str) -> str:
    """A fresh namespace that enforces Pod Security restricted, with data, models and a store; returns its name."""
    kube.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", operator, "--timeout=1m")
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=3m")
    script = Path(__file__).parent / "seed.py"
    kube.apply(
        kube.namespace(NAMESPACE),
        kube.claim(DATA, namespace=NAMESPACE),
        kube.claim(STORE, namespace=NAMESPACE),
        *kube.python_job("seed", script, namespace=NAMESPACE, claims=[DATA], arguments=[f"/mnt/pvc/{DATA}"]),
    )
    kube.kubectl("wait", "job/seed", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=4m")
    return NAMESPACE
