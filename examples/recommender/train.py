"""Train the example's recommender and write the model and its data, for a Job with the optimizer image.

The model is built like DLRM (Naumov et al., 2019): an embedding table for each id, a bottom network for the dense
numbers, dot products of all of these with each other, and a top network. It is larger than it needs to be, as models
are that were made for quality alone. A second run does nothing where its files are there.

It must never touch the test rows for anything but the metrics it prints at the end.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from examples.recommender import shopping
from examples.recommender.shopping import CANDIDATES, DENSE, FEATURES, IDS, Array, Candidates

SEED = 7
EPOCHS = 1
"""More than one, and the tables learn single purchases by heart: after a second one, validation is worse."""
BATCH = 20 * CANDIDATES
THREADS = 2
WIDTH = 64
"""Numbers of a row of an embedding table."""
BOTTOM, TOP = (512, 256, WIDTH), (768, 512, 256)
LOGITS = "logits"
MODEL = "model.onnx"
RECORD = "SHA256SUMS.json"
SOURCES = (Path(__file__), Path(shopping.__file__))

Rows = Mapping[str, Array]


def network(sizes: Mapping[str, int], dense: Rows) -> Any:
    """Return the untrained network.

    Args:
        sizes: Rows of each embedding table.
        dense: Mean and spread of each dense number, (14,) float32; the network scales its input by them.
    """
    import torch
    from torch import nn

    class Recommender(nn.Module):  # type: ignore[misc] # torch may be absent here, and then has no types
        def __init__(self) -> None:
            super().__init__()
            self.tables = nn.ModuleList(nn.Embedding(sizes[name], WIDTH, sparse=True) for name in IDS)
            for table in self.tables:
                nn.init.normal_(table.weight, std=0.05)
            self.bottom = perceptron(len(FEATURES), BOTTOM)
            vectors = len(IDS) + 1
            self.top = nn.Sequential(perceptron(vectors * vectors + WIDTH, TOP), nn.Linear(TOP[-1], 2))
            self.register_buffer("mean", torch.from_numpy(dense["mean"]))
            self.register_buffer("spread", torch.from_numpy(dense["spread"]))

        def forward(self, *inputs: Any) -> Any:
            *ids, numbers = inputs
            bottom = self.bottom((numbers - self.mean) / self.spread)
            vectors = [table(places) for table, places in zip(self.tables, ids, strict=True)]
            stacked = torch.stack([bottom, *vectors], dim=1)
            products = torch.matmul(stacked, stacked.transpose(1, 2)).flatten(1)
            return self.top(torch.cat([bottom, products], dim=1))

    def perceptron(inputs: int, widths: tuple[int, ...]) -> Any:
        pairs = zip((inputs, *widths[:-1]), widths, strict=True)
        return nn.Sequential(*(layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())))

    return Recommender()


def train(rows: Rows, validation: Rows, *, sizes: Mapping[str, int], seed: int) -> Any:
    """Return a network trained on `rows`; metrics on `validation` are only printed."""
    import torch
    from torch import nn

    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    numbers = rows[DENSE]
    model = network(sizes, {"mean": numbers.mean(axis=0), "spread": numbers.std(axis=0) + 1e-3})
    layers = [value for name, value in model.named_parameters() if not name.startswith("tables")]
    steps = EPOCHS * (len(rows["label"]) // BATCH + 1)
    optimizers = [torch.optim.AdamW(layers, lr=1e-3), torch.optim.SparseAdam(list(model.tables.parameters()), lr=1e-3)]
    schedules = [torch.optim.lr_scheduler.OneCycleLR(one, max_lr=2e-3, total_steps=steps) for one in optimizers]
    inputs, label = tensors(rows), torch.from_numpy(rows["label"])
    loss_of = nn.CrossEntropyLoss()
    for epoch in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(label)).split(BATCH):
            loss = loss_of(model(*(values[batch] for values in inputs)), label[batch])
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer, schedule in zip(optimizers, schedules, strict=True):
                optimizer.step()
                schedule.step()
        say(f"epoch {epoch + 1}/{EPOCHS}: validation {words(logits_of(model, validation), validation)}")
    return model.eval()


def tensors(rows: Rows) -> list[Any]:
    """Return the inputs of the network as torch tensors, in its order."""
    import torch

    return [torch.from_numpy(rows[name]) for name in (*IDS, DENSE)]


def logits_of(model: Any, rows: Rows) -> Array:
    """Return the scores (N, 2) of a torch network."""
    import torch

    model.eval()
    with torch.no_grad():
        parts = zip(*(values.split(BATCH) for values in tensors(rows)), strict=True)
        return np.concatenate([model(*part).numpy() for part in parts])


def words(logits: Array, rows: Rows) -> str:
    """Return ndcg@10 and roc_auc in words; `logits` are (N, 2)."""
    from sklearn.metrics import ndcg_score, roc_auc_score

    margin = (logits[:, 1] - logits[:, 0]).reshape(-1, CANDIDATES)
    ndcg = ndcg_score(rows["label"].reshape(-1, CANDIDATES), margin, k=10)
    return f"ndcg@10 {ndcg:.4f}, roc_auc {roc_auc_score(rows['label'], margin.ravel()):.4f}"


def export(model: Any, path: Path, *, check_on: Rows) -> Array:
    """Write the network as ONNX with a free batch size, and return the file's scores (N, 2) on `check_on`.

    Raises:
        RuntimeError: The file does not answer as the network does.
    """
    import onnx
    import onnxruntime
    import torch

    logging.getLogger("torch").setLevel(logging.ERROR)  # it warns of torchvision and triton, which are not used
    examples = tuple(values[:2] for values in tensors(check_on))
    torch.onnx.export(
        model,
        examples,
        path,
        input_names=[*IDS, DENSE],
        output_names=[LOGITS],
        dynamic_shapes=(tuple({0: torch.export.Dim("batch")} for _ in examples),),
        external_data=False,
        verbose=False,
    )
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores = np.asarray(session.run([LOGITS], {name: check_on[name] for name in (*IDS, DENSE)})[0])
    difference = float(np.abs(scores - logits_of(model, check_on)).max())
    if difference > 1e-3:
        raise RuntimeError(f"{path.name} differs from the trained network by {difference:.2e}; the export is broken")
    return scores


def digest(*paths: Path) -> str:
    """Return the SHA-256 of files, one after the other, in hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return total.hexdigest()


