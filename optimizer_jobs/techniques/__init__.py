"""What a technique is, which there are, and how those of one plan are applied in order."""
