"""Model servers of others, real and pinned: they read what `retune render` writes, and what they log is captured."""

from tests.unit.jobs.conftest import claims, data, delivered, make, shop, splits, store

__all__ = ["claims", "data", "delivered", "make", "shop", "splits", "store"]
