"""Whole Jobs, run as the operator runs them, in processes of their own: seconds each, so not among the unit tests."""

from tests.unit.jobs.conftest import claims, data, delivered, make, shop, splits, store

__all__ = ["claims", "data", "delivered", "make", "shop", "splits", "store"]
