"""The report of a run: one page for people, one document for machines, with the same content."""
