"""Captured requests of the live model: how they are written, read, joined with labels, and removed."""
