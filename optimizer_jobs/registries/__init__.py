"""Registries of others that are given what the judge has accepted."""
