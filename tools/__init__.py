"""What the example, the tests and the benchmarks share, and what keeps this repository in order. Never shipped."""
