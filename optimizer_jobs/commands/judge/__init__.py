"""The judge Job: it compares champion and finalists on the test split, and gives one verdict with its numbers."""
