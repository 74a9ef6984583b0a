"""Estimates without labels on real shifts, where the labels are known."""
