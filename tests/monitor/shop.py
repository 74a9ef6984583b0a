"""A small shop for tests: real rows, a real model, its bundle, its captured requests and their labels."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.data.uris import resolve
from optimizer_jobs.data.volumes import file_digest
from optimizer_jobs.measure.answer_distance import distance_from
from optimizer_jobs.measure.answers import Answers, answers_of
from optimizer_jobs.measure.sensitivity import Inputs, carried
from optimizer_jobs.models.bundle import Lineage, Manifest, manifest_digest
from optimizer_jobs.models.engine import EngineOptions
from optimizer_jobs.production.carried import Carried, as_stored, units_of
from optimizer_jobs.production.reference import Reference, of_bundle, write_reference
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.signature import Reading
from retune.api.model import Dataset, Task
from retune.api.monitoring import Drift, Headroom, Quality
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
    width: int | None = None
    """How many of the columns there are; None: all."""
    inputs: Array = field(init=False)
    truth: Array = field(init=False)
    bundle: BundleRef = field(init=False)

    def __post_init__(self) -> None:
        trade = TRADES[self.task]
        inputs, truth = trade.rows()
        inputs = inputs[:, : self.width]
        learnt, known = inputs[::2], truth[::2]
        self.inputs, self.truth = inputs[1::2], truth[1::2]
        self.run = trade.fit(learnt, known)
        self.signature = trade.signature(self.inputs.shape[1])
        self.bundle = self._publish()

    def refer(self, *, measured: bool = False) -> None:
        """Store the champion's answers to the rows that it has not learnt from, and if wanted what columns carry."""
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
        reference = Reference(rows, np.ones(count, dtype=np.bool_), self.truth)
        write_reference(path, replace(reference, carried=self._carried()) if measured else reference, self.signature)

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

    def learning(self, window: int, *, windows: int = 2, **changes: Any) -> CheckRequest:
        """Return the request for a window that is asked for headroom, which the windows before it may teach."""
        first = window - windows
        span = Window(index=first, start=first * HOUR, end=window * HOUR)
        return self.request(window, **({"headroom": Headroom(), "learned": span} | changes))

    def blind_to(self, places: slice) -> None:
        """Let the model see one value alone in some columns, so that they carry nothing."""
        sighted, usual = self.run, self.inputs[:, places].mean(axis=0)

        def answer(rows: Array) -> dict[str, Array]:
            seen = rows.copy()
            seen[:, places] = usual
            return sighted(seen)

        self.run = answer

    def read_as(self, reading: Reading) -> None:
        """Have the bundle say how its outputs are read."""
        self.signature = self.signature.model_copy(update={"reading": reading})
        self.bundle = self._publish()
        self.refer()

    def _carried(self) -> Carried:
        """Return what columns carry, as the Job measures it that writes the reference."""

        def ask(inputs: Inputs) -> Answers:
            count = len(inputs["x"])
            return answers_of(self.run(inputs["x"]), rows=count, task=self.task, reading=self.signature.reading)

        inputs = {"x": self.inputs}
        return as_stored(carried(ask, distance_from, inputs, units_of(inputs), seed=0))

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
        target.parent.mkdir(parents=True, exist_ok=True)
        beside.rename(target)
        return BundleRef(uri=uri, digest=digest)
