"""Captured requests of the live model: writing them, reading them, joining them with labels, removing old ones."""
