"""The agent beside a running server: what is wanted serves once it is proved, and what served stays otherwise.

OpenVINO Model Server is played: no package has it. The same is done with a real Triton in tests/neighbours.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from optimizer_jobs.agent.following import LOOK_SECONDS, Follower
from optimizer_jobs.agent.pages import pages
from optimizer_jobs.agent.wanted import digest_in, read_wanted
from optimizer_jobs.commands.verify.asking import Patience
from optimizer_jobs.data.volumes import local_path
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.version_numbers import number_of
from optimizer_jobs.serving.running.ovms import EMPTY, OvmsServer
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef
from tests.unit.jobs.http_for_tests import served
from tests.unit.jobs.ovms_for_tests import PlayedOvms

SHORT = Patience(call_seconds=2.0, total_seconds=0.5)


@dataclass
class Pod:
    """A pod with a played server, the agent, and the volume with the wanted URI."""

    folder: Path
    server: PlayedOvms
    published: list[BundleRef]
    now: float = 0.0
    agent: Follower = field(init=False)

    def __post_init__(self) -> None:
        self.start_agent()

    @property
    def file(self) -> Path:
        """What the agent watches."""
        return self.folder / "wanted" / "uri"

    def start_agent(self) -> None:
        """Start the agent, or start it anew: it knows nothing."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        server = OvmsServer(self.server.address, self.server.models.config.parent, loading_seconds=5)
        self.agent = Follower(server, "digits", self.file, scratch, patience=SHORT, clock=lambda: self.now)

    def want(self, uri: str | None) -> None:
        """Give the volume a new content, as the kubelet does: a folder beside, and a link that is renamed."""
        volume = self.file.parent
        volume.mkdir(exist_ok=True)
        revision = volume / f"..rev-{len(list(volume.iterdir()))}"
        revision.mkdir()
        if uri is not None:
            (revision / "uri").write_text(f"{uri}\n")
        (volume / "..data_tmp").symlink_to(revision.name)
        (volume / "..data_tmp").replace(volume / "..data")
        if not self.file.is_symlink():
            self.file.symlink_to("..data/uri")

    def serves(self) -> str | None:
        """Number of the version that answers users."""
        states = self.server.models.models.get("digits", {})
        return next((number for number, version in states.items() if version.session), None)


@pytest.fixture
def pod(tmp_path: Path, make: Callable[..., Bundle], store: str) -> Iterator[Pod]:
    """A server that serves nothing yet, and two bundles."""
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "config.json").write_bytes(EMPTY)
    made = (make(f"threads-{threads}", engine=EngineOptions(threads=threads)) for threads in (1, 2))
    server = PlayedOvms(folder)
    with served(server):
        yield Pod(tmp_path, server, [publish(bundle, uri=bundles(store)) for bundle in made])


def version(reference: BundleRef) -> str:
    """The number under which a bundle is served."""
    return str(number_of(reference.digest))


def test_what_is_wanted_serves_and_a_later_look_does_nothing(pod: Pod) -> None:
    """Proved by its golden requests under another name first, which goes again."""
    one, other = pod.published
    for reference in (one, other, one):
        pod.want(reference.uri)
        standing = pod.agent.look()
        assert (standing.is_ready, standing.served, standing.fault) == (True, reference.digest, None)
        assert pod.serves() == version(reference)
    asked, loads = pod.server.models.asked, pod.agent.standing.loads
    assert pod.agent.look().is_ready
    assert (pod.server.models.asked, pod.agent.standing.loads) == (asked, loads) == (asked, 3)
    entries = json.loads(pod.server.models.config.read_text())["model_config_list"]
    assert [entry["config"]["name"] for entry in entries] == ["digits"]
    assert len(list(pod.agent.scratch.iterdir())) == 1, "copies of other bundles are removed"


