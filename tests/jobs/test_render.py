"""`retune render`, as a person calls it: what it writes, what it prints, and what it refuses."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from optimizer_jobs.models.bundle import Bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.version_numbers import number_of
from retune.cli import main as command_line
from retune.cli.follow import Exit


def words(bundle: Bundle, into: Path, *more: str, server: str = "triton") -> list[str]:
    """Return the command's words."""
    return ["render", str(bundle.folder), "--server", server, "--name", "digits", "--into", str(into), *more]


def test_it_says_what_was_written_and_what_is_lost(
    make: Callable[..., Bundle], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the command that starts the server, and with paths as the person gave them."""
    monkeypatch.chdir(tmp_path)
    bundle = make(engine=EngineOptions(spinning=False))
    assert command_line.main(words(bundle, Path("serve"))) == Exit.DONE
    said, number = capsys.readouterr().out, str(number_of(bundle.digest))
    assert "  serve/digits/config.pbtxt\n" in said
    assert "answered its 8 golden requests as recorded." in said
    assert "Triton has no setting for it and lets them spin" in said
    assert said.endswith("next: tritonserver --model-repository=serve\n")
    assert (tmp_path / "serve" / "digits" / number / "model.onnx").read_bytes() == bundle.model.read_bytes()
    assert f'string_value: "{bundle.digest}"' in (tmp_path / "serve" / "digits" / "config.pbtxt").read_text()


def test_for_programs_it_is_one_document(
    make: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every file that it names is there."""
    bundle, into = make(), tmp_path / "serve"
    assert command_line.main(words(bundle, into, "-o", "json", server="ovms")) == Exit.DONE
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["server"], told["digest"]) == ("Render", "ovms", bundle.digest)
    assert told["files"] == sorted(str(path.relative_to(into)) for path in into.rglob("*") if path.is_file())
    assert told["next"] == f"ovms --config_path={into}/config.json --rest_port=8000"
    assert "was judged in ONNX Runtime" in told["lost"][0]


def test_nothing_lost_is_said_too(
    make: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A person need not wonder whether the list was forgotten."""
    assert command_line.main(words(make(), tmp_path / "serve")) == Exit.DONE
    assert "lost\n  nothing: the server can express all that the bundle asks.\n" in capsys.readouterr().out


def test_a_bundle_that_is_not_what_its_digest_says_is_not_written(
    make: Callable[..., Bundle], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nor one that is not there; the sentence names the file."""
    bundle = make()
    (bundle.folder / "golden.json").write_text("{}")
    assert command_line.main(words(bundle, tmp_path / "serve")) == Exit.USAGE
    assert "BundleCorrupt" in capsys.readouterr().err
    bundle.folder.rename(tmp_path / "elsewhere")
    assert command_line.main(words(bundle, tmp_path / "serve")) == Exit.USAGE
    assert "there is no bundle" in capsys.readouterr().err
    assert not (tmp_path / "serve").exists()
