"""Making models smaller or faster: quantization, pruning, factorization, and passes over the graph."""
