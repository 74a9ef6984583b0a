"""A folder of Hugging Face on a person's machine: what `retune` shows of it, writes for it, and makes of it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")

import torch
from transformers import DistilBertConfig, DistilBertForSequenceClassification

from optimizer_jobs.commands.baseline import run
from optimizer_jobs.data.hugging_face import digest_of_folder
from optimizer_jobs.models.bundle import Bundle, open_bundle
from optimizer_jobs.models.runtime import open_session
from retune.api.model import Data, Model
from retune.cli import main as command_line
from retune.cli.follow import Exit
from retune.cli.local.optimize import read_manifest
from retune.contract.requests import BaselineRequest

pytestmark = pytest.mark.torch

NAMES = {0: "calm", 1: "urgent"}
SIZES = {"n_layers": 2, "n_heads": 2, "dim": 64, "hidden_dim": 128, "vocab_size": 400, "max_position_embeddings": 32}
ROWS = {"training": 400, "validation": 300, "test": 500}


def texts(split: str) -> pd.DataFrame:
    """Return rows of tokens with padding; the urgent ones begin with a token below 20."""
    random = np.random.default_rng(list(ROWS).index(split))
    tokens = random.integers(20, 400, size=(ROWS[split], 12))
    mask = (np.arange(12) < random.integers(4, 13, size=(ROWS[split], 1))).astype(np.int64)
    urgent = random.random(ROWS[split]) < 0.5
    tokens[urgent, 0] = random.integers(1, 20, size=urgent.sum())
    tokens = np.where(mask == 1, tokens, 0)
    labels = [NAMES[int(value)] for value in urgent]
    return pd.DataFrame({"input_ids": list(tokens), "attention_mask": list(mask), "label": labels})


def arrays(table: pd.DataFrame) -> dict[str, torch.Tensor]:
    """Return the inputs as tensors."""
    return {name: torch.from_numpy(np.stack(list(table[name]))) for name in ("input_ids", "attention_mask")}


@pytest.fixture(scope="module")
def delivered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small trained classifier, and beside it Parquet files with columns of lists."""
    torch.manual_seed(0)
    network = DistilBertForSequenceClassification(DistilBertConfig(**SIZES, id2label=NAMES))
    rows = texts("training")
    labels = torch.tensor([list(NAMES.values()).index(name) for name in rows["label"]])
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(60):
        optimizer.zero_grad()
        network(**arrays(rows), labels=labels).loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("nets")
    network.eval().save_pretrained(folder / "urgency-v1.2")
    (folder / "data").mkdir()
    for split in ROWS:
        texts(split).to_parquet(folder / "data" / f"{split}.parquet")
    return folder


@pytest.fixture
def files(delivered: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of what was delivered, in a working folder without a cluster."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path))
    return shutil.copytree(delivered, tmp_path / "nets")


def test_a_folder_becomes_a_spec_and_version_one(files: Path, tmp_path: Path) -> None:
    """Labels are the names of its configuration, the digest is that of its files, and version 1 is its network."""
    folder, data = files / "urgency-v1.2", files / "data"
    words = [str(folder), "--data", str(data), "--claim", "nets", "-f", "mo.yaml"]
    assert command_line.main(["init", *words]) == Exit.DONE
    resource = read_manifest(Path("mo.yaml"))
    model = resource.spec.model
    assert resource.metadata.name == "urgency-v1-2"
    assert (model.uri, model.format, model.task) == ("pvc://nets/urgency-v1.2", "HuggingFace", "Classification")
    written = Path("mo.yaml").read_text()
    assert "input_ids int64 (N, N); attention_mask int64 (N, N). Outputs: logits float32 (N, 2)." in written
    assert "HyperparameterTuning" in written.partition("# Not usable")[0]  # the network can be trained on
    digest = digest_of_folder(f"file://{folder}", scratch=tmp_path / "looked")
    bundle = _version_one(model.model_copy(update={"uri": f"{model.uri}/", "digest": digest}), resource.spec.data)
    assert bundle.native is None
    assert bundle.manifest.classes == ("calm", "urgent")
    assert bundle.manifest.lineage.original_model == digest
    inputs = arrays(texts("test"))
    with torch.no_grad():
        expected = DistilBertForSequenceClassification.from_pretrained(folder)(**inputs).logits.softmax(-1).numpy()
    logits = open_session(bundle).run({name: values.numpy() for name, values in inputs.items()})["logits"]
    np.testing.assert_allclose(torch.from_numpy(logits).softmax(-1).numpy(), expected, atol=1e-4)


def _version_one(model: Model, data: Data) -> Bundle:
    """Return what the baseline publishes."""
    request = {"resource": "ml/urgency", "spec_hash": "abc", "store": "pvc://nets/store", "threads": 1}
    result = run(BaselineRequest.model_validate(request | {"model": model, "data": data}))
    accuracy = next(measured for measured in result.metrics if measured.name == "accuracy")
    assert float(accuracy.value) > 0.8
    return open_bundle(result.bundle.uri, digest=result.bundle.digest)
