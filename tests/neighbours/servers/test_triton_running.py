"""A real Triton that runs is given one bundle after another: what it serves, refuses, and keeps."""

from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import replay
from optimizer_jobs.serving.running import RunningServer
from optimizer_jobs.serving.running.session import ServedSession
from optimizer_jobs.serving.running.triton import TritonServer
from retune.contract.results import Reason
from tests.neighbours.triton import serving
from tests.unit.jobs.served_for_tests import KINDS, bundle_of

pytestmark = pytest.mark.timeout(180)
EXPLICIT = ("--model-control-mode=explicit", "--allow-metrics=false")


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model repository with nothing in it."""
    folder = tmp_path / "models"
    folder.mkdir()
    return folder


@pytest.fixture
def server(repository: Path, tmp_path: Path) -> Iterator[TritonServer]:
    """Triton, ready, and serving nothing."""
    (tmp_path / "server").mkdir()
    with serving(repository, tmp_path / "server", *EXPLICIT) as running:
        yield TritonServer(running.address, repository, loading_seconds=60)


def differences(server: TritonServer, bundle: Bundle, name: str) -> list[str | None]:
    """Return how each golden request is answered otherwise than recorded."""
    session = ServedSession(server.web, server.endpoint(name=name), bundle.manifest.signature, seconds=30)
    with closing(session):
        return [replay(session, request, golden=bundle.golden) for request in bundle.golden.requests]


def test_bundles_of_every_kind_are_served_side_by_side(server: TritonServer, tmp_path: Path) -> None:
    """Texts, half floats, missing numbers and states go through binary tensors, and come back as recorded."""
    for kind in KINDS:
        bundle = bundle_of(kind, tmp_path / kind)
        server.load(bundle, name=kind)
        assert server.serves(bundle, name=kind)
        assert set(differences(server, bundle, kind)) == {None}
    assert server.web.about == "triton 2.51.0"


def test_a_name_gets_another_bundle_and_then_none(
    server: TritonServer, repository: Path, make: Callable[..., Bundle]
) -> None:
    """Each time it is told apart by its digest; when it is unloaded, its folder goes."""
    known: RunningServer = server
    first, second = make(), make(folder="other", engine=EngineOptions(threads=2))
    assert not known.serves(first, name="digits")
    for bundle, other in ((first, second), (second, first), (first, second)):
        known.load(bundle, name="digits")
        assert (known.serves(bundle, name="digits"), known.serves(other, name="digits")) == (True, False)
        assert set(differences(server, bundle, "digits")) == {None}
    assert [path.name for path in repository.iterdir()] == ["digits"]
    known.unload(name="digits")
    assert not known.serves(first, name="digits")
    assert list(repository.iterdir()) == []
    known.unload(name="digits")


def test_what_triton_refuses_leaves_the_former_serving(
    server: TritonServer, repository: Path, make: Callable[..., Bundle], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that its engine cannot open: its own words are passed on, and the folder of the former is back."""
    first, second = make(), make(folder="other", engine=EngineOptions(threads=2))
    server.load(first, name="digits")
    real = TritonServer._load

    def spoiled(self: TritonServer, bundle: Bundle, name: str) -> None:
        next((repository / name).glob("*/model.onnx")).write_bytes(b"no model")
        real(self, bundle, name)

    monkeypatch.setattr(TritonServer, "_load", spoiled)
    for name in ("digits", "other"):
        with pytest.raises(JobError) as refused:
            server.load(second, name=name)
        assert refused.value.reason is Reason.SERVER_REFUSED
        assert "INVALID_PROTOBUF" in str(refused.value), str(refused.value)
    assert server.serves(first, name="digits")
    assert set(differences(server, first, "digits")) == {None}
    assert [path.name for path in repository.iterdir()] == ["digits"]
    monkeypatch.undo()
    server.load(second, name="digits")
    assert server.serves(second, name="digits")
