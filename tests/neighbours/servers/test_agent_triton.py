"""A stock Triton whose pod has the agent: what is prepared before it starts, and what it is given while it runs."""

import json
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from optimizer_jobs.agent import environment
from optimizer_jobs.agent.command import main
from optimizer_jobs.commands.verify import command as verify
from optimizer_jobs.data.volumes import local_path
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import open_bundle, publish
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.version_numbers import number_of
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef, VerifyRequest
from retune.contract.results import Reason, VerifyResult
from tests.neighbours.following import Agent, following, users
from tests.neighbours.triton import Triton, serving
from tests.unit.jobs.lookup_for_tests import lookup_bundle, save_lookup
from tools.localcluster.controlplane import free_ports

pytestmark = pytest.mark.timeout(600)
EXPLICIT = "--model-control-mode=explicit"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[BundleRef]:
    """Two versions of one model, which answer the same: only what the server says tells one from the other."""
    (tmp_path / "claims" / "store").mkdir(parents=True)
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path / "claims"))
    made = [lookup_bundle(tmp_path / str(number), engine=EngineOptions(threads=number)) for number in (1, 2)]
    return [publish(bundle, uri=bundles("pvc://store/lookup")) for bundle in made]


def verified(server: Triton, reference: BundleRef) -> VerifyResult:
    """Do what the verify Job does with a pod."""
    wanted = VerifyRequest(resource="ml/digits", bundle=reference, endpoints=(server.address,), model_name="digits")
    return verify.run(wanted)


def prepare(folder: Path, *more: str) -> int:
    """Do what the init container does."""
    return main(["render", "--server", "triton", "--name", "digits", "--into", str(folder), *more])


def test_the_answers_of_a_prepared_triton_prove_their_bundle(
    published: list[BundleRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The verify Job's own code says Digest, and knows the version before for what it is by its number alone."""
    one, other = published
    monkeypatch.setenv("MODEL_URI", one.uri)
    assert prepare(tmp_path / "models") == 0
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "models", tmp_path / "server") as server:
        result = verified(server, one)
        assert (result.shown_by, result.requests) == ("Digest", 1)
        assert server.get("/v2/models/digits")["versions"] == [str(number_of(one.digest))]
        with pytest.raises(JobError) as caught:
            verified(server, other)
    assert caught.value.reason is Reason.VARIABLE_IGNORED
    assert f"serves version {number_of(one.digest)}" in caught.value.message


def test_the_model_as_delivered_is_served_until_a_bundle_is_named(
    published: list[BundleRef], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As version 1: its right answers prove no bundle."""
    monkeypatch.delenv(environment.BUNDLE_VARIABLE, raising=False)
    assert prepare(tmp_path / "models", "--delivered", str(save_lookup(tmp_path / "delivered.onnx"))) == 0
    (tmp_path / "server").mkdir()
    with serving(tmp_path / "models", tmp_path / "server") as server:
        assert server.get("/v2/models/digits")["versions"] == ["1"]
        assert verified(server, published[0]).shown_by is None


def beside(folder: Path, server: str) -> AbstractContextManager[Agent]:
    """Have the agent beside a Triton that reads the folder's `models`."""
    place = ("--address", server, "--models", str(folder / "models"))
    return following(folder, "--server", "triton", "--name", "digits", *place)


def asked(server: Triton, body: bytes) -> str:
    """Ask as a user does, and return the version that has answered."""
    return str(server.infer("digits", body, {"Content-Type": "application/json"})["model_version"])


def test_new_versions_reach_a_running_triton_without_a_failed_request(
    published: list[BundleRef], tmp_path: Path
) -> None:
    """Versions go to and fro, also to a smaller number; a damaged one, and an agent that is killed, change nothing."""
    one, other = published
    (tmp_path / "models").mkdir()
    (tmp_path / "server").mkdir()
    with (
        serving(tmp_path / "models", tmp_path / "server", EXPLICIT) as server,
        beside(tmp_path, server.address) as agent,
    ):
        agent.want(one)
        agent.until_served(one)
        body = json.dumps(open_bundle(one.uri).golden.requests[0].body("user")).encode()
        with users(lambda: asked(server, body)) as asking:
            for reference in (other, one, other):
                agent.want(reference)
                agent.until_served(reference)
                assert verified(server, reference).shown_by == "Digest"
            with (local_path(one.uri) / "model.onnx").open("ab") as file:
                file.write(b"x")
            agent.want(one)
            agent.until(lambda told: "model.onnx has digest" in str(told.get("fault")), what="fault")
            assert agent.told()["served"] == other.digest
            agent.kill()
            agent.start()
            agent.until(lambda told: "model.onnx has digest" in str(told.get("fault")), what="fault")
            assert verified(server, other).shown_by == "Digest"
        assert asking.failures == []
        assert set(asking.answered) == {str(number_of(reference.digest)) for reference in published}
        assert asking.answered[-1] == str(number_of(other.digest))
        assert server.get("/v2/models/digits")["versions"] == [str(number_of(other.digest))]


def test_a_triton_that_was_killed_gets_the_wanted_version_again(published: list[BundleRef], tmp_path: Path) -> None:
    """It starts with nothing, as it was told to: the agent gives it what the file names, and nobody else has to act."""
    (port,) = free_ports(1)
    (tmp_path / "models").mkdir()
    with beside(tmp_path, f"http://127.0.0.1:{port}") as agent:
        agent.want(published[0])
        agent.until(lambda told: "does not answer" in str(told.get("fault")), what="fault")
        for number in range(2):
            (tmp_path / f"server-{number}").mkdir()
            with serving(tmp_path / "models", tmp_path / f"server-{number}", EXPLICIT, port=port) as server:
                agent.until_served(published[0])
                assert verified(server, published[0]).shown_by == "Digest"
                server.process.kill()
                agent.until(lambda told: not told.get("ready"), what="fault")
    assert agent.said().count("which its golden requests have proved") == 2