def test_nothing_is_wanted_until_the_file_says_so(pod: Pod) -> None:
    """No file, an empty one, and one whose key is gone: the server is left alone."""
    assert pod.agent.look().is_ready
    pod.want(None)
    assert pod.agent.look().is_ready
    pod.want("")
    assert pod.agent.look().is_ready
    assert (pod.server.models.models, pod.agent.standing.loads) == ({}, 0)
    pod.want(pod.published[0].uri)
    assert pod.agent.look().is_ready
    pod.want(None)
    assert pod.agent.look().is_ready
    assert pod.serves() == version(pod.published[0])


@pytest.mark.parametrize(
    "content", ["digits", "pvc://store/model.onnx", "a b", "pvc://a/" + 64 * "a" + "\npvc://b/" + 64 * "b"]
)
def test_a_file_that_names_no_bundle_is_said(pod: Pod, content: str) -> None:
    """And what serves stays."""
    pod.want(pod.published[0].uri)
    assert pod.agent.look().is_ready
    pod.want(content)
    standing = pod.agent.look()
    assert not standing.is_ready
    assert "is not the URI of one bundle" in str(standing.fault)
    assert pod.serves() == version(pod.published[0])


@pytest.mark.parametrize("how", ["missing", "damaged", "refused", "wrong"])
def test_a_version_that_cannot_serve_leaves_the_old_one_serving(
    pod: Pod, how: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line says why; attempts are made in growing pauses; and once it is well, it serves."""
    one, other = pod.published
    pod.want(one.uri)
    assert pod.agent.look().is_ready
    words, repair = spoil(pod, how, other)
    pod.want(other.uri)
    capsys.readouterr()
    waits = []
    for _ in range(4):
        standing = pod.agent.look()
        assert (standing.is_ready, standing.served) == (False, one.digest)
        assert words in str(standing.fault)
        assert pod.serves() == version(one)
        waits.append(pod.agent._not_before - pod.now)
        pod.now = pod.agent._not_before
    assert waits == [LOOK_SECONDS * 2**number for number in range(4)]
    (line,) = capsys.readouterr().out.splitlines()
    assert words in line
    assert line.endswith(f"Bundle {one.digest} serves on.")
    repair()
    assert pod.agent.look().is_ready
    assert pod.serves() == version(other)


def spoil(pod: Pod, how: str, reference: BundleRef) -> tuple[str, Callable[[], object]]:
    """Let a bundle not be served; returns what a sentence has to say, and what makes it well again."""
    folder, models = local_path(reference.uri), pod.server.models
    if how == "missing":
        aside = folder.rename(folder.with_name("aside"))
        return "there is no bundle", lambda: aside.rename(folder)
    if how == "damaged":
        whole = (folder / "model.onnx").read_bytes()
        (folder / "model.onnx").write_bytes(whole + b"x")
        return "model.onnx has digest", lambda: (folder / "model.onnx").write_bytes(whole)
    if how == "wrong":
        models.spoiled = frozenset({"digits.retune-next"})
        return "the answer to golden request 0 is not the recorded one", lambda: setattr(models, "spoiled", frozenset())
    models.refuses = version(reference)
    return "Cannot load network", lambda: setattr(models, "refuses", None)


def test_a_wanted_version_is_heeded_while_another_one_is_waited_for(pod: Pod) -> None:
    """The pauses are those of one version."""
    one, other = pod.published
    spoil(pod, "damaged", one)
    pod.want(one.uri)
    for _ in range(5):
        assert not pod.agent.look().is_ready
        pod.now = pod.agent._not_before
    pod.agent.look()
    pod.want(other.uri)
    assert pod.agent.look().is_ready


def test_a_server_that_has_lost_its_models_gets_them_again(pod: Pod) -> None:
    """The wanted one; or, where that cannot be had, the one that was proved last."""
    one, other = pod.published
    pod.want(one.uri)
    assert pod.agent.look().is_ready
    pod.server.models.models.clear()
    assert pod.agent.look().is_ready
    assert (pod.serves(), pod.agent.standing.loads) == (version(one), 2)
    spoil(pod, "damaged", other)
    pod.want(other.uri)
    assert not pod.agent.look().is_ready
    pod.server.models.models.clear()
    standing = pod.agent.look()
    assert (pod.serves(), standing.served, standing.is_ready) == (version(one), one.digest, False)


def test_an_agent_that_starts_anew_proves_what_serves_and_takes_its_trial_away(pod: Pod) -> None:
    """It was killed while it tried a version: what is left of that goes, and users are asked for nothing."""
    one, other = pod.published
    pod.want(one.uri)
    assert pod.agent.look().is_ready
    bundle = pod.agent._opened[one.uri]
    pod.agent.server.load(bundle, name="digits.retune-next")
    pod.start_agent()
    assert pod.agent.standing.served is None
    standing = pod.agent.look()
    assert (standing.is_ready, standing.loads) == (True, 0)
    assert pod.server.models.available("digits.retune-next") is None
    pod.want(other.uri)
    assert pod.agent.look().is_ready


def test_a_version_that_answers_wrongly_only_to_users_is_taken_back(pod: Pod) -> None:
    """Its trial was right, and what users are answered is not: the old one is put back."""
    one, other = pod.published
    pod.want(one.uri)
    assert pod.agent.look().is_ready
    pod.server.models.spoils = version(other)
    pod.want(other.uri)
    standing = pod.agent.look()
    assert "golden request 0" in str(standing.fault)
    assert (pod.serves(), standing.served, standing.is_ready) == (version(one), one.digest, False)


def test_a_server_that_does_not_answer_yet_is_asked_often(pod: Pod, tmp_path: Path) -> None:
    """It starts, maybe for minutes, and then is not to be waited for."""
    pod.want(pod.published[0].uri)
    pod.agent.server = OvmsServer("http://127.0.0.1:1", tmp_path / "models")
    for _ in range(8):
        assert "it does not answer" in str(pod.agent.look().fault)
        assert pod.agent._not_before - pod.now <= 10
        pod.now = pod.agent._not_before


def test_pages_tell_how_it_stands(pod: Pod) -> None:
    """`/ready` is 200 only where what is wanted serves and was proved."""
    one, _ = pod.published
    with pages(pod.agent, port=0) as port:
        assert asked(port, "/ready")[0] == 200
        pod.want(f"{one.uri[:-1]}0")
        pod.agent.look()
        status, document = asked(port, "/ready")
        assert (status, document["ready"], document["served"]) == (503, False, None)
        assert "there is no bundle" in str(document["fault"])
        pod.want(one.uri)
        pod.agent.look()
        status, document = asked(port, "/version")
        assert (status, document["ready"], document["fault"]) == (200, True, None)
        assert (document["wanted"], document["served"]) == (one.uri, one.digest)
        assert document["modelVersion"] == version(one)
        assert asked(port, "/ready")[0] == 200
        assert asked(port, "/")[0] == 404
        with pytest.raises(JobError, match="cannot be had"), pages(pod.agent, port=port):
            pass


def asked(port: int, path: str) -> tuple[int, dict[str, object]]:
    """Status and document of an answer."""
    try:
        with urlopen(f"http://127.0.0.1:{port}{path}", timeout=10) as answer:
            return answer.status, json.load(answer)
    except HTTPError as error:
        content = error.read()
        return error.code, json.loads(content) if content else {}


def test_a_wanted_uri_names_its_digest(tmp_path: Path) -> None:
    """With or without a slash at its end, and on a line of its own."""
    file = tmp_path / "uri"
    for text in (f"pvc://store/bundles/{64 * 'a'}", f"s3://bucket/x/{64 * 'a'}/\n"):
        file.write_text(text)
        uri = read_wanted(file)
        assert uri == text.strip().rstrip("/")
        assert digest_in(uri) == f"sha256:{64 * 'a'}"
