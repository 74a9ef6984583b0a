"""Training a model anew: techniques that say how, one module each, and the trainers that do it."""
