"""Live numbers from pods: bounded reads of what they serve, never from an address a user chose."""
