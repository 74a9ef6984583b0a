"""A real Kubernetes cluster on one Linux machine without Docker: for tests, demos and development.

It exists because a test against a fake API server proves little, and because kind needs a Docker engine that many
machines lack. It must never touch another cluster, a machine's own containerd, or a process it did not start.
"""
