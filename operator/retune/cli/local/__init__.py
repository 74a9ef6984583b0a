"""`retune optimize` and `retune init`: the same Jobs on this machine, without a cluster."""
