"""Model servers of others, real and pinned: they read what `retune render` writes, and what they log is captured."""

from collections.abc import Callable

import pytest

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.models.bundle import Bundle, publish
from retune.api.model import Data
from retune.contract.paths import bundles
from tests.neighbours.captures import WINDOW_REQUESTS
from tests.neighbours.windows import Champion, label
from tests.unit.jobs.captured_for_tests import Shop
from tests.unit.jobs.conftest import claims, data, delivered, make, shop, splits, store

__all__ = ["claims", "data", "delivered", "make", "shop", "splits", "store"]


@pytest.fixture
def champion(make: Callable[..., Bundle], data: Data, store: str, splits: dict[str, Rows], shop: Shop) -> Champion:
    """A champion with its reference, and labels for the requests that are going to be asked."""
    label(shop, WINDOW_REQUESTS)
    found = Champion(publish(make(), uri=bundles(store)), store, data)
    found.refer(splits["validation"])
    return found
