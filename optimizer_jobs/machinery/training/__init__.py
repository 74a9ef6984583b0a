"""Training a model as all training techniques of one plan together say, with one trainer for each family of models."""
