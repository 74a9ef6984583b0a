"""An application of Ray Serve that was deployed from a config file, and has a deployment with `user_config.model_uri`.

Its replicas open the bundle themselves, in `reconfigure`, and keep the model that they have where they cannot. Ray
calls that on replicas that run, so that none is replaced. What else the config file says is put back as it was read.
"""

import copy
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from pathlib import Path
from typing import Any

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.serving.base import called
from optimizer_jobs.serving.running.web import LOADING_SECONDS, PAUSE_SECONDS, Web, model_path
from retune.contract.results import Reason

DASHBOARD = "http://127.0.0.1:8265"
KEY = "model_uri"
"""Key of a deployment's `user_config` with the bundle's URI."""
_APPLICATIONS = "/api/serve/applications/"
_KEPT = ("http_options", "proxy_location", "target_capacity")
_AT_REST = {"RUNNING", "DEPLOY_FAILED", "UNHEALTHY"}
_REST_SECONDS = 10.0
"""Time after which an application at rest without the bundle is not waited for any more."""
_TOKEN, _TOKEN_FILE, _OWN_TOKEN_FILE = "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "~/.ray/auth_token"
"""Where Ray looks for the token of its cluster: two variables, and the file that it writes itself."""
_UNKNOWN = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}


def ray_token(environment: Mapping[str, str]) -> str | None:
    """Return the token that a process with this environment shows to Ray's dashboard; None where there is none."""
    if token := environment.get(_TOKEN, "").strip():
        return token
    with suppress(OSError, UnicodeDecodeError, RuntimeError):  # the last one: there is no home
        return Path(environment.get(_TOKEN_FILE) or _OWN_TOKEN_FILE).expanduser().read_text().strip() or None
    return None


class RayServer:
    """A `RunningServer`: one application of Ray Serve, which serves one model."""

    def __init__(
        self,
        address: str,
        dashboard: str = DASHBOARD,
        *,
        application: str = "default",
        uris: Mapping[str, str],
        loading_seconds: float = LOADING_SECONDS,
        token: Callable[[], str | None] = lambda: ray_token(os.environ),
    ) -> None:
        """Know an application, without asking it anything.

        Args:
            address: `http://HOST:PORT` of Ray Serve's HTTP.
            dashboard: `http://HOST:PORT` of Ray's dashboard, whose API deploys.
            application: Name of the application.
            uris: Where each bundle lies, by digest: replicas may be on other machines.
            loading_seconds: Longest time in which all replicas open a bundle.
            token: What the dashboard wants to see; asked at each request, as Ray may write it later than this starts.
        """
        self.web, self._open_dashboard = Web("Ray Serve", address.rstrip("/")), Web("Ray", dashboard.rstrip("/"))
        self._token = token
        self._application, self._uris, self._seconds = application, uris, loading_seconds

    def load(self, bundle: Bundle, *, name: str) -> None:
        """Have all replicas open a bundle; see `RunningServer`."""
        before = self._details()
        self._deploy(before, self._uris[bundle.digest])
        if self._arrives(bundle, name):
            return
        told = self._told(self._details())
        self._deploy(before, None)
        raise self.web.refused(called(bundle), told or "its replicas kept the model that they had; their log says why")

    def unload(self, *, name: str) -> None:
        """Refuse, because an application without its model is none."""
        raise JobError(
            Reason.REQUEST_INVALID, f"application {self._application}", f"it serves {name!r} alone.", "Delete it."
        )

    def serves(self, bundle: Bundle, *, name: str) -> bool:
        """Return whether every replica was given a bundle, and the one that answers now names it."""
        details = self._details()
        found = self._found(details)
        if found.get("status") != "RUNNING" or self._uris.get(bundle.digest) != _uri_in(found):
            return False
        metadata = self.web.get(model_path(name)).document
        parameters = metadata.get("parameters") if isinstance(metadata, dict) else None
        return isinstance(parameters, dict) and parameters.get("bundle_digest") == bundle.digest

    def endpoint(self, *, name: str) -> str:
        """Return the URL of the model."""
        return f"{self.web.address}{model_path(name)}"

    @property
    def _dashboard(self) -> Web:
        """The dashboard, with the token that it wants to see."""
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return replace(self._open_dashboard, headers=headers)

    def _arrives(self, bundle: Bundle, name: str) -> bool:
        """Return whether all replicas come to serve a bundle; not where Ray is at rest with another one."""
        end, rested = time.monotonic() + self._seconds, 0.0
        while not self.serves(bundle, name=name):
            now = time.monotonic()
            rested = (rested or now) if self._found(self._details()).get("status") in _AT_REST else 0.0
            if now > end or (rested and now - rested > _REST_SECONDS):
                return False
            time.sleep(PAUSE_SECONDS)
        return True

    def _details(self) -> dict[str, Any]:
        answer = self._dashboard.get(_APPLICATIONS)
        document = answer.document
        if answer.status in _UNKNOWN:
            raise self._locked(answer.status)
        if not answer.is_good or not isinstance(document, dict):
            raise self._dashboard.unreachable(f"it does not tell its applications ({answer.words})")
        return document

    def _locked(self, status: int) -> JobError:
        """Return the error that the dashboard does not believe this process."""
        return JobError(
            Reason.SERVER_UNREACHABLE,
            f"Ray at {self._open_dashboard.address}",
            f"its dashboard wants the token of its cluster (it answered {status}).",
            f"Set {_TOKEN}, or {_TOKEN_FILE} to a file with it, where this agent runs.",
        )

    def _found(self, details: Mapping[str, Any]) -> dict[str, Any]:
        """Return what is told of the application; raises JobError where it cannot be given a bundle."""
        known = (details.get("applications") or {}).get(self._application)
        if not isinstance(known, dict):
            raise self._dashboard.unreachable(f"there is no application {self._application!r}")
        if _uri_in(known) is None:
            raise JobError(
                Reason.REQUEST_INVALID,
                f"application {self._application} of Ray Serve",
                f"no deployment of its config file has user_config.{KEY}.",
                f"Deploy it from a config file with user_config: {{{KEY}: ''}}, as examples/servers/ray_serve is.",
            )
        return known

    def _deploy(self, details: Mapping[str, Any], uri: str | None) -> None:
        """Put the config that was read, with another URI; None puts it back as it was."""
        self._found(details)
        configs = {name: known.get("deployed_app_config") for name, known in details["applications"].items()}
        given = {name: copy.deepcopy(config) for name, config in configs.items() if isinstance(config, dict)}
        for deployment in given[self._application]["deployments"]:
            if uri is not None and KEY in (deployment.get("user_config") or {}):
                deployment["user_config"][KEY] = uri
        body = {key: details[key] for key in _KEPT if details.get(key)} | {"applications": list(given.values())}
        answer = self._dashboard.put(_APPLICATIONS, body, seconds=self._seconds)
        if not answer.is_good:
            raise self._dashboard.refused(f"application {self._application!r} with another bundle", answer.words)

    def _told(self, details: Mapping[str, Any]) -> str:
        """Return what Ray says of the application and its deployments, without a full stop."""
        found = self._found(details)
        parts = [found, *(found.get("deployments") or {}).values()]
        return "; ".join(str(part["message"]) for part in parts if part.get("message"))


def _uri_in(application: Mapping[str, Any]) -> str | None:
    """Return the URI in an application's config; None where it has no place for one."""
    config = application.get("deployed_app_config")
    deployments = (config.get("deployments") or []) if isinstance(config, dict) else []
    uris = [(deployment.get("user_config") or {}).get(KEY) for deployment in deployments]
    return next((str(uri) for uri in uris if uri is not None), None)
