"""Bundles as images in an OCI registry, for KServe and for Kubernetes' image volumes."""
