"""Data and files from claims: where they lie, bringing them in, and reading them as rows."""
