"""An application of Ray Serve is given a bundle by its config alone; Ray is played here."""

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.serving.running import RunningServer
from optimizer_jobs.serving.running import ray as ray_module
from optimizer_jobs.serving.running.ray import RayServer, ray_token
from retune.contract.paths import bundles
from retune.contract.results import Reason
from tests.unit.jobs.http_for_tests import served

CONFIG: dict[str, Any] = {
    "name": "default",
    "route_prefix": "/",
    "import_path": "following:app",
    "runtime_env": {"env_vars": {"TOKEN": "t"}},
    "deployments": [
        {"name": "Other", "user_config": {"limit": 3}},
        {"name": "Served", "num_replicas": 2, "user_config": {"model_uri": "", "more": 1}},
    ],
}
HTTP: dict[str, Any] = {"http_options": {"port": 8000}, "proxy_location": "EveryNode"}


@dataclass
class Ray:
    """Applications as Ray's dashboard tells them, and what was put."""

    applications: dict[str, Any] = field(default_factory=dict)
    put: list[dict[str, Any]] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)
    """Digest that replicas name once they are given a URI; they keep the one before for others."""
    digest: str | None = None
    status: str = "RUNNING"
    refusal: str | None = None
    token: str | None = None
    """What the dashboard wants to see."""

    def details(self) -> dict[str, Any]:
        """What a GET tells."""
        told = {
            name: {"status": self.status, "message": "", "deployed_app_config": config, "deployments": {}}
            for name, config in self.applications.items()
        }
        return {"applications": told, "target_capacity": 7.0, **HTTP}

    def deploy(self, document: dict[str, Any]) -> None:
        """What a PUT does."""
        self.put.append(document)
        self.applications = {config["name"]: config for config in document["applications"]}
        uri = self.applications["default"]["deployments"][1]["user_config"]["model_uri"]
        self.digest = self.digests.get(uri, self.digest)


class Handler(BaseHTTPRequestHandler):
    """The dashboard, and the model's own page."""

    server: "PlayedRay"

    def do_GET(self) -> None:
        """Tell the applications, or the model."""
        ray = self.server.ray
        if self._is_locked():
            return
        parameters = {"bundle_digest": ray.digest} if ray.digest else {}
        self._say(200, ray.details() if self.path.startswith("/api/") else {"name": "model", "parameters": parameters})

    def do_PUT(self) -> None:
        """Deploy."""
        if self._is_locked():
            return
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.server.ray.refusal:
            self._say(400, {"error": self.server.ray.refusal})
            return
        self.server.ray.deploy(document)
        self._say(200, {})

    def _is_locked(self) -> bool:
        """Refuse the dashboard to who does not show its token, in the words of Ray 2.60."""
        shown, token = self.headers.get("Authorization"), self.server.ray.token
        if not token or not self.path.startswith("/api/") or shown == f"Bearer {token}":
            return False
        self._say(403 if shown else 401, "Unauthorized")
        return True

    def _say(self, status: int, document: Any) -> None:
        content = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class PlayedRay(ThreadingHTTPServer):
    """Ray, on a free port of this machine."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ray = Ray({"default": copy.deepcopy(CONFIG), "other": {"name": "other", "import_path": "x:y"}})

    @property
    def address(self) -> str:
        """Its URL."""
        return f"http://127.0.0.1:{self.server_address[1]}"


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Iterator[PlayedRay]:
    """Ray with two applications; one that is at rest without the bundle is not waited for."""
    monkeypatch.setattr(ray_module, "_REST_SECONDS", 0.0)
    server = PlayedRay()
    with served(server):
        yield server


@pytest.fixture
def bundle(make: Callable[..., Bundle]) -> Bundle:
    """A bundle."""
    return make()


@pytest.fixture
def uris(bundle: Bundle, store: str) -> dict[str, str]:
    """Where it lies."""
    return {bundle.digest: publish(bundle, uri=bundles(store)).uri}


def of(played: PlayedRay, uris: dict[str, str], **more: Any) -> RunningServer:
    """What talks to it."""
    given = {"token": lambda: None} | more
    return RayServer(played.address, played.address, uris=uris, loading_seconds=10, **given)


def test_one_value_of_the_config_is_changed_and_all_else_put_back(
    played: PlayedRay, bundle: Bundle, uris: dict[str, str]
) -> None:
    """Other applications, deployments and keys are as they were read, or Ray would take them away."""
    server = of(played, uris)
    assert not server.serves(bundle, name="model")
    played.ray.digests = {uris[bundle.digest]: bundle.digest}
    server.load(bundle, name="model")
    (put,) = played.ray.put
    expected = copy.deepcopy(CONFIG)
    expected["deployments"][1]["user_config"]["model_uri"] = uris[bundle.digest]
    assert put["applications"] == [expected, {"name": "other", "import_path": "x:y"}]
    assert {name: put[name] for name in put if name != "applications"} == {"target_capacity": 7.0, **HTTP}
    assert server.serves(bundle, name="model")
    assert server.endpoint(name="model") == f"{played.address}/v2/models/model"


@pytest.mark.parametrize("status", ["RUNNING", "DEPLOY_FAILED", "UNHEALTHY"])
def test_a_bundle_that_replicas_do_not_take_is_put_back(
    played: PlayedRay, bundle: Bundle, uris: dict[str, str], status: str
) -> None:
    """The config is what it was; the reason is in their log, or Ray tells it."""
    played.ray.status = status
    with pytest.raises(JobError, match="does not serve bundle") as caught:
        of(played, uris).load(bundle, name="model")
    assert caught.value.reason is Reason.SERVER_REFUSED
    assert len(played.ray.put) == 2
    assert played.ray.applications["default"] == CONFIG


def test_replicas_that_still_open_a_bundle_are_waited_for(
    played: PlayedRay, bundle: Bundle, uris: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Ray deploys, it does not serve; nothing is put back before the time is over."""
    played.ray.digests = {uris[bundle.digest]: bundle.digest}
    played.ray.status = "DEPLOYING"
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        played.ray.status = "RUNNING" if len(pauses) > 3 else "DEPLOYING"

    monkeypatch.setattr("optimizer_jobs.serving.running.ray.time.sleep", pause)
    of(played, uris).load(bundle, name="model")
    assert len(pauses) == 4
    assert len(played.ray.put) == 1


