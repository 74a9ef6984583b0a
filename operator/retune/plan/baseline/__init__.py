"""Measuring the delivered model, which is version 1 and the first champion."""

from retune.plan.baseline.measurement import measure_champion

__all__ = ["measure_champion"]
