"""An S3 server for the local cluster, for examples without a shared volume: versitygw, built from its Go module."""

from __future__ import annotations

from tools.localcluster import binaries, images, packages
from tools.localcluster.settings import REGISTRY, Settings
from tools.localcluster.shell import ClusterError

IMAGE = f"{REGISTRY}/versitygw:dev"


def ensure(settings: Settings) -> str:
    """Build the server and load its image into the running cluster; returns its name."""
    packages.ensure(settings)
    if not settings.containerd_socket.exists():
        raise ClusterError("the cluster does not run, so images cannot be loaded; start it with `up`")
    program = binaries.ensure(settings, ("storage",))["versitygw"]
    images.load(settings, IMAGE, images.of_program(settings, IMAGE, "versitygw", program.parent))
    return IMAGE
