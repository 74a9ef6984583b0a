"""The API server that the tests in this folder talk to, with our CRDs installed.

It is always a control plane of the session's own: nobody's cluster gets objects, operators and mutants of ours.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.cluster.crds import install
from tests.cluster.gateway import http_route_crd
from tests.cluster.harness import Bench
from tests.cluster.running import open_sockets, until
from tools.localcluster.api import Api
from tools.localcluster.controlplane import ControlPlane, control_plane


@pytest.fixture(scope="session")
def plane() -> Iterator[ControlPlane]:
    """A control plane without controllers: nothing happens in it but what a test does."""
    with control_plane() as found:
        install(Api(found.kubeconfig), [modeloptimization_crd(), optimizationrun_crd()])
        yield found


@pytest.fixture(scope="session")
def kubeconfig(plane: ControlPlane) -> Path:
    """The administrator's kubeconfig."""
    return plane.kubeconfig


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Api:
    """The API server as its administrator."""
    return Api(kubeconfig)


@pytest.fixture(scope="session")
def routes(api: Api) -> None:
    """HTTPRoutes of the Gateway API, which a cluster need not have."""
    install(api, [http_route_crd()])


@pytest.fixture
def bench(plane: ControlPlane) -> Iterator[Bench]:
    """A namespace of its own, and operators in it that come and go."""
    found = Bench(plane)
    yield found
    found.close()


@pytest.fixture
async def hung_up() -> AsyncIterator[None]:
    """Wait until every socket of the test is closed: TLS connections need the loop for a moment to be."""
    loop = asyncio.get_running_loop()
    before = len(open_sockets(loop))
    yield
    await until(lambda: len(open_sockets(loop)) <= before)
