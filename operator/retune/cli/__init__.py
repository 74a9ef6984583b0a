"""`retune` and `kubectl retune`: show what the operator does. They never change a spec or a status."""
