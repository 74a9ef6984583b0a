"""Checking a delivered model, storing it as a bundle, and running it. Model servers import this package too."""
