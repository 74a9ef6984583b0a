"""The gather Job: it builds the data of a run from recent labelled production rows, split in the order of time."""
