"""Training a model anew as all training techniques of one plan together say: one trainer a family of models."""
