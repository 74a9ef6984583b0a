"""What runs in the pod of a server of others, from the wheel `retune-runtime`: before it starts, and beside it."""
