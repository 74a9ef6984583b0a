"""Quality metrics: each as a value, and as a function of how often every row counts, from which intervals follow."""
