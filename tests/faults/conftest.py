"""A throw-away control plane without nodes, with our CRDs, and a stagehand that plays what nodes would do."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from retune.api.crd import modeloptimization_crd, optimizationrun_crd
from tests.cluster.crds import install
from tests.cluster.gateway import http_route_crd
from tests.faults.stage import reply
from tests.faults.stagehand import Stagehand
from tools.localcluster.api import Api
from tools.localcluster.controlplane import control_plane


@pytest.fixture(scope="session")
def kubeconfig() -> Iterator[Path]:
    """The administrator's kubeconfig of a control plane of this session's own."""
    with control_plane() as plane:
        install(Api(plane.kubeconfig), [modeloptimization_crd(), optimizationrun_crd(), http_route_crd()])
        yield plane.kubeconfig


@pytest.fixture(scope="session")
def api(kubeconfig: Path) -> Api:
    """The API server as its administrator."""
    return Api(kubeconfig)


@pytest.fixture(scope="session")
def stagehand(api: Api) -> Iterator[Stagehand]:
    """Finishes Jobs, settles Deployments and looks at routes for the whole session."""
    with Stagehand(api, reply=reply, routes=True) as playing:
        yield playing
