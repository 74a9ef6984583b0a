"""The operator and the seeded namespace of the end to end tests, and a real gateway beside them."""

from pathlib import Path

import pytest

from tests.e2e.conftest import once, operator, seeded
from tests.neighbours.envoy import Gateway, install

__all__ = ["once", "operator", "seeded"]


@pytest.fixture(scope="session")
def gateway(seeded: str, tmp_path_factory: pytest.TempPathFactory) -> Gateway:
    """Envoy Gateway, and a Gateway in the seeded namespace that a proxy serves."""
    folder: Path = tmp_path_factory.mktemp("envoy-gateway")
    return install(folder, namespace=seeded)
