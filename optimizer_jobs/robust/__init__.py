"""Models that hold when inputs are changed to deceive: training against it, and measuring it."""
