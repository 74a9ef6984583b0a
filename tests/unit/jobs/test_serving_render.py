"""Writing a layout: always the same bytes, all of it or nothing, and only into an empty folder."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from optimizer_jobs.errors import JobError
from optimizer_jobs.models.bundle import Bundle, Lineage
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.golden import Golden
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.models.version_numbers import DELIVERED, number_of
from optimizer_jobs.serving import render as render_module
from optimizer_jobs.serving.render import render
from retune.contract.requests import Server
from retune.contract.results import Reason
from tests.unit.jobs.served_for_tests import bundle_of

CONFIG = {Server.TRITON: "digits/config.pbtxt", Server.OVMS: "config.json"}


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder by its path."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("server", Server)
def test_the_same_bundle_gives_the_same_bytes(make: Callable[..., Bundle], tmp_path: Path, server: Server) -> None:
    """Also where another run has made it again, at another place: a change of the folder is a change of the bundle."""
    bundle = make(lineage=Lineage(resource="ml/digits", run="digits-r1", original_model="sha256:0"))
    again = make("again", lineage=Lineage(resource="ml/digits", run="digits-r2", original_model="sha256:0"))
    made = [render(each, server, name="digits", into=tmp_path / each.folder.name / "serve") for each in (bundle, again)]
    first, second = (contents(tmp_path / each.folder.name / "serve") for each in (bundle, again))
    assert first == second
    assert made[0] == made[1]
    assert made[0].files == tuple(sorted(first))


@pytest.mark.parametrize("server", Server)
def test_the_model_and_its_external_data_lie_side_by_side(
    make: Callable[..., Bundle], delivered: Path, tmp_path: Path, server: Server
) -> None:
    """They are the bundle's own bytes, and the model opens where it lies."""
    split = tmp_path / "split" / "model.onnx"
    split.parent.mkdir()
    model = onnx.load(delivered / "mlp.onnx")
    onnx.save(model, split, save_as_external_data=True, location="weights.bin", size_threshold=0)
    bundle = make(model=split)
    render(bundle, server, name="digits", into=tmp_path / "serve")
    folder = tmp_path / "serve" / "digits" / str(number_of(bundle.digest))
    assert contents(folder) == {name: (bundle.folder / name).read_bytes() for name in ("model.onnx", "weights.bin")}
    assert open_model(folder / "model.onnx", EngineOptions()).signature == bundle.manifest.signature


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "ä", "x" * 129, "a\n"])
def test_a_name_that_is_no_folder_or_no_path_of_a_request_is_refused(
    make: Callable[..., Bundle], tmp_path: Path, name: str
) -> None:
    """Nothing is written, inside or outside the folder."""
    bundle, before = make(), sorted(tmp_path.rglob("*"))
    with pytest.raises(JobError, match="this can be no model's name") as caught:
        render(bundle, Server.TRITON, name=name, into=tmp_path / "serve")
    assert caught.value.reason is Reason.REQUEST_INVALID
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_in_use_is_left_alone(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """A server may be reading it; an empty one is taken."""
    into = tmp_path / "serve"
    into.mkdir()
    bundle = make()
    render(bundle, Server.TRITON, name="digits", into=into)
    before = contents(into)
    for place in (into, into / CONFIG[Server.TRITON]):
        with pytest.raises(JobError, match="this is not an empty folder"):
            render(bundle, Server.OVMS, name="digits", into=place)
    assert contents(into) == before


@pytest.mark.parametrize("existed", [False, True])
def test_half_a_layout_is_never_left(
    make: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, existed: bool
) -> None:
    """A disk that fills up while the model is copied leaves the place as it was."""
    into = tmp_path / "serve"
    if existed:
        into.mkdir()
    written = list[Path]()

    def place(target: Path, content: bytes | Path) -> None:
        if written:
            raise OSError(28, "No space left on device")
        written.append(target)
        original(target, content)

    original = render_module._place
    monkeypatch.setattr(render_module, "_place", place)
    with pytest.raises(OSError, match="No space left"):
        render(make(), Server.TRITON, name="digits", into=into)
    assert written
    assert into.is_dir() == existed
    assert not existed or not any(into.iterdir())


def test_everybody_may_read_it(make: Callable[..., Bundle], tmp_path: Path) -> None:
    """Servers run as users of their own, and a person's umask may shut them out."""
    mask = os.umask(0o077)
    try:
        render(make(), Server.TRITON, name="digits", into=tmp_path / "serve")
    finally:
        os.umask(mask)
    modes = {path.is_dir(): path.stat().st_mode & 0o777 for path in (tmp_path / "serve").rglob("*")}
    assert modes == {True: 0o755, False: 0o644}
    assert (tmp_path / "serve").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("server", Server)
def test_a_model_as_delivered_is_the_first_version_and_no_bundle(
    make: Callable[..., Bundle], tmp_path: Path, server: Server
) -> None:
    """Whoever asks the server learns no digest, for there is none that names what it serves."""
    bundle = make(golden=Golden())
    made = render(bundle, server, name="digits", into=tmp_path / "serve", delivered=True)
    assert f"digits/{DELIVERED}/model.onnx" in made.files
    config = (tmp_path / "serve" / CONFIG[server]).read_text()
    assert bundle.digest not in config
    assert str(number_of(bundle.digest)) not in config


def test_a_bundle_is_not_changed(tmp_path: Path) -> None:
    """The layout has copies: whoever writes into it, or removes it, does the store no harm."""
    bundle = bundle_of("typed", tmp_path / "made")
    before = contents(bundle.folder)
    render(bundle, Server.TRITON, name="digits", into=tmp_path / "serve")
    (tmp_path / "serve" / "digits" / str(number_of(bundle.digest)) / "model.onnx").write_bytes(b"")
    shutil.rmtree(tmp_path / "serve")
    assert contents(bundle.folder) == before
