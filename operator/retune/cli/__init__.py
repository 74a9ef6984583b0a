"""`retune` and `kubectl retune`: see what the operator does. Reads the cluster; never changes a spec or a status."""
