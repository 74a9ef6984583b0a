"""Stores of objects with conditional create, and what stands on them: bundles, journals of studies, signs of life."""
