"""The report of a run: a page for people and a document for machines, with the same content."""
