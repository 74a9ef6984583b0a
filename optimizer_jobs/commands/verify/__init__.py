"""Ask live pods, and hold their answers against those of the bundle that they are to serve."""
