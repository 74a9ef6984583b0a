"""Live requests for the tests of verdicts: real rows, the resource's own delivered model, windows of a chosen kind.

`python living.py learn ROOT` writes rows and a model of theirs; `python living.py serve ROOT STORE DIGEST KIND` writes
captured requests and labels of every window as it begins, until it is ended. Runs in the optimizer's image.
"""

import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet
from skl2onnx import to_onnx
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.production.writer import CaptureWriter

Array = NDArray[Any]
SEED, WINDOW, ROWS = 7, 30, 600
COLUMN = 27
"""The column, `concave points` at their worst, in whose largest quarter the model is right."""


def rows() -> dict[str, tuple[Array, Array]]:
    """Return training, validation and test, standardized, as float32 (rows, 30) and int64 (rows,)."""
    inputs, labels = load_breast_cancer(return_X_y=True)
    inputs = StandardScaler().fit_transform(inputs).astype(np.float32)
    rest, test, rest_labels, test_labels = train_test_split(inputs, labels, test_size=100, random_state=SEED)
    split = train_test_split(rest, rest_labels, test_size=300, random_state=SEED, stratify=rest_labels)
    return {"training": (split[0], split[2]), "validation": (split[1], split[3]), "test": (test, test_labels)}


def learn(root: Path) -> None:
    """Write training.npz, validation.npz, test.npz and model.onnx below `root`."""
    root.mkdir(parents=True, exist_ok=True)
    for name, (inputs, labels) in rows().items():
        np.savez(root / f"{name}.npz", x=inputs, label=labels)
    inputs, labels = rows()["training"]
    model = LogisticRegression(max_iter=1000).fit(inputs, labels)
    options = {"zipmap": False}
    converted = to_onnx(model, inputs[:1], options=options, target_opset={"": 17, "ai.onnx.ml": 3})
    (root / "model.onnx").write_bytes(converted.SerializeToString())


def usual(inputs: Array, labels: Array) -> tuple[Array, Array | None]:
    """Rows as the model knows them, and their labels."""
    return inputs, labels


def lost(inputs: Array, labels: Array) -> tuple[Array, Array | None]:
    """Of the largest quarter of a column, 23 % have another label: 6 % of all rows, and no input moves."""
    largest = inputs[:, COLUMN] > np.quantile(rows()["validation"][0][:, COLUMN], 0.75)
    return inputs, np.where(largest & (np.arange(len(inputs)) % 100 < 23), 1 - labels, labels)


def strange(inputs: Array, labels: Array) -> tuple[Array, Array | None]:
    """Rows of a unit that the reference has never seen, and nobody has labels of them."""
    assert len(labels) == len(inputs)
    return inputs * np.float32(4) + np.float32(3), None


KINDS: Mapping[str, Callable[[Array, Array], tuple[Array, Array | None]]] = {
    each.__name__: each for each in (usual, lost, strange)
}


def serve(root: Path, store: str, digest: str, kind: str) -> None:
    """Capture every window from the next one on, until SIGTERM."""
    opened = open_bundle(f"{store}/bundles/{digest.removeprefix('sha256:')}", digest=digest)
    session = open_model(opened.model, opened.manifest.engine)
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    window = int(time.time() // WINDOW) + 1
    while not ended.is_set():
        chosen = np.random.default_rng(window).integers(0, 300, ROWS)
        inputs, labels = KINDS[kind](*(part[chosen] for part in rows()["validation"]))
        names = [f"{kind}-{window}-{place}" for place in range(ROWS)]
        writer = CaptureWriter(root / "captured", session.signature)
        for place, name in enumerate(names):
            asked = {session.signature.inputs[0].name: inputs[place : place + 1]}
            assert writer.offer(name, digest, asked, session.run(asked), (window + place / ROWS) * WINDOW)
        writer.close()
        if labels is not None:
            label(root / "labels" / f"{window}.parquet", names, labels)
        sys.stdout.write(f"window {window}: {kind}\n")
        sys.stdout.flush()
        window += 1
        ended.wait(max(0.0, window * WINDOW - time.time()))


def label(path: Path, names: list[str], labels: Array) -> None:
    """Write a file of labels at once: a check may read at any moment."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}")
    parquet.write_table(pa.table({"request_id": names, "label": labels.astype(np.int64)}), beside)
    beside.rename(path)


if __name__ == "__main__":
    command, folder, *more = sys.argv[1:]
    if command == "learn":
        learn(Path(folder))
    else:
        serve(Path(folder), *more)
