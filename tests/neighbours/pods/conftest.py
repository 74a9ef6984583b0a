"""The operator on the local cluster, and three ModelOptimizations of pods of the page, which go their ways at once."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from examples.kube import SYSTEM
from tests.e2e import kube
from tests.e2e.conftest import once, seeded
from tests.e2e.scenario import idle_target, resource
from tests.neighbours.following import Users, users
from tests.neighbours.pods import built, manifests
from tests.neighbours.pods.asked import asker

__all__ = ["once", "seeded"]
Json = dict[str, Any]
PREPARED, HARMED, REFUSED = "prepared", "harmed", "refused"
GIVEN, SPOILED = "given", "spoiled"
"""Whose key Retune writes."""
SEARCH = {"maxTrials": 2}
JUDGED_SECONDS = 900
"""Longest time until a verdict."""


@dataclass(frozen=True)
class Promoted:
    """A Deployment of the page whose pods were given a bundle, judged through the server's own image."""

    status: Json
    """Status of the ModelOptimization when it was promoted."""
    before: str
    """Version of the model that answered before."""
    users: Users
    """Who asked from the verdict on, until every pod had the bundle."""

    @property
    def champion(self) -> Json:
        """The version that serves."""
        found: Json = self.status["champion"]
        return found


@pytest.fixture(scope="session")
def operator(once: Callable[[str, Callable[[], None]], None]) -> str:
    """The chart, installed with the images of this tree and the right to two keys; returns its namespace."""
    keys = f"targets.configMaps={{{GIVEN}-wanted,{SPOILED}-wanted}}"
    once("operator", lambda: kube.install_operator("resyncSeconds=60", keys))
    return SYSTEM


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> str:
    """All images, built and loaded; returns the name of the server's."""
    built.loaded(tmp_path_factory.mktemp("triton"))
    return built.SERVER


@pytest.fixture(scope="session")
def begun(server: str, seeded: str) -> str:
    """What optimizes two Deployments of the page, which serve the delivered model, and what has a server that is old.

    One is judged through its server, and one waits for a person's approval. Returns the namespace.
    """
    for name in (PREPARED, HARMED):
        kube.apply(*manifests.prepared(name), manifests.service(name))
    for name in (PREPARED, HARMED):
        kube.kubectl("rollout", "status", f"deployment/{name}", "-n", seeded, "--timeout=4m")
    waiting = manifests.target(HARMED) | {"rollout": {"approval": "Manual", "progressDeadline": "60s"}}
    old = manifests.judged_through(built.OLD_SERVER)
    kube.apply(
        resource(PREPARED, search=SEARCH, **(manifests.target(PREPARED) | manifests.judged_through(server))),
        resource(HARMED, search=SEARCH, **waiting),
        idle_target(REFUSED),
        resource(REFUSED, search=SEARCH, **old),
    )
    return seeded


@pytest.fixture(scope="session")
def promoted(begun: str) -> Promoted:
    """The first of them, once it is promoted."""
    ask = asker(PREPARED)
    before = ask()
    accepted = ("CandidateAccepted", "SmallerAtEqualQuality")
    kube.wait_reason(PREPARED, *accepted, namespace=begun, seconds=JUDGED_SECONDS)
    with users(ask, count=1) as asking:
        found = kube.wait_reason(PREPARED, "RolledOut", "Promoted", namespace=begun)
    return Promoted(found["status"], before, asking)