def test_an_application_that_cannot_be_given_a_bundle_is_said(
    played: PlayedRay, bundle: Bundle, uris: dict[str, str]
) -> None:
    """It is not there, or has no place for a URI, or Ray refuses: nothing is changed."""
    with pytest.raises(JobError, match="there is no application 'nobody'"):
        of(played, uris, application="nobody").load(bundle, name="model")
    with pytest.raises(JobError, match=r"no deployment of its config file has user_config\.model_uri"):
        of(played, uris, application="other").serves(bundle, name="model")
    with pytest.raises(JobError, match="it serves 'model' alone"):
        of(played, uris).unload(name="model")
    played.ray.refusal = "no such deployment"
    with pytest.raises(JobError, match="no such deployment"):
        of(played, uris).load(bundle, name="model")
    assert played.ray.put == []


def test_the_dashboard_is_shown_the_token_of_its_cluster(
    played: PlayedRay, bundle: Bundle, uris: dict[str, str]
) -> None:
    """Ray wants one by default; the model's own page does not, so it is not told there."""
    played.ray.token = "sesame"
    played.ray.digests = {uris[bundle.digest]: bundle.digest}
    of(played, uris, token=lambda: "sesame").load(bundle, name="model")
    assert len(played.ray.put) == 1


@pytest.mark.parametrize("shown", [None, "wrong"])
def test_a_dashboard_that_wants_another_token_says_how_to_give_it(
    played: PlayedRay, bundle: Bundle, uris: dict[str, str], shown: str | None
) -> None:
    """It passes once the token is there, so it is tried again soon; and no token is in the sentence."""
    played.ray.token = "sesame"
    with pytest.raises(JobError, match="Set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH") as caught:
        of(played, uris, token=lambda: shown).load(bundle, name="model")
    assert caught.value.reason is Reason.SERVER_UNREACHABLE
    assert "wrong" not in str(caught.value)


def test_the_token_is_looked_for_where_ray_looks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable, the file that another one names, and the file that Ray writes itself; else there is none."""
    monkeypatch.setenv("HOME", str(tmp_path))
    assert ray_token({}) is None
    own, named = tmp_path / ".ray" / "auth_token", tmp_path / "named"
    own.parent.mkdir()
    own.write_text("own\n")
    named.write_text("named\n")
    assert ray_token({}) == "own"
    assert ray_token({"RAY_AUTH_TOKEN_PATH": str(named)}) == "named"
    assert ray_token({"RAY_AUTH_TOKEN_PATH": str(named), "RAY_AUTH_TOKEN": "given"}) == "given"
    assert ray_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "missing")}) is None
