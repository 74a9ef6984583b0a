"""The keys by which Jobs seal what they record in the store, so that a record that others put there is not believed.

A key belongs to one resource, one run and one command. It is computed and never stored: from the resource's UID, which
no Job gets to know, and from the administrator's own key where there is one. So a Job can forge no record of another
resource, nor the verdict on its own candidates.
"""

import hashlib
import hmac

from retune.contract.paths import SEAL_VARIABLE, STUDY_SEAL_VARIABLE
from retune.contract.requests import GatherRequest, JobRequest, JudgeRequest, SearchRequest


def seals(request: JobRequest, *, uid: str, key: str | None) -> dict[str, str]:
    """Return the environment variables with the keys that a Job seals its records by.

    Args:
        request: What the Job is asked.
        uid: UID of the resource.
        key: The administrator's own key; None where there is none.
    """
    if not isinstance(request, GatherRequest | SearchRequest):
        return {}
    study = {STUDY_SEAL_VARIABLE: _derived("search", request.run, uid=uid, key=key)}
    own = {SEAL_VARIABLE: _derived(request.command, request.run, uid=uid, key=key)}
    if isinstance(request, JudgeRequest):
        return own | study
    return study if isinstance(request, SearchRequest) else own


def _derived(command: str, run: str, *, uid: str, key: str | None) -> str:
    """Return the key of a command in a run, in hexadecimal."""
    return hmac.new((key or "").encode(), f"{uid}/{run}/{command}".encode(), hashlib.sha256).hexdigest()
