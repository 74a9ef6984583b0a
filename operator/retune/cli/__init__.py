"""`retune` and `kubectl retune`: show what the operator does, and steer it by fields of the spec."""
