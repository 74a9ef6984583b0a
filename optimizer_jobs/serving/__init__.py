"""Bundles in the layout of model servers of others: `render` writes one, and says what the server cannot express."""
