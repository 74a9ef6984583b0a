"""What `retune init` and the baseline both ask of a model and its data before anything is spent on them."""
