"""What the command line reads from a cluster and changes in a spec, with the caller's own kubeconfig and rights.

One call at a time, because a person waits for it. Every error is an `AccessError` with the next step.
"""

import json
from collections.abc import Callable
from http.client import HTTPException

import urllib3
from pydantic import ValidationError

from retune.api.base import Json
from retune.api.objects import ModelOptimization, OptimizationRun
from retune.cli.declared import MANAGER
from retune.cli.words import meant
from retune.cluster.client import MERGE_PATCH, Request, Response, configuration, official_transport
from retune.cluster.errors import NoCluster, NotFound, Transient, error_of
from retune.cluster.kinds import MODEL_OPTIMIZATIONS, OPTIMIZATION_RUNS, Kind
from retune.cluster.kubeconfig import current_namespace
from retune.workloads.labels import RESOURCE

PODS = Kind("", "v1", "pods", "Pod")
JOBS = Kind("batch", "v1", "jobs", "Job")


class AccessError(Exception):
    """The cluster could not be read: what is wrong and what to do next, in one sentence each."""


class Unreachable(AccessError):  # noqa: N818 - named after what it says of the cluster
    """The API server gave no answer. It may do so later."""


class Cluster:
    """A cluster as one user sees it from one namespace.

    Args:
        send: Sends a request to the API server.
        namespace: Namespace of everything that is named without one.
    """

    def __init__(self, send: Callable[[Request], Response], *, namespace: str) -> None:
        self._send = send
        self.namespace = namespace

    @classmethod
    def connect(cls, *, context: str | None = None, namespace: str | None = None) -> "Cluster":
        """Return the cluster of a context of the kubeconfig.

        Args:
            context: Name of the context; the current one where it is left out.
            namespace: Namespace to look at; that of the context where it is left out.

        Raises:
            AccessError: There is no such cluster.
        """
        try:
            return cls(
                official_transport(configuration(context=context), threads=1),
                namespace=namespace or current_namespace(context),
            )
        except NoCluster as error:
            raise AccessError(str(error)) from error

    def resources(self, *, everywhere: bool = False) -> list[Json]:
        """Return every ModelOptimization of the namespace, or of all namespaces."""
        return self._items(MODEL_OPTIMIZATIONS, None if everywhere else self.namespace)

    def resource(self, name: str) -> Json:
        """Return one ModelOptimization as the API server holds it; raises AccessError where there is none."""
        try:
            return self.call("GET", MODEL_OPTIMIZATIONS.path(self.namespace, name))
        except NotFound as error:
            others = [raw["metadata"]["name"] for raw in self.resources()]  # says so when the kind itself is missing
            hint = meant(name, others) or "`retune status -A` shows all"
            text = f"there is no ModelOptimization {name} in namespace {self.namespace}: {hint}"
            raise AccessError(text) from error

    def change(self, name: str, patch: Json) -> Json:
        """Change one ModelOptimization by a JSON merge patch, and return it as it is then."""
        path = MODEL_OPTIMIZATIONS.path(self.namespace, name)
        request = Request("PATCH", path, {"fieldManager": MANAGER}, patch, MERGE_PATCH)
        document: Json = json.loads(self._answer(request).body)
        return document

    def runs(self, name: str) -> list[OptimizationRun]:
        """Return the runs of one ModelOptimization, oldest first."""
        items = self._items(OPTIMIZATION_RUNS, self.namespace, f"{RESOURCE}={name}")
        return sorted(map(parsed_run, items), key=lambda run: run.spec.number)

    def jobs(self, name: str) -> list[Json]:
        """Return the Jobs of one ModelOptimization."""
        return self._items(JOBS, self.namespace, f"{RESOURCE}={name}")

    def read(self, path: str, **query: str) -> bytes:
        """Return the body of a GET; raises AccessError, or NotFound where there is no such object."""
        return self._answer(Request("GET", path, query)).body

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """Return the JSON answer of a request; raises AccessError, or NotFound where there is no such object."""
        document: Json = json.loads(self._answer(Request(method, path, body=body)).body)
        return document

    def _items(self, kind: Kind, namespace: str | None, selector: str = "") -> list[Json]:
        try:
            document = json.loads(self.read(kind.path(namespace), labelSelector=selector))
        except NotFound as error:
            raise AccessError(
                f"the cluster does not know {kind.name}: install Retune with `helm install retune charts/retune`"
            ) from error
        items: list[Json] = document["items"]
        return items

    def _answer(self, request: Request) -> Response:
        try:
            response = self._send(request)
        except (OSError, HTTPException, urllib3.exceptions.HTTPError) as error:
            why = str(error) if type(error) is ConnectionError else type(error).__name__
            raise Unreachable(
                f"the API server does not answer ({why}): check KUBECONFIG and `kubectl version`"
            ) from error
        if response.status < 300:
            return response
        problem = error_of(request.method, request.path, response.status, _status(response.body))
        if isinstance(problem, NotFound):
            raise problem
        may_pass = isinstance(problem, Transient) and response.status != 401
        raise (Unreachable if may_pass else AccessError)(str(problem)) from problem


def _status(body: bytes) -> Json:
    try:
        document = json.loads(body)
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}


def parsed(raw: Json) -> ModelOptimization:
    """Return the typed resource; raises AccessError when this version of the command line cannot read it."""
    try:
        return ModelOptimization.model_validate(raw)
    except ValidationError as error:
        raise _unreadable(raw, error) from error


def parsed_run(raw: Json) -> OptimizationRun:
    """Return the typed run; raises AccessError when this version of the command line cannot read it."""
    try:
        return OptimizationRun.model_validate(raw)
    except ValidationError as error:
        raise _unreadable(raw, error) from error


def _unreadable(raw: Json, error: ValidationError) -> AccessError:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(str(part) for part in first["loc"])
    name = raw.get("metadata", {}).get("name", "?")
    return AccessError(
        f"{raw.get('kind', 'object')} {name} cannot be read ({where}: {first['msg']}): update this command"
    )
