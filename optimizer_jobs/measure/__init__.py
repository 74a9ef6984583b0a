"""Measurements with intervals: quality, latency, memory, CPU time and energy, and the hardware that they belong to."""
