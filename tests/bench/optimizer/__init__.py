"""Retune's optimizer beside its peers: the same models, data, threads and machine, in one run."""
