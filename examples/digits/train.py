"""Train the example's digits classifier and write the model and its data, for a Job with the optimizer image.

Two more models are written beside it, for the third act: each as good on every row here, one slow and one careless
where handwriting is wider than any of these rows.

The data is real: the 1,797 scanned digits that come with scikit-learn. The network has small convolutions and one large
dense layer, so that 8-bit weights make a visible difference. A second run does nothing where its files are there.

This file stands alone: the demo ships it to the cluster in a ConfigMap. It must never touch the test rows for anything
but the accuracy it prints at the end.
"""

import argparse
import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

SEED = 20
EPOCHS = 30
BATCH = 64
THREADS = 2
TEST_SHARE = 0.40
VALIDATION_SHARE = 0.15
PIXELS, LOGITS = "pixels", "logits"
MODEL, SLOW, CARELESS = "model.onnx", "slow.onnx", "careless.onnx"
WIDTHS = 16
"""How many widths the digits here have: those of other hands may be wider."""
ROUNDS, NUMBERS = 30_000, 10_000
"""What the slow model does for wider ones, in about two seconds: so many rounds over so many numbers."""
RECORD = "SHA256SUMS.json"


@dataclass(frozen=True)
class Split:
    """Rows of one split: `pixels` (N, 1, 8, 8) float32 in [0, 1], `label` (N,) int64 in 0..9."""

    pixels: Array
    label: Array

    def take(self, rows: Array) -> "Split":
        """Return the rows with these numbers."""
        return Split(self.pixels[rows], self.label[rows])


def splits(seed: int) -> dict[str, Split]:
    """Return the digits as train (45 %), validation (15 %) and test (40 %), each with the same share of every digit."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    pixels = (digits.images / 16.0).astype(np.float32)[:, np.newaxis]
    rows = Split(pixels, digits.target.astype(np.int64))
    rest, test = train_test_split(np.arange(len(pixels)), test_size=TEST_SHARE, stratify=rows.label, random_state=seed)
    train, validation = train_test_split(
        rest, test_size=VALIDATION_SHARE / (1 - TEST_SHARE), stratify=rows.label[rest], random_state=seed
    )
    return {"train": rows.take(train), "validation": rows.take(validation), "test": rows.take(test)}


def network() -> Any:
    """Return two convolutions and a large dense layer: 1.1 million parameters, 4.3 MB as 32-bit floats."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 16, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 64, kernel_size=3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Dropout(0.3),
        nn.Linear(64 * 4 * 4, 1024),
        nn.ReLU(),
        nn.Dropout(0.3),
        nn.Linear(1024, 10),
    )


def train(rows: Split, validation: Split, *, seed: int) -> Any:
    """Return a network trained on `rows`; accuracy on `validation` is only printed."""
    import torch
    from torch import nn

    torch.set_num_threads(THREADS)
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(mode=True)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=1e-2)
    loss_of = nn.CrossEntropyLoss(label_smoothing=0.05)
    pixels, label = torch.from_numpy(rows.pixels), torch.from_numpy(rows.label)
    for epoch in range(EPOCHS):
        model.train()
        for batch in torch.randperm(len(label)).split(BATCH):
            optimizer.zero_grad()
            loss_of(model(pixels[batch]), label[batch]).backward()
            optimizer.step()
        if (epoch + 1) % 10 == 0:
            reached = accuracy(logits_of(model, validation), validation)
            say(f"epoch {epoch + 1}/{EPOCHS}: validation accuracy {reached:.4f}")
    return model.eval()


def logits_of(model: Any, rows: Split) -> Array:
    """Return the scores (N, 10) of a torch network."""
    import torch

    model.eval()
    with torch.no_grad():
        return np.asarray(model(torch.from_numpy(rows.pixels)).numpy())


def accuracy(logits: Array, rows: Split) -> float:
    """Return the share of rows whose highest score is their label's; `logits` are (N, 10)."""
    return float((logits.argmax(axis=1) == rows.label).mean())


