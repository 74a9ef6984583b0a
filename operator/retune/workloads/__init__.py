"""Manifests of what the operator creates, as pure builders: the same action gives the same manifest.

Nothing here reads the cluster, the clock or the environment.
"""

from retune.workloads.jobs import job_manifest, too_long
from retune.workloads.records import lease_manifest, lease_name, run_manifest

__all__ = ["job_manifest", "lease_manifest", "lease_name", "run_manifest", "too_long"]
