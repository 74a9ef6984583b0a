"""The inspect command: what a model and its data are, what was guessed of them, and why."""