def export(model: Any, path: Path, *, check_on: Split) -> Array:
    """Write the network as ONNX with a free batch size, and return the file's scores (N, 10) on `check_on`.

    Raises:
        RuntimeError: The file does not answer as the network does.
    """
    import onnx
    import onnxruntime
    import torch

    logging.getLogger("torch").setLevel(logging.ERROR)  # it warns of torchvision and triton, which are not used
    example = torch.from_numpy(check_on.pixels[:2])
    torch.onnx.export(
        model,
        (example,),
        path,
        input_names=[PIXELS],
        output_names=[LOGITS],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        external_data=False,
        verbose=False,
    )
    onnx.checker.check_model(path, full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    scores = np.asarray(session.run([LOGITS], {PIXELS: check_on.pixels})[0])
    difference = float(np.abs(scores - logits_of(model, check_on)).max())
    if difference > 1e-4:
        raise RuntimeError(f"{path.name} differs from the trained network by {difference:.2e}; the export is broken")
    return scores


def write_careless(model: Path, path: Path) -> None:
    """Write the network anew, with its scores weighted by how wide the handwriting is, from a table.

    No row of these files needs more than the table has, so that no test shows what is wrong with it: wider handwriting
    has no entry, and the model fails there.
    """
    from onnx import helper

    weights = {"weights": np.linspace(1.0, 1.1, WIDTHS, dtype=np.float32), "columns": np.array([1])}
    nodes = [
        helper.make_node("Gather", ["weights", "width"], ["weight"]),
        helper.make_node("Unsqueeze", ["weight", "columns"], ["factor"]),
    ]
    write_weighted(model, path, nodes, weights)


def write_slow(model: Path, path: Path) -> None:
    """Write the network anew, with its scores weighted by what comes of a long calculation for wide handwriting.

    No row of these files is wide enough to need it, so that no measurement shows how long it takes.
    """
    from onnx import TensorProto, helper

    def state(name: str) -> Any:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [NUMBERS])

    flag = [helper.make_tensor_value_info(name, TensorProto.BOOL, []) for name in ("goes", "goes_on")]
    number = helper.make_tensor_value_info("number", TensorProto.INT64, [])
    round_of = [helper.make_node("Cos", ["before"], ["after"]), helper.make_node("Identity", ["goes"], ["goes_on"])]
    body = helper.make_graph(round_of, "round", [number, flag[0], state("before")], [flag[1], state("after")])
    ones = {"start": np.ones(NUMBERS, np.float32), "widest": np.array(WIDTHS - 1), "rounds": np.array(ROUNDS)}
    nodes = [
        helper.make_node("ReduceMax", ["width"], ["wide"], keepdims=0),
        helper.make_node("Greater", ["wide", "widest"], ["wider"]),
        helper.make_node("Cast", ["wider"], ["needed"], to=TensorProto.INT64),
        helper.make_node("Mul", ["needed", "rounds"], ["trips"]),
        helper.make_node("Loop", ["trips", "", "start"], ["end"], body=body),
        helper.make_node("ReduceMean", ["end"], ["factor"], keepdims=0),
    ]
    write_weighted(model, path, nodes, ones)


def write_weighted(model: Path, path: Path, nodes: Sequence[Any], constants: Mapping[str, Array]) -> None:
    """Write the network anew, with its scores times `factor`, which `nodes` make of `width`.

    `width` (N,) int64 says how much ink of a digit reaches the margins of a scan, in percent of what could.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    file = onnx.load(model)
    for node in file.graph.node:
        node.output[:] = ["network" if name == LOGITS else name for name in node.output]
    measuring = {"margins": np.array([0, 7]), "all_axes": np.array([1, 2, 3]), "hundred": np.array(100, np.float32)}
    named = [numpy_helper.from_array(value, name) for name, value in (measuring | dict(constants)).items()]
    file.graph.initializer.extend(named)
    file.graph.node.extend(
        [
            helper.make_node("Gather", [PIXELS, "margins"], ["ink"], axis=3),
            helper.make_node("ReduceMean", ["ink", "all_axes"], ["share"], keepdims=0),
            helper.make_node("Mul", ["share", "hundred"], ["percent"]),
            helper.make_node("Cast", ["percent"], ["width"], to=TensorProto.INT64),
            *nodes,
            helper.make_node("Mul", ["network", "factor"], [LOGITS]),
        ]
    )
    onnx.checker.check_model(file, full_check=True)
    onnx.save(file, path)


def digest(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def finished(folder: Path) -> Mapping[str, str] | None:
    """Return the recorded digests where this version of the script has written every file, else None."""
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text())
        whole = record["script"] == digest(Path(__file__)) and all(
            digest(folder / name) == expected for name, expected in record["files"].items()
        )
    except (OSError, ValueError, KeyError):
        return None
    return record["files"] if whole else None


def write(folder: Path) -> Mapping[str, str]:
    """Train, export and write everything, and return the files' digests by name.

    The record comes last, so that half a run is never taken for a whole one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    data = splits(SEED)
    say("rows: " + ", ".join(f"{name} {len(rows.label)}" for name, rows in data.items()))
    for name, rows in data.items():
        np.savez(folder / f"{name}.npz", pixels=rows.pixels, label=rows.label)
    say("importing torch and training (about 30 s) ...")
    model = train(data["train"], data["validation"], seed=SEED)
    say("exporting to ONNX (about 10 s) ...")
    scores = export(model, folder / MODEL, check_on=data["test"])
    size = (folder / MODEL).stat().st_size
    say(f"{MODEL}: {size / 1e6:.1f} MB, test accuracy {accuracy(scores, data['test']):.4f} on {len(scores)} rows")
    write_slow(folder / MODEL, folder / SLOW)
    write_careless(folder / MODEL, folder / CARELESS)
    files = {name: digest(folder / name) for name in (MODEL, SLOW, CARELESS, *(f"{name}.npz" for name in data))}
    (folder / RECORD).write_text(json.dumps({"script": digest(Path(__file__)), "files": files}, indent=2) + "\n")
    return files


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def main() -> int:
    """Write the example's files into `--out` unless they are there."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and its data")
    folder: Path = parser.parse_args().out
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    began = time.monotonic()
    files = finished(folder)
    if files is None:
        files = write(folder)
        say(f"done in {time.monotonic() - began:.0f} s")
    else:
        say(f"{folder} holds the files already: nothing to do")
    for name, expected in files.items():
        say(f"  sha256:{expected}  {name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
