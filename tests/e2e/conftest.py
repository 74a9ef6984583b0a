"""The operator installed by its chart on a real cluster, and a namespace with real data, good and bad.

Tests run in several processes at once. What all of them need is set up by the first that asks, and the others wait.
"""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from examples.kube import RELEASE, SYSTEM
from tests.e2e import kube
from tests.e2e.scenario import DATA, NAMESPACE, STORE


@pytest.fixture(scope="session")
def once(tmp_path_factory: pytest.TempPathFactory, testrun_uid: str) -> Callable[[str, Callable[[], None]], None]:
    """Return what does a piece of work, told by name, once for all processes of this run."""
    shared = tmp_path_factory.getbasetemp().parent

    def do(name: str, work: Callable[[], None]) -> None:
        with (shared / f"{testrun_uid}-{name}").open("a+") as told:
            fcntl.flock(told, fcntl.LOCK_EX)
            if not os.fstat(told.fileno()).st_size:  # its own position is from before the lock
                work()
                told.write("done")

    return do


@pytest.fixture(scope="session")
def operator(once: Callable[[str, Callable[[], None]], None]) -> str:
    """The chart, installed with the images of this tree; returns its namespace."""
    once("operator", lambda: kube.install_operator("resyncSeconds=60", "canary.enabled=true", "canary.httpRoutes=true"))
    return SYSTEM


@pytest.fixture(scope="session")
def seeded(operator: str, once: Callable[[str, Callable[[], None]], None]) -> str:
    """A fresh namespace that enforces Pod Security restricted, with data, models and a store; returns its name."""
    kube.kubectl("rollout", "status", f"deployment/{RELEASE}", "-n", operator, "--timeout=1m")
    once("seeded", _seed)
    return NAMESPACE


def _seed() -> None:
    kube.kubectl("delete", "namespace", NAMESPACE, "--ignore-not-found", "--wait", "--timeout=3m")
    script = Path(__file__).parent / "seed.py"
    kube.apply(
        kube.namespace(NAMESPACE),
        kube.claim(DATA, namespace=NAMESPACE),
        kube.claim(STORE, namespace=NAMESPACE),
        *kube.python_job("seed", script, namespace=NAMESPACE, claims=[DATA], arguments=[f"/mnt/pvc/{DATA}"]),
    )
    kube.kubectl("wait", "job/seed", "-n", NAMESPACE, "--for=condition=Complete", "--timeout=4m")
