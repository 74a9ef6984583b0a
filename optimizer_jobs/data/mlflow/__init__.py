"""Models in MLflow, read from its tracking server by REST: no library of MLflow is needed."""
