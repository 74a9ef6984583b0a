"""Judging one window of production data: drift, schema violations and quality, each with its numbers."""
