"""Measuring whether a model holds when its inputs are changed to deceive it."""
