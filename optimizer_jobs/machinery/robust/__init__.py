"""Measuring whether a model still answers right when its inputs are changed to deceive it."""
