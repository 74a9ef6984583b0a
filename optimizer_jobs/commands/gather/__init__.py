"""Data of a run from recent production rows: what is true of them, split in the order of time."""
