"""A real Ray Serve is given versions while it runs, by the agent and the application of examples/servers/ray_serve."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
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
    log: Path

    def said(self) -> str:
        """What Ray wrote."""
        return self.log.read_text(errors="replace")[-4000:]

    def replicas(self) -> list[str]:
        """Which replicas there are."""
        found = asked(f"{self.dashboard}{APPLICATIONS}")["applications"]["default"]["deployments"]["Served"]
        return [replica["replica_id"] for replica in found["replicas"]]

    def infer(self) -> str:
        """Ask as a user does, and return the digest in the answer; a file as delivered has none."""
        kinds = {"x": "FP32", "index": "INT64"}
        inputs = [
            {"name": name, "shape": list(values.shape), "datatype": kinds[name], "data": values.ravel().tolist()}
            for name, values in ASKED.items()
        ]
        answer = asked(f"{self.address}/v2/models/model/infer", {"inputs": inputs})
        return str((answer.get("parameters") or {}).get("bundle_digest"))


def asked(url: str, document: object = None, *, method: str | None = None) -> dict[str, Any]:
    """The JSON of an answer, or nothing where it has none."""
    body = None if document is None else json.dumps(document).encode()
    request = Request(url, body, {"Content-Type": "application/json"}, method=method)  # noqa: S310 - our own
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - our own
        content = answer.read()
    return json.loads(content) if content else {}


def answers(url: str) -> bool:
    """Whether somebody answers well."""
    try:
        asked(url)
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
        environment = os.environ | dict(variables) | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": temporary}
        command = [str(environment_of("ray_serve") / "bin" / "python"), "-c", HEAD, str(dashboard)]
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        made = Application(f"http://127.0.0.1:{dashboard}", f"http://127.0.0.1:{port}", folder / "log")
        try:
            wait_for(lambda: answers(f"{made.dashboard}{APPLICATIONS}"), what="Ray", seconds=SECONDS, hint=made.said)
            config = yaml.safe_load((folder / "serve.yaml").read_text())
            config["http_options"] = {"host": "127.0.0.1", "port": port}
            asked(f"{made.dashboard}{APPLICATIONS}", config, method="PUT")
            ready = f"{made.address}/v2/models/model/ready"
            wait_for(lambda: answers(ready), what="application", seconds=SECONDS, hint=made.said)
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
    published: list[BundleRef], tmp_path: Path
) -> None:
    """None is replaced; a damaged bundle leaves the old one serving; and the verify Job's own code says Digest."""
    one, other = published
    with deployed(tmp_path / "application", {"PYTHONPATH": str(tmp_path / "application")}) as application:
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
