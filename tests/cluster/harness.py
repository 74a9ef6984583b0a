"""The operator's parts without its watches: every pass is asked for, every call can be counted, failed or cut off.

Nothing is simulated but the moment of a fault: the API server is real, and what is asserted is what it holds.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from kubernetes import client as official
from kubernetes import config as official_config

from retune.cluster.client import Connection, Request, Response, Transport, official_transport
from retune.runtime import Operator
from retune.settings import Settings
from tests import samples
from tools.localcluster.api import Api, ApiError
from tools.localcluster.controlplane import ControlPlane

Json = dict[str, Any]
MERGE = "application/merge-patch+json"
RESOURCES = "/apis/retune.dev/v1alpha1"


class Crash(BaseException):
    """The process is killed here: nothing of ours may catch it."""


@dataclass
class Spy:
    """A transport that remembers what went through it and fails where it is told to.

    before, after: called with the number of the call and the request, before it is sent and after it was answered;
    what they raise is what the operator meets.
    """

    send: Transport
    before: Callable[[int, Request], None] | None = None
    after: Callable[[int, Request], None] | None = None
    seen: list[Request] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        """Send one request."""
        self.seen.append(request)
        number = len(self.seen)
        if self.before:
            self.before(number, request)
        response = self.send(request)
        if self.after:
            self.after(number, request)
        return response

    @property
    def writes(self) -> list[str]:
        """Method and collection of every write, in order."""
        return [f"{each.method} {kind_of(each.path)}" for each in self.seen if each.method != "GET"]

    @property
    def reads(self) -> list[str]:
        """Path of every read."""
        return [each.path for each in self.seen if each.method == "GET"]


@dataclass
class Clock:
    """A clock that a test moves: hours of windows pass in no time, and none ends by chance."""

    now: datetime = field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    def __call__(self) -> datetime:
        """Return the moment it shows."""
        return self.now

    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    def drive(self, operator: Operator) -> Operator:
        """Let an operator decide by this clock; returns it."""
        operator.reconciler._clock = operator.reader._clock = self
        operator.reader._began = self()
        operator.live._clock = lambda: self().timestamp()
        return operator


def kind_of(path: str) -> str:
    """The plural name in a namespaced path, with its subresource."""
    parts = path.partition("/namespaces/")[2].split("/")[1:]
    return "/".join(parts[:1] + parts[2:])


def transport_of(kubeconfig: Path, *, token: str | None = None) -> Transport:
    """The official client on that kubeconfig, as its user or as the bearer of a token."""
    found = official.Configuration(retries=False)
    official_config.load_kube_config(config_file=str(kubeconfig), client_configuration=found)
    if token:
        found.cert_file = found.key_file = None
        found.refresh_api_key_hook = None  # it would bring the kubeconfig's own credentials back
        found.api_key = {"BearerToken": token}
        found.api_key_prefix = {"BearerToken": "Bearer"}
    return official_transport(found, threads=4)


class Bench:
    """A namespace of its own on the real API server, and operators in it that come and go."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.api = Api(plane.kubeconfig)
        self.send = transport_of(plane.kubeconfig)
        self.namespace = f"t-{uuid.uuid4().hex[:10]}"
        self.spy = Spy(self.send)
        self._operators: list[Operator] = []
        self.api.request("POST", "/api/v1/namespaces", {"metadata": {"name": self.namespace}})

    def operator(
        self, spy: Spy | None = None, *, login: Callable[[], Connection] | None = None, **settings: Any
    ) -> Operator:
        """A new process: nothing remembered, everything read from the server."""
        self.spy = spy or Spy(self.send)
        chosen = Settings(namespaces=(self.namespace,), metrics_port=0, optimizer_image="optimizer:test", **settings)
        found = Operator(chosen, transport=self.spy, login=login)
        self._operators.append(found)
        return found

    def close(self) -> None:
        """Stop what was started."""
        for operator in self._operators:
            operator.client.close()
        with absent_is_fine():
            self.api.request("DELETE", f"/api/v1/namespaces/{self.namespace}")

    def path(self, plural: str, name: str = "", *, api: str = RESOURCES) -> str:
        """URL path in the namespace."""
        return f"{api}/namespaces/{self.namespace}/{plural}" + (f"/{name}" if name else "")

    def create(self, plural: str, body: Json, *, api: str) -> Json:
        """Create an object in the namespace."""
        return self.api.request("POST", self.path(plural, api=api), body)

    def items(self, plural: str, *, api: str) -> list[Json]:
        """What of a kind is in the namespace."""
        found: list[Json] = self.api.get(self.path(plural, api=api))["items"]
        return found

    @property
    def jobs(self) -> list[Json]:
        """Jobs in the namespace."""
        return self.items("jobs", api="/apis/batch/v1")

    @property
    def leases(self) -> list[Json]:
        """Leases in the namespace."""
        return self.items("leases", api="/apis/coordination.k8s.io/v1")

    def resource(self, name: str = "digits") -> Json:
        """A ModelOptimization as the server holds it."""
        return self.api.get(self.path("modeloptimizations", name))

    def condition(self, kind: str, name: str = "digits") -> Json:
        """One of its conditions."""
        found: Json = next(each for each in self.resource(name)["status"]["conditions"] if each["type"] == kind)
        return found

    def declare(
        self,
        name: str = "digits",
        *,
        target: str = "digits-server",
        ref: Json | None = None,
        given: Json | None = None,
        **spec: Any,
    ) -> str:
        """Create a ModelOptimization; returns its key. Its Jobs wait for a queue that nobody serves.

        target: name of its target. ref: API version and kind of that, where it is no Deployment. given: how a model is
        given to it.
        """
        document = samples.manifest(**({"execution": {"queueName": "nobody"}} | spec))
        document["metadata"] = {"name": name, "namespace": self.namespace}
        document["spec"]["target"] = {"ref": {"name": target} | (ref or {})} | (given or {})
        self.api.request("POST", self.path("modeloptimizations"), document)
        return f"{self.namespace}/{name}"

    def serve(self, **labels: str) -> Json:
        """Create the Service of the Deployment that serves, which selects by these labels, or by its only one."""
        spec = {"selector": labels or {"app": "digits-server"}, "ports": [{"port": 80}]}
        return self.create("services", {"metadata": {"name": "digits"}, "spec": spec}, api="/api/v1")

    def deploy(
        self,
        name: str = "digits-server",
        *,
        value: str | None = None,
        replicas: int = 0,
        more: Json | None = None,
        **metadata: Any,
    ) -> Json:
        """Create the Deployment that serves, as kubectl would apply it.

        more: labels that it selects its pods by, besides the one with its name. metadata: labels and owners of its own.
        """
        env = [{"name": "MODEL_URI", "value": value}] if value is not None else []
        container = {"name": "server", "image": "server:test", "env": env, "resources": {"limits": {"cpu": "2"}}}
        labels = {"app": name} | (more or {})
        body = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": name, **metadata},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }
        return self.api.apply(self.path("deployments", name, api="/apis/apps/v1"), body)

    def patch(self, path: str, body: Json) -> Json:
        """Change an object."""
        return self.api.request("PATCH", path, body, kind=MERGE)


def env_of(bench: Bench) -> list[Json]:
    """The serving container's environment."""
    raw = bench.api.get(bench.path("deployments", "digits-server", api="/apis/apps/v1"))
    found: list[Json] = raw["spec"]["template"]["spec"]["containers"][0].get("env", [])
    return found


async def settle(operator: Operator, key: str) -> tuple[bool, float | None]:
    """List everything, then do one pass."""
    await operator.resync.once()
    return await operator.reconciler.run(key)


@contextmanager
def absent_is_fine() -> Iterator[None]:
    """Ignore that an object is gone."""
    try:
        yield
    except ApiError as error:
        if error.status != 404:
            raise
