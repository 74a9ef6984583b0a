"""The init container of a server of others: what MODEL_URI names, in the server's layout, or a sentence and no pod."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from optimizer_jobs.agent import environment
from optimizer_jobs.agent.command import main
from optimizer_jobs.models.bundle import Bundle, publish
from optimizer_jobs.models.version_numbers import number_of
from retune.contract.paths import bundles
from retune.contract.requests import BundleRef, Server
from tests.unit.jobs.test_serving_render import contents

CONFIG = {Server.TRITON: "digits/config.pbtxt", Server.OVMS: "config.json"}
every_server = pytest.mark.parametrize("server", Server)


@pytest.fixture
def last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The termination message of a container whose environment names nothing."""
    for name in (environment.BUNDLE_VARIABLE, environment.THREADS_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    log = tmp_path / "termination-log"
    log.touch()
    monkeypatch.setattr(environment, "_TERMINATION_LOG", log)
    return log


@pytest.fixture
def reference(make: Callable[..., Bundle], store: str) -> BundleRef:
    """A published bundle."""
    return publish(make(), uri=bundles(store))


def prepare(into: Path, server: Server = Server.TRITON, *more: str, name: str = "digits") -> int:
    """Do what the init container does."""
    return main(["render", "--server", server, "--name", name, "--into", str(into), *more])


@every_server
def test_the_bundle_that_the_variable_names_is_written(
    server: Server,
    reference: BundleRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_words: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Under the number of its digest, which the log names; nothing else is left in the server's folder."""
    monkeypatch.setenv("MODEL_URI", reference.uri)
    assert prepare(tmp_path / "models", server) == 0
    number = number_of(reference.digest)
    assert (tmp_path / "models" / "digits" / str(number) / "model.onnx").is_file()
    assert str(number) in (tmp_path / "models" / CONFIG[server]).read_text()
    said = capsys.readouterr().out
    assert f"{server} will serve bundle {reference.digest} as version {number} of 'digits'" in said
    left = {path.name for path in (tmp_path / "models").iterdir()}
    assert left == {"digits", ".retune-digits", Path(CONFIG[server]).parts[0]}
    assert last_words.read_text() == ""


@every_server
def test_a_second_run_in_one_pod_replaces_the_first(
    server: Server,
    reference: BundleRef,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_words: Path,
    delivered: Path,
) -> None:
    """A kubelet may run it again, also after it was killed half way."""
    assert last_words.exists()
    assert prepare(tmp_path / "models", server, "--delivered", str(delivered / "mlp.onnx")) == 0
    (tmp_path / "models" / ".retune-new-digits" / "digits").mkdir(parents=True)
    monkeypatch.setenv("MODEL_URI", reference.uri)
    assert prepare(tmp_path / "models", server) == 0
    first = contents(tmp_path / "models")
    assert prepare(tmp_path / "models", server) == 0
    assert contents(tmp_path / "models") == first
    assert not any("/1/" in name for name in first)


@every_server
def test_the_model_as_delivered_serves_until_retune_names_a_bundle(
    server: Server, tmp_path: Path, delivered: Path, monkeypatch: pytest.MonkeyPatch, last_words: Path
) -> None:
    """As version 1, with the cores of the container; its owner may also name the file in the variable."""
    assert last_words.exists()
    monkeypatch.setenv("CPU_LIMIT", "3")
    assert prepare(tmp_path / "models", server, "--delivered", str(delivered / "mlp.onnx")) == 0
    monkeypatch.setenv("MODEL_URI", f"file://{delivered}/mlp.onnx")
    assert prepare(tmp_path / "named", server) == 0
    assert contents(tmp_path / "models") == contents(tmp_path / "named")
    written = (tmp_path / "models" / "digits" / "1" / "model.onnx").read_bytes()
    assert written == (delivered / "mlp.onnx").read_bytes()
    config = (tmp_path / "models" / CONFIG[server]).read_text()
    assert "3" in config
    assert "sha256" not in config


def test_several_models_of_a_triton_lie_in_one_folder(
    reference: BundleRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: Path
) -> None:
    """Each is written by an init container of its own, which leaves the others alone."""
    assert last_words.exists()
    monkeypatch.setenv("MODEL_URI", reference.uri)
    assert [prepare(tmp_path / "models", name=name) for name in ("one", "two", "one")] == [0, 0, 0]
    assert {path.name for path in (tmp_path / "models").iterdir()} == {"one", "two", ".retune-one", ".retune-two"}


def test_a_model_that_others_have_put_there_is_not_taken_away(
    reference: BundleRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: Path
) -> None:
    """Somebody named the folder of his own models."""
    monkeypatch.setenv("MODEL_URI", reference.uri)
    (tmp_path / "models" / "digits" / "1").mkdir(parents=True)
    (tmp_path / "models" / "digits" / "1" / "model.plan").write_text("his")
    before = contents(tmp_path / "models")
    assert prepare(tmp_path / "models") == 1
    assert "this command has not written it" in last_words.read_text()
    assert contents(tmp_path / "models") == before


def test_another_model_of_an_openvino_model_server_is_not_taken_away(
    reference: BundleRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: Path
) -> None:
    """Its one configuration would name the new one alone."""
    monkeypatch.setenv("MODEL_URI", reference.uri)
    assert prepare(tmp_path / "models", Server.OVMS, name="one") == 0
    before = contents(tmp_path / "models")
    assert prepare(tmp_path / "models", Server.OVMS, name="two") == 1
    assert "it names one, which would not be served any more" in last_words.read_text()
    assert contents(tmp_path / "models") == before
    named = json.loads(before["config.json"])["model_config_list"][0]["config"]["name"]
    assert named == "one"


def test_a_damaged_bundle_is_not_served(
    reference: BundleRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: Path, claims: object
) -> None:
    """The container ends with the file's name where Retune and `kubectl describe` find it; what was there stays."""
    from optimizer_jobs.data.volumes import local_path

    assert claims
    monkeypatch.setenv("MODEL_URI", reference.uri)
    assert prepare(tmp_path / "models") == 0
    before = contents(tmp_path / "models")
    with (local_path(reference.uri) / "model.onnx").open("ab") as file:
        file.write(b"x")
    assert prepare(tmp_path / "models") == 1
    assert "model.onnx has digest" in last_words.read_text()
    assert contents(tmp_path / "models") == before
    shutil.rmtree(local_path(reference.uri))
    assert prepare(tmp_path / "models") == 1
    assert "there is no bundle" in last_words.read_text()


@pytest.mark.parametrize(
    ("variables", "more", "why"),
    [
        ({}, (), "--delivered names no file that is served meanwhile"),
        ({"MODEL_URI": "pvc://nowhere/model.onnx"}, (), "there is no such file"),
        ({"MODEL_URI": "pvc://nowhere/model.onnx", "CPU_LIMIT": "1500m"}, (), "not a whole number of cores"),
        ({}, ("--delivered", "/nowhere.onnx"), "there is no such file"),
    ],
)
def test_what_cannot_be_prepared_is_said(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    last_words: Path,
    claims: object,
    variables: dict[str, str],
    more: tuple[str, ...],
    why: str,
) -> None:
    """In a sentence, with nothing written."""
    assert claims
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert prepare(tmp_path / "models", Server.TRITON, *more) == 1
    assert why in last_words.read_text()
    assert not list((tmp_path / "models").rglob("*"))


def test_another_variable_may_name_the_bundle(
    reference: BundleRef, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last_words: Path
) -> None:
    """As spec.target.injection.name may."""
    assert last_words.exists()
    monkeypatch.setenv("BUNDLE", reference.uri)
    assert prepare(tmp_path / "models", Server.TRITON, "--variable", "BUNDLE") == 0
