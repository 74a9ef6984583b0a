"""`retune optimize` and `retune init`: the Jobs of the cluster on this machine, without a cluster."""
