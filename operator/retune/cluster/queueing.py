"""Why a Job waits in a queue, in the words of Kueue, which keeps a Workload for every Job that carries its label."""

from collections.abc import Iterable

from retune.api.base import Json
from retune.cluster.client import Client, Request
from retune.cluster.errors import NotFound, Refused
from retune.cluster.kinds import WORKLOADS
from retune.cluster.parse import JobFacts, line
from retune.workloads.labels import KUEUE_JOB

NOT_SERVED = "this cluster has no Kueue: install it, or leave spec.execution.queueName out"
NOT_TAKEN_UP = "Kueue has not taken it up: see that it runs, and that it manages this namespace"
_PATHS = "; preemptor path:"
"""What begins the part of Kueue's sentence on a Job that was stopped, in which it says where in its tree of queues."""


class QueueReader:
    """Asks why Jobs wait.

    Args:
        client: Reads Workloads.
    """

    def __init__(self, client: Client) -> None:
        self._client = client

    async def why(self, namespace: str, job: JobFacts) -> str | None:
        """Return why a Job of this namespace waits for its queue; None where Kueue does not say, or may not be asked.

        Releases of Kueue differ in the versions of the API that they serve, so the newest that is served is asked.
        """
        query = {"labelSelector": f"{KUEUE_JOB}={job.uid}", "limit": "2"}
        for kind in WORKLOADS:
            try:
                answer = await self._client.call(Request("GET", kind.path(namespace), query))
            except NotFound:
                continue
            except Refused:
                return None  # an administrator has taken this right away: the Job just waits, unexplained
            return why_waiting(answer["items"])
        return NOT_SERVED


def why_waiting(workloads: Iterable[Json]) -> str | None:
    """Return why a Job waits, by its Workloads: that it was stopped for another, and what keeps it from beginning."""
    newest = max(workloads, key=lambda workload: str(workload["metadata"].get("creationTimestamp")), default=None)
    if newest is None:
        return NOT_TAKEN_UP
    conditions = {entry["type"]: entry for entry in (newest.get("status") or {}).get("conditions") or ()}
    stopped = conditions.get("Evicted", {}).get("status") == "True"
    reserved = conditions.get("QuotaReserved", {})
    waits = reserved.get("status") == "False"
    said = [line(conditions["Evicted"].get("message")).partition(_PATHS)[0]] if stopped else []
    said += [line(reserved.get("message"))] if waits else []
    return "; ".join(dict.fromkeys(message for message in said if message)) or None