def finished(folder: Path) -> Mapping[str, str] | None:
    """Return the recorded digests where this version of the script has written every file, else None."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        whole = record["script"] == digest(*SOURCES) and all(
            digest(folder / name) == expected for name, expected in record["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return None
    return record["files"] if whole else None


def write(folder: Path, source: Path) -> Mapping[str, str]:
    """Train, export and write everything, and return the files' digests by name.

    The record comes last, so that half a run is never taken for a whole one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    purchases = shopping.read(source)
    candidates = Candidates(purchases)
    data: dict[str, Rows] = {split: candidates.rows(split, seed=SEED) for split in shopping.WEEKS}
    counts = {split: len(rows["label"]) for split, rows in data.items()}
    say(f"rows: {', '.join(f'{split} {count}' for split, count in counts.items())}, {CANDIDATES} for each household")
    files = {split: rows for split, rows in data.items() if split != "train"}
    files |= {"train": first_groups(data["train"], shopping.LESSON_GROUPS)}
    files |= {"calibration": first_groups(data["train"], shopping.OBSERVED_GROUPS)}
    for name, rows in files.items():
        np.savez(folder / f"{name}.npz", allow_pickle=False, **rows)
    say(f"embedding tables: {', '.join(f'{name} {size}' for name, size in purchases.sizes.items())} rows")
    say("importing torch and training (about 4 min) ...")
    model = train(data["train"], data["validation"], sizes=purchases.sizes, seed=SEED)
    say("exporting to ONNX (about 10 s) ...")
    scores = export(model, folder / MODEL, check_on=data["test"])
    say(f"{MODEL}: {(folder / MODEL).stat().st_size / 1e6:.1f} MB, test {words(scores, data['test'])}")
    digests = {name: digest(folder / name) for name in (MODEL, *(f"{split}.npz" for split in files))}
    (folder / RECORD).write_text(json.dumps({"script": digest(*SOURCES), "files": digests}, indent=2) + "\n")
    return digests


def first_groups(rows: Rows, count: int) -> Rows:
    """Return `count` whole groups of rows, spread over all of them."""
    groups = int(rows["group"].max()) + 1
    chosen = np.unique(np.linspace(0, groups - 1, num=min(count, groups)).astype(int))
    return {name: values[np.isin(rows["group"], chosen)] for name, values in rows.items()}


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def main() -> int:
    """Write the example's files into `--out` unless they are there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder of the two Parquet files")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and its data")
    arguments = parser.parse_args()
    folder: Path = arguments.out
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    began = time.monotonic()
    files = finished(folder)
    if files is None:
        files = write(folder, arguments.data)
        say(f"done in {time.monotonic() - began:.0f} s")
    else:
        say(f"{folder} holds the files already: nothing to do")
    for name, expected in files.items():
        say(f"  sha256:{expected}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
