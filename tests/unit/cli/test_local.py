"""Where `retune optimize` finds its files, and which run it does when it is called again."""

from pathlib import Path

import pytest

from retune.api.model import ModelFormat
from retune.api.spec import ModelOptimizationSpec
from retune.cli.access import AccessError
from retune.cli.local.init import guess
from retune.cli.local.jobs import job_environment
from retune.cli.local.optimize import REPORT, next_run
from retune.cli.local.place import STORE_CLAIM, Place, place
from tests import samples


@pytest.fixture
def spec() -> ModelOptimizationSpec:
    """A spec whose model and data lie in the claims `models` and `data`."""
    return ModelOptimizationSpec.model_validate(samples.MANIFEST["spec"])


def test_a_claim_is_the_folder_that_was_named_or_else_the_one_of_its_name(
    spec: ModelOptimizationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`--claim models=elsewhere` moves one claim; the other is looked for in the working folder; the store is made."""
    monkeypatch.chdir(tmp_path)
    for folder in ("elsewhere", "data"):
        Path(folder).mkdir()
    where = place({"models": Path("elsewhere")}, spec=spec, store=Path("retune-store"), name="digits")
    assert where.claims == {"models": Path("elsewhere"), "data": Path("data"), STORE_CLAIM: Path("retune-store")}
    assert Path("retune-store").is_dir()
    assert where.local(f"{where.store_uri}/runs") == Path("retune-store/digits/runs")


def test_a_claim_without_a_folder_says_which_option_names_it(
    spec: ModelOptimizationSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is made before everything that is needed is there."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    with pytest.raises(AccessError, match="say where its files are with --claim data=FOLDER"):
        place({}, spec=spec, store=Path("retune-store"), name="digits")
    assert not Path("retune-store").exists()


def test_folders_of_own_code_reach_the_jobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the variable that an image would set; without the option, the variable is left as it is."""
    monkeypatch.setenv("RETUNE_CODE", "/code")
    assert job_environment({}, (tmp_path, tmp_path / "more"))["RETUNE_CODE"] == f"{tmp_path}:{tmp_path / 'more'}"
    assert job_environment({})["RETUNE_CODE"] == "/code"


def test_weights_of_torch_save_need_a_factory(tmp_path: Path) -> None:
    """A .pt file is a script, or weights where a factory is named; a .pth file is weights."""
    for name in ("net.pt", "net.pth", "train.npz", "val.npz", "test.npz"):
        (tmp_path / name).touch()
    for name in ("net.pt", "net.pth"):
        made = guess(tmp_path / name, (), claim="models", factory="shop.nets:build", trusted=False)
        assert made.model.format is ModelFormat.STATE_DICT
    with pytest.raises(AccessError, match="--factory"):
        guess(tmp_path / "net.pth", (), claim="models", factory=None, trusted=True)


@pytest.fixture
def stored(tmp_path: Path) -> Place:
    """A store in which runs 1, 2 and 10 were finished."""
    where = Place(claims={}, store=tmp_path, name="digits")
    for number in (1, 2, 10):
        begin(where, number)
        (where.local(f"{where.store_uri}/runs/digits-r{number}") / REPORT).touch()
    return where


def begin(where: Place, number: int) -> None:
    """Let a run be under way: it has a folder, and no report yet."""
    where.local(f"{where.store_uri}/runs/digits-r{number}").mkdir(parents=True)


def test_the_first_run_starts_from_nothing(tmp_path: Path) -> None:
    """An empty store is no error."""
    assert next_run(Place(claims={}, store=tmp_path, name="digits")) == ("digits-r1", ())


def test_the_next_run_starts_from_the_finished_ones(stored: Place) -> None:
    """Newest first, by number and not by name."""
    assert next_run(stored) == ("digits-r11", ("digits-r10", "digits-r2", "digits-r1"))


def test_an_interrupted_run_is_taken_up_again(stored: Place) -> None:
    """It goes on under its own name, and does not start from itself."""
    begin(stored, 11)
    assert next_run(stored) == ("digits-r11", ("digits-r10", "digits-r2", "digits-r1"))


@pytest.mark.parametrize(
    ("name", "members", "says"),
    [
        ("net.keras", (), r"is a Keras model, which only Keras reads: write it as ONNX with model\.export"),
        ("net.h5", (), "is a Keras model"),
        ("net.tflite", (), "tf2onnx.convert --tflite FILE"),
        ("saved", ("saved_model.pb", "keras_metadata.pb"), "tf2onnx.convert --saved-model FOLDER"),
        (
            "bert",
            ("config.json", "pytorch_model.bin"),
            r"pytorch_model\.bin is a pickle, which can run code: where you",
        ),
        ("large", ("config.json", "pytorch_model.bin.index.json"), r"write safetensors with save_pretrained\(FOLDER\)"),
        ("lora", ("adapter_config.json", "adapter_model.safetensors"), "merge it into its model"),
        ("empty", ("README.md",), "is no file, and no folder with config.json and model.safetensors"),
    ],
)
def test_models_that_only_another_library_reads_get_the_line_that_exports_them(
    tmp_path: Path, name: str, members: tuple[str, ...], says: str
) -> None:
    """A file or folder of Keras, TensorFlow or Hugging Face is known by its name or content; others are as before."""
    path = tmp_path / name
    if members:
        path.mkdir()
        for member in members:
            (path / member).touch()
    else:
        path.touch()
    with pytest.raises(AccessError, match=says):
        guess(path, (), claim="models", factory=None, trusted=False)


def hugging_face(folder: Path, *names: str) -> Path:
    """Make a folder of Hugging Face with rows beside it."""
    folder.mkdir(parents=True)
    for name in ("config.json", *(names or ("model.safetensors", "tokenizer.json"))):
        (folder / name).touch()
    (folder.parent / "val.npz").touch()
    return folder


@pytest.mark.parametrize("names", [("model.safetensors",), ("model.safetensors.index.json", "model-1.safetensors")])
def test_a_folder_of_hugging_face_is_a_model(tmp_path: Path, names: tuple[str, ...]) -> None:
    """Weights in one file or in several; data is looked for beside it."""
    made = guess(hugging_face(tmp_path / "bert", *names), (), claim="models", factory=None, trusted=False)
    assert (made.model.uri, made.model.format) == ("pvc://models/bert", ModelFormat.HUGGING_FACE)
    assert made.root == tmp_path
    assert made.sets["validation"].uri == "pvc://models/val.npz"


def test_a_folder_of_links_out_of_the_claim_is_to_be_copied(tmp_path: Path) -> None:
    """As in the cache of downloads, whose files are links to others; links inside are fine."""
    folder = hugging_face(tmp_path / "nets" / "bert")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("config.json")
    assert guess(folder, (), claim="models", factory=None, trusted=False).model.format is ModelFormat.HUGGING_FACE
    (folder / "model.safetensors").unlink()
    (tmp_path / "blob").touch()
    (folder / "model.safetensors").symlink_to(tmp_path / "blob")
    with pytest.raises(AccessError, match=r"is a link that leads out of .*cp -rL"):
        guess(folder, (), claim="models", factory=None, trusted=False)
