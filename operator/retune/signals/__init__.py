"""Live numbers: bounded reads of what pods and allowed Prometheus servers say, never from an address a user chose."""
