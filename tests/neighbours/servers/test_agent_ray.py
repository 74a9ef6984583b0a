"""A real Ray Serve is given versions while it runs, by the agent and the application of examples/servers/ray_serve."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest
import yaml

from optimizer_jobs.commands.verify import command as verify
from optimizer_jobs.data.volumes import local_path
from optimizer_jobs.models.bundle import publish
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.serving.running.ray import ray_token
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef, VerifyRequest
from tests.neighbours.following import following, users
from tests.neighbours.servers.serving import environment_of, scratch
from tests.unit.jobs.lookup_for_tests import ASKED, lookup_bundle, save_lookup
from tools.localcluster.controlplane import free_ports
from tools.localcluster.settings import REPOSITORY
from tools.localcluster.shell import wait_for

pytestmark = pytest.mark.timeout(600)
SECONDS = 240.0
APPLICATIONS = "/api/serve/applications/"
HEAD = """
import signal, sys, threading
import ray

ended = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: ended.set())
ray.init(include_dashboard=True, dashboard_host="127.0.0.1", dashboard_port=int(sys.argv[1]), num_cpus=2)
ended.wait()
ray.shutdown()
"""
"""Ray as a process that ends all of its own, and nobody else's."""


@dataclass(frozen=True)
class Application:
    """An application that was deployed from a config file."""

    dashboard: str
    address: str
    home: Path
    """Where Ray keeps the token of its cluster."""
    log: Path

    def said(self) -> str:
        """What Ray wrote, and what it tells of the application."""
        written = self.log.read_text(errors="replace")[-2000:]
        with suppress(OSError, LookupError):
            found = self.deployment()["applications"]["default"]
            parts = [found, *found["deployments"].values()]
            return "\n".join([written, *(f"{part['name']} is {part['status']}: {part['message']}" for part in parts)])
        return written

    def replicas(self) -> list[str]:
        """Which replicas there are."""
        found = self.deployment()["applications"]["default"]["deployments"]["Served"]
        return [replica["replica_id"] for replica in found["replicas"]]

    def deployment(self, config: object = None) -> dict[str, Any]:
        """What Ray tells of its applications, or of what it is to deploy, as who has the token of its cluster."""
        token = ray_token({"RAY_AUTH_TOKEN_PATH": str(self.home / ".ray" / "auth_token")})
        method = None if config is None else "PUT"
        return asked(f"{self.dashboard}{APPLICATIONS}", config, method=method, token=token)

    def infer(self) -> str:
        """Ask as a user does, and return the digest in the answer; a file as delivered has none."""
        kinds = {"x": "FP32", "index": "INT64"}
        inputs = [
            {"name": name, "shape": list(values.shape), "datatype": kinds[name], "data": values.ravel().tolist()}
            for name, values in ASKED.items()
        ]
        answer = asked(f"{self.address}/v2/models/model/infer", {"inputs": inputs})
        return str((answer.get("parameters") or {}).get("bundle_digest"))


def asked(url: str, document: object = None, *, method: str | None = None, token: str | None = None) -> dict[str, Any]:
    """The JSON of an answer, or nothing where it has none."""
    body = None if document is None else json.dumps(document).encode()
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    request = Request(url, body, headers, method=method)  # noqa: S310 - our own
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - our own
        content = answer.read()
    return json.loads(content) if content else {}


def answers(ask: Callable[[], object]) -> bool:
    """Whether somebody answers well."""
    try:
        ask()
    except (URLError, ConnectionError, TimeoutError):
        return False
    return True


@contextmanager
def deployed(folder: Path, variables: Mapping[str, str]) -> Iterator[Application]:
    """Have the example's application in a Ray of its own, with the file that was delivered."""
    shutil.copytree(REPOSITORY / "examples" / "servers" / "ray_serve", folder)
    save_lookup(folder / "model.onnx")
    dashboard, port = free_ports(2)
    with scratch() as temporary, (folder / "log").open("wb") as log:
        own = {"HOME": str(folder), "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": temporary}
        environment = os.environ | dict(variables) | own
        command = [str(environment_of("ray_serve") / "bin" / "python"), "-c", HEAD, str(dashboard)]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        made = Application(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{port}", folder, folder / "log")
        try:
            wait_for(lambda: answers(made.deployment), what="Ray", seconds=SECONDS, hint=made.said)
            config = yaml.safe_load((folder / "serve.yaml").read_text())
            config["http_options"] = {"host": "127.0.0.1", "port": port}
            made.deployment(config)
            ready = f"{made.address}/v2/models/model/ready"
            wait_for(lambda: answers(lambda: asked(ready)), what="application", seconds=SECONDS, hint=made.said)
            yield made
        finally:
            process.terminate()
            process.wait(60)


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[BundleRef]:
    """Two versions of one model."""
    claims = tmp_path / "claims"
    (claims / "store").mkdir(parents=True)
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(claims))
    made = [lookup_bundle(tmp_path / str(number), engine=EngineOptions(threads=number)) for number in (1, 2)]
    return [publish(bundle, uri=bundles("pvc://store/lookup")) for bundle in made]


def test_new_versions_reach_the_replicas_that_run_without_a_failed_request(
    published: list[BundleRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is replaced, and the agent finds the token that Ray has made.

    A damaged bundle leaves the old one serving, and the verify Job's own code says Digest.
    """
    one, other = published
    with deployed(tmp_path / "application", {"PYTHONPATH": str(tmp_path / "application")}) as application:
        monkeypatch.setenv("HOME", str(application.home))
        places = ("--address", application.address, "--dashboard", application.dashboard)
        with following(tmp_path, "--server", "ray", "--name", "model", *places) as agent:
            before = application.replicas()
            with users(application.infer) as asking:
                for reference in (one, other, one):
                    agent.want(reference)
                    agent.until_served(reference)
                    wanted = VerifyRequest(
                        resource="ml/lookup", bundle=reference, endpoints=(application.address,), model_name="model"
                    )
                    assert verify.run(wanted).shown_by == "Digest"
                with (local_path(other.uri) / "model.onnx").open("ab") as file:
                    file.write(b"x")
                agent.want(other)
                agent.until(lambda told: "model.onnx has digest" in str(told.get("fault")), what="fault")
            assert asking.failures == []
            assert {one.digest, other.digest} <= set(asking.answered) <= {"None", one.digest, other.digest}
            assert asking.answered[-1] == one.digest
            assert application.replicas() == before
