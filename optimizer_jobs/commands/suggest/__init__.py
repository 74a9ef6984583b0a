"""The command `suggest`: which captured rows are worth a label, for `retune labels suggest`."""
