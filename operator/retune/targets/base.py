"""What every kind of target can do. A new kind is one module that keeps this Protocol, and one registry line."""

from collections.abc import Iterable
from typing import Protocol

from retune.api.base import Json
from retune.plan.observed import Pods, ServingPod, Target


class TargetKind(Protocol):
    """One kind of workload, as pure functions over its JSON."""

    api_version: str
    kind: str
    resource: str
    """Plural name in URLs and RBAC rules."""

    def path(self, *, namespace: str, name: str | None = None) -> str:
        """Return the URL path of one object, or of the namespace's list when `name` is None."""

    def parse(self, raw: Json, *, variable: str) -> Target:
        """Return what the workload's controller last reported; `variable` is the environment variable we may own."""

    def apply_body(self, *, name: str, uid: str, container: str, variable: str, value: str | None) -> Json:
        """Return the body of the server-side apply that owns exactly the variable's value.

        None gives the field up. The UID makes the server refuse when the workload was replaced or is gone.
        """

    def pod_selector(self, raw: Json) -> str:
        """Return the label selector of the workload's pods, as a URL parameter wants it (not yet quoted)."""

    def pods(self, raw: Json, pods: Iterable[Json], *, container: str, variable: str, port: int) -> Pods:
        """Return the pods that run the workload's present model: who answers, and what keeps others from it."""

    def serving(self, raw: Json, pods: Iterable[Json], *, container: str) -> tuple[ServingPod, ...]:
        """Return the workload's running pods, of whatever model, for their own metrics."""
