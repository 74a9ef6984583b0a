"""All talk with the Kubernetes API, and the only importer of its client. Raw dictionaries enter and leave here."""
