"""Live numbers: what pods and allowed Prometheus servers say. Never read without bounds or from a user's address."""
