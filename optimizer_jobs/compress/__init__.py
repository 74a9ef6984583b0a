"""Techniques that make a model smaller or faster, one module each behind one Protocol, found in one registry."""
