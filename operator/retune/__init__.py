"""Retune keeps served models at their best: it tunes, proves, rolls out, watches, and starts again."""

__version__ = "0.1.0"
