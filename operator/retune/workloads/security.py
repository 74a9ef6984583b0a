"""Security contexts of every pod that Retune creates; they fit Pod Security `restricted`."""

from typing import Final

from retune.api.base import Json
from retune.job_template import PodTemplate

_POD: Final[Json] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY: Final[Json] = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


def pod_security(template: PodTemplate) -> Json:
    """Return the security context of a Job's pod."""
    return _POD | template.security


POD_SECURITY: Final[Json] = pod_security(PodTemplate())
"""The same for pods that people create themselves, who know nothing of the administrator's template."""
