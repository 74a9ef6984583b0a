"""Models: checking a delivered file, the bundle, and running it. The model server imports this package too."""
