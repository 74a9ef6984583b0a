"""Programs that clusters have beside the operator, real and pinned, on API servers of the tests' own.

They are built on first use, which takes minutes, so that each has a make target of its own.
"""

from tests.cluster.conftest import bench, hung_up

__all__ = ["bench", "hung_up"]
