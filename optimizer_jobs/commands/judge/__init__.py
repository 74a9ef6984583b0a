"""The judge Job: champion and finalists side by side on the sealed test split, and one verdict with its numbers."""
