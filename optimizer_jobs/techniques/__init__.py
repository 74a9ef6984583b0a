"""The techniques that a search may combine, one module each, their registry, and how those of one plan are applied."""
