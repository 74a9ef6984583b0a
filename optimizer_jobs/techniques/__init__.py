"""The techniques that a search may combine: a module for each, their registry, and the steps that apply them."""
