"""What every kind of target can do. A new kind is a module that keeps this Protocol, and a line in the registry.

The JSON of a workload may have two fields more than its object: BESIDE, with the JSON of Deployments that say something
of it, by name; and DRIVER, with kind and name of another workload that takes its pods from it.
"""

from collections.abc import Iterable
from typing import Protocol

from retune.api.base import Json
from retune.plan.observed import Pods, ServingPod, Target

BESIDE, DRIVER = "beside", "driver"


class TargetKind(Protocol):
    """One kind of workload, as pure functions of its JSON."""

    api_version: str
    """Such as `apps/v1`."""
    kind: str
    """Such as `Deployment`."""
    resource: str
    """Plural name in URLs and RBAC rules, such as `deployments`."""
    merges_lists: bool
    """Whether patches merge its lists by name. Those of a CustomResourceDefinition are replaced whole."""

    def path(self, *, namespace: str, name: str | None = None) -> str:
        """Return the URL path of one object, or of the namespace's list when `name` is None."""

    def trimmed(self, raw: Json) -> Json:
        """Return the part of the workload's JSON that the other methods look at, equal where nothing of it changed."""

    def beside(self, name: str) -> tuple[str, ...]:
        """Return the names of Deployments that say something of the workload of this name, where they are there."""

    def drives(self, raw: Json) -> str | None:
        """Return the name of the Deployment whose template the workload takes its own pods from, if it does."""

    def parse(self, raw: Json, *, variable: str) -> Target:
        """Return the workload as its controller last reported it.

        Args:
            raw: The workload's JSON.
            variable: Name of the environment variable that names the model.
        """

    def apply_body(
        self, *, name: str, uid: str, container: str, variable: str, value: str | None, is_init: bool = False
    ) -> Json:
        """Return the body of the server-side apply that owns exactly the variable's value.

        Args:
            name: Name of the workload.
            uid: UID of the workload, so that the server refuses when it was replaced or is gone.
            container: Name of the container that loads the model.
            variable: Name of the environment variable.
            value: Value to set; None gives the field up.
            is_init: Whether that container runs before the others.
        """

    def pod_selector(self, raw: Json) -> str:
        """Return the label selector of the workload's pods as a URL parameter, not yet quoted."""

    def pods(self, raw: Json, pods: Iterable[Json], *, container: str, variable: str, port: int) -> Pods:
        """Return which pods of the workload's present model are ready, and what keeps one from it.

        Args:
            raw: The workload's JSON.
            pods: JSON of the pods that its selector finds, which may belong to others.
            container: Name of the container that loads the model.
            variable: Name of the environment variable that names the model.
            port: HTTP port of the model server.
        """

    def serving(self, raw: Json, pods: Iterable[Json], *, container: str) -> tuple[ServingPod, ...]:
        """Return the workload's running pods, of whatever model, so that their own metrics can be read.

        Args:
            raw: The workload's JSON.
            pods: JSON of the pods that its selector finds, which may belong to others.
            container: Name of the container that loads the model.
        """
