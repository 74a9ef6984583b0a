"""Of a Hugging Face folder exactly the files of its model are read, with one digest, and nothing outside of it."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optimizer_jobs.commands.check.delivered_file import current_digest
from optimizer_jobs.data import hugging_face
from optimizer_jobs.data.fetch import Fetched
from optimizer_jobs.data.hugging_face import fetch_folder
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import fetch_model
from retune.api.model import Model, ModelFormat
from retune.contract.requests import Followed
from retune.contract.results import Reason
from tests.unit.jobs.conftest import Claims

CONFIG = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
URI = "pvc://digits/net"

Fetch = Callable[..., Fetched]


@pytest.fixture
def folder(claims: Claims) -> Path:
    """A folder as save_pretrained writes it, with a tokenizer and code beside the model."""
    path = claims.root / "digits" / "net"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    for name, content in {"model.safetensors": b"weights", "tokenizer.json": b"{}", "modeling.py": b"boom"}.items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture
def fetched(tmp_path: Path) -> Fetch:
    """Fetch the folder into a scratch folder."""
    return lambda uri=URI, **fields: fetch_folder(uri, into=tmp_path / "in", **fields)


@pytest.fixture
def refused(fetched: Fetch) -> Callable[..., JobError]:
    """Fetch what must be refused, and return why."""

    def refusal(**fields: Any) -> JobError:
        with pytest.raises(JobError) as caught:
            fetched(**fields)
        return caught.value

    return refusal


def shards(folder: Path, *names: str) -> Path:
    """Let an index name these files of weights, write those that lie beside it, and return the index."""
    index = folder / "model.safetensors.index.json"
    (folder / "model.safetensors").unlink()
    table = {f"weight{number}": name for number, name in enumerate(names)}
    index.write_text(json.dumps({"weight_map": table}))
    for name in names:
        (folder / name).write_bytes(name.encode())
    return index


def lose(folder: Path, shard: str) -> None:
    """Let an index name a file that is not there."""
    shards(folder, shard)
    (folder / shard).unlink()


def sentences(folder: Path, path: str = "1_Pooling") -> None:
    """Make it the folder of a sentence encoder."""
    stages = [{"path": "", "type": "sentence_transformers.models.Transformer"}, {"path": path, "type": "a.Pooling"}]
    (folder / "modules.json").write_text(json.dumps(stages))


def copied(fetched: Fetched) -> set[str]:
    """Return the names of the copies."""
    return {str(path.relative_to(fetched.path)) for path in fetched.path.rglob("*") if path.is_file()}


@pytest.mark.usefixtures("folder")
def test_only_the_model_is_copied(fetched: Fetch) -> None:
    """Tokenizers are ignored, and code is not even copied."""
    result = fetched()
    assert copied(result) == {"config.json", "model.safetensors"}
    assert result.size == len(json.dumps(CONFIG)) + len(b"weights")
    assert fetched(f"{URI}/").digest == result.digest


@pytest.mark.parametrize("form", ["one file", "shards", "sentences"])
def test_the_digest_is_that_of_what_sha256sum_prints(folder: Path, fetched: Fetch, form: str) -> None:
    """A person computes it in one line; it covers every file that is read, whatever lies beside."""
    names = ["config.json", "model.safetensors"]
    if form == "shards":
        shards(folder, "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
        names = ["config.json", *sorted(path.name for path in folder.glob("model[-.]*"))]
    if form == "sentences":
        sentences(folder)
        (folder / "1_Pooling").mkdir()
        (folder / "1_Pooling" / "config.json").write_text('{"pooling_mode_mean_tokens": true}')
        names = ["1_Pooling/config.json", *names, "modules.json"]
    command = f"sha256sum {' '.join(names)} | LC_ALL=C sort -k 2 | sha256sum"
    printed = subprocess.run(["bash", "-c", command], cwd=folder, capture_output=True, text=True, check=True).stdout
    digest = f"sha256:{printed.split()[0]}"
    result = fetched(digest=digest)
    assert (result.digest, copied(result)) == (digest, set(names))
    assert current_digest(Followed(uri=URI, digest=digest, folder=True)) == digest
    for name in names:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before + b" ")
        assert current_digest(Followed(uri=URI, digest=digest, folder=True)) not in {None, digest}
        (folder / name).write_bytes(before)


@pytest.mark.usefixtures("folder")
def test_another_digest_than_promised_is_refused(refused: Callable[..., JobError]) -> None:
    """With both digests."""
    error = refused(digest=f"sha256:{'0' * 64}")
    assert error.reason is Reason.DIGEST_MISMATCH
    assert error.message.count("sha256:") == 2


@pytest.mark.parametrize("link", ["model.safetensors", "config.json"])
def test_a_link_out_of_the_claim_is_not_followed(
    folder: Path, refused: Callable[..., JobError], tmp_path: Path, link: str
) -> None:
    """Neither for weights nor for settings."""
    (tmp_path / "secret").write_bytes(b"{}")
    (folder / link).unlink()
    (folder / link).symlink_to(tmp_path / "secret")
    error = refused()
    assert error.reason is Reason.MODEL_FORBIDDEN
    assert "leads out of the claim" in error.message


def test_a_link_inside_the_claim_is_followed_under_its_own_name(folder: Path, fetched: Fetch) -> None:
    """A cache of downloads links to files that are named after their content."""
    before = fetched().digest
    (folder / "model.safetensors").rename(folder.parent / "0a1b2c")
    (folder / "model.safetensors").symlink_to("../0a1b2c")
    assert fetched().digest == before


@pytest.mark.parametrize(
    "name",
    [
        "../other.safetensors",
        "/etc/passwd",
        "a/b.safetensors",
        ".hidden.safetensors",
        "pytorch_model.bin",
        "x.safetensors\n",
    ],
)
def test_an_index_names_files_beside_it_or_is_refused(
    folder: Path, refused: Callable[..., JobError], name: str
) -> None:
    """Names in it are hostile input."""
    table = {"a": "model-1.safetensors", "b": name}
    shards(folder, "model-1.safetensors").write_text(json.dumps({"weight_map": table}))
    error = refused()
    assert error.reason is Reason.MODEL_INVALID
    assert "which is no safetensors file beside it" in error.message


@pytest.mark.parametrize("path", ["..", "../other", "/etc", ".git", "a/b", 3, None])
def test_stages_of_a_sentence_encoder_lie_beside_it_or_are_refused(
    folder: Path, refused: Callable[..., JobError], path: Any
) -> None:
    """So are paths in modules.json."""
    sentences(folder, path)
    assert "which is no folder beside it" in refused().message


@pytest.mark.parametrize(
    ("spoil", "reason", "says"),
    [
        (lambda net: (net / "config.json").unlink(), Reason.MODEL_NOT_FOUND, "there is no folder with config.json"),
        (lambda net: (net / "config.json").write_text("{"), Reason.MODEL_INVALID, "it is no JSON file"),
        (lambda net: (net / "config.json").write_text("[" * 100_000), Reason.MODEL_INVALID, "it is no JSON file"),
        (
            lambda net: (net / "model.safetensors").unlink(),
            Reason.MODEL_INVALID,
            "the folder has no model.safetensors.",
        ),
        (
            lambda net: (net / "model.safetensors").rename(net / "pytorch_model.bin"),
            Reason.MODEL_INVALID,
            "is a pickle, which can run code. Where you trust it, write safetensors: transformers.BertForSequenceCl",
        ),
        (lambda net: shards(net, *(f"s{part}.safetensors" for part in range(200))), Reason.MODEL_INVALID, "200 files"),
        (
            lambda net: (shards(net, "a.safetensors"), (net / "a.safetensors").unlink()),
            Reason.MODEL_NOT_FOUND,
            "a.safe",
        ),
    ],
)
def test_what_is_no_folder_with_weights_says_what_to_do(
    folder: Path, refused: Callable[..., JobError], spoil: Callable[[Path], Any], reason: Reason, says: str
) -> None:
    """Each in one sentence."""
    spoil(folder)
    error = refused()
    assert error.reason is reason
    assert says in str(error)


def test_files_together_have_a_limit(
    folder: Path, refused: Callable[..., JobError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many shards below the limit are as much as one above it."""
    shards(folder, *(f"s{part}.safetensors" for part in range(5)))
    monkeypatch.setattr(hugging_face, "WEIGHTS_LIMIT_BYTES", folder.joinpath("config.json").stat().st_size + 150)
    error = refused()
    assert error.reason is Reason.MODEL_TOO_LARGE
    assert "together" in error.message


def test_a_file_is_no_folder(claims: Claims, refused: Callable[..., JobError]) -> None:
    """A path to the weights instead of their folder is told as such."""
    assert claims.root.is_dir()
    assert "there is no folder with config.json" in refused(uri="pvc://digits/mlp.onnx").message


@pytest.mark.parametrize("form", ["one file", "shards"])
def test_a_folder_that_is_delivered_as_a_file_says_which_format_it_is(folder: Path, tmp_path: Path, form: str) -> None:
    """Whoever leaves the format out learns of it."""
    if form == "shards":
        shards(folder, "a.safetensors")
    with pytest.raises(JobError, match=r"it is a folder of Hugging Face.* Set model\.format: HuggingFace\."):
        fetch_model(Model(uri=URI), tmp_path / "in")


def test_a_digest_that_cannot_be_read_says_nothing(claims: Claims) -> None:
    """A folder that is not there now did not change."""
    assert claims.root.is_dir()
    assert current_digest(Followed(uri=URI, digest="sha256:0", folder=True)) is None


def test_the_format_alone_is_a_folder() -> None:
    """No other format is fetched file by file."""
    assert [format_ for format_ in ModelFormat if format_.is_folder] == [ModelFormat.HUGGING_FACE]
