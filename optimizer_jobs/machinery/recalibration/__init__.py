"""Correct a classifier's probabilities: fit the correction, see that it keeps its promise, write it into the graph."""
