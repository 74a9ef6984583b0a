"""A small shop for tests: real rows, a real model, its bundle, its captured requests and their labels."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.models.bundle import Lineage, Manifest, manifest_digest
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.production.reference import Reference, of_bundle, write_reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.production.writer import CaptureWriter
from retune.api.model import Dataset, Task
from retune.api.monitoring import Drift, Quality
from retune.api.production import Labels, Production
from retune.contract.requests import BundleRef, CheckRequest, Window
from tests.monitor.trades import TRADES

Array = NDArray[Any]

HOUR = 3600
FIRST = 480_000
"""Number of the first window."""
STORE = "pvc://shop/store"
Change = Callable[[Array], Array]


@dataclass
class Shop:
    """A claim with a store, a bundle, a reference, captured requests and labels."""

    root: Path
    task: Task = Task.CLASSIFICATION
    inputs: Array = field(init=False)
    truth: Array = field(init=False)
    bundle: BundleRef = field(init=False)

    def __post_init__(self) -> None:
        trade = TRADES[self.task]
        learnt, known = (part[::2] for part in trade.rows())
        self.inputs, self.truth = (part[1::2] for part in trade.rows())
        self.run = trade.fit(learnt, known)
        self.signature = trade.signature(self.inputs.shape[1])
        self.bundle = self._publish()

    def refer(self) -> None:
        """Store the champion's answers to the rows that it has not learnt from."""
        count = len(self.inputs)
        rows = Captured(
            np.asarray([f"v{place}" for place in range(count)], dtype=object),
            np.zeros(count, np.int64),
            np.zeros(count, "datetime64[us]"),
            np.full(count, self.bundle.digest, dtype=object),
            {"x": self.inputs},
            self.run(self.inputs),
            seen=count,
        )
        path = resolve(of_bundle(STORE, self.bundle.digest)).local
        path.parent.mkdir(parents=True, exist_ok=True)
        write_reference(path, Reference(rows, np.ones(count, dtype=np.bool_), self.truth), self.signature)

    def serve(
        self,
        window: int,
        *,
        rows: int = 600,
        change: Change = np.asarray,
        labels: Change | None = np.asarray,
        among: Array | None = None,
    ) -> None:
        """Capture a window of one-row requests, drawn among some rows or all, and write their labels."""
        generator = np.random.default_rng(window)
        pool = np.arange(len(self.inputs)) if among is None else among
        chosen = pool[generator.integers(0, len(pool), rows)]
        inputs = change(self.inputs[chosen])
        writer = CaptureWriter(self.root / "captured", self.signature)
        for place in range(rows):
            one = inputs[place : place + 1]
            time = (window + place / rows) * HOUR
            assert writer.offer(f"{window}-{place}", self.bundle.digest, {"x": one}, self._answer(one), time)
        writer.close()
        if labels is not None:
            self.label([f"{window}-{place}" for place in range(rows)], labels(self.truth[chosen]), f"w{window}")

    def label(self, names: list[str], truth: Array, file: str) -> None:
        """Write a file of labels."""
        path = self.root / "labels" / f"{file}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(pa.table({"request_id": names, "label": truth.tolist()}), path)

    def rewrite(self, change: Callable[[pa.Table], pa.Table]) -> None:
        """Replace every captured file by what `change` makes of its table."""
        found = list((self.root / "captured").rglob("*.parquet"))
        assert found
        for path in found:
            parquet.write_table(change(parquet.read_table(path)), path)

    def request(self, window: int = FIRST, **changes: Any) -> CheckRequest:
        """Return the request for a window, whose own labels are due."""
        span = Window(index=window, start=window * HOUR, end=(window + 1) * HOUR)
        fields: dict[str, Any] = {
            "resource": "ml/shop",
            "spec_hash": "0123456789abcdef",
            "window": span,
            "labelled": span,
            "champion": self.bundle,
            "reference": Dataset(uri="pvc://shop/data/validation.npz"),
            "production": Production(uri="pvc://shop/captured", labels=Labels(uri="pvc://shop/labels"), retention="0s"),
            "drift": Drift(),
            "quality": Quality(),
            "min_samples": 500,
            "max_samples": 20000,
            "store": STORE,
        }
        return CheckRequest(**(fields | changes))

    def _answer(self, one: Array) -> dict[str, Array]:
        known = np.nan_to_num(one, nan=0.0, posinf=0.0, neginf=0.0)
        return self.run(known)

    def _publish(self) -> BundleRef:
        """Store a bundle as the judge would, without the libraries that only the optimizer image has."""
        beside = self.root / "bundle"
        beside.mkdir()
        for name in ("model.onnx", "golden.json"):
            (beside / name).write_bytes(name.encode())
        manifest = Manifest(
            task=self.task,
            engine=EngineOptions(),
            signature=self.signature,
            techniques=(),
            size_bytes=10,
            model_digest="sha256:m",
            files={path.name: file_digest(path) for path in sorted(beside.iterdir())},
            lineage=Lineage(resource="ml/shop", original_model="sha256:o"),
        )
        written = json.dumps(manifest.model_dump(mode="json", exclude_none=True)).encode()
        (beside / "bundle.json").write_bytes(written)
        digest = manifest_digest(written)
        uri = f"{STORE}/bundles/{digest.removeprefix('sha256:')}"
        target = resolve(uri).local
        target.parent.mkdir(parents=True)
        beside.rename(target)
        return BundleRef(uri=uri, digest=digest)
