"""Whole windows for tests: a champion whose requests were captured in some way goes through `check` and `gather`."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from optimizer_jobs.commands.check import command as check
from optimizer_jobs.commands.gather import command as gather
from optimizer_jobs.commands.gather.splits import fingerprints
from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.runtime import open_session
from optimizer_jobs.production.stored import store_reference
from retune.api.model import Data, Dataset
from retune.api.monitoring import Drift, Quality
from retune.api.production import Labels, Production
from retune.api.triggers import Refresh
from retune.contract.requests import BundleRef, CheckRequest, GatherRequest, Window
from retune.contract.results import CheckResult, GatherResult
from tests.unit.jobs.captured_for_tests import REQUEST_ROWS, Shop

LABELS = Labels(uri="pvc://shop/labels")
SPLITS = ("training", "validation", "test")


@dataclass(frozen=True)
class Champion:
    """A champion with a reference, whose live requests have labels."""

    bundle: BundleRef
    store: str
    data: Data

    def check(self, production: Production) -> CheckResult:
        """Judge the last half hour; drift too where Evidently is there, as in the monitor's image."""
        now = int(time.time()) + 5
        window = Window(index=now // 1800, start=now - 1800, end=now)
        request = CheckRequest(
            resource="ml/digits",
            spec_hash="0123456789abcdef",
            window=window,
            labelled=window,
            champion=self.bundle,
            production=production.model_copy(update={"labels": LABELS}),
            reference=self.data.validation,
            drift=Drift() if find_spec("evidently") else None,
            quality=Quality(min_labels=100),
            min_samples=100,
            max_samples=20_000,
            store=self.store,
        )
        return check.run(request)

    def gather(self, production: Production, run: str) -> GatherResult:
        """Build a run's data from the last half hour alone."""
        request = GatherRequest(
            resource="ml/digits",
            run=run,
            spec_hash="abc",
            data=self.data,
            production=production.model_copy(update={"labels": LABELS}),
            refresh=Refresh.model_validate({"span": "30m", "minRows": 100, "policy": "RecentOnly"}),
            until=int(time.time()) + 5,
            champion=self.bundle,
            store=self.store,
        )
        return gather.run(request)

    def refer(self, rows: Rows) -> None:
        """Store the champion's answers to the validation rows."""
        bundle = open_bundle(self.bundle.uri, digest=self.bundle.digest)
        assert store_reference(self.store, bundle, open_session(bundle), rows) is not None


def label(shop: Shop, requests: int) -> None:
    """Write what the digits of the requests u0, u1, ... are."""
    names = [f"u{number}" for number in range(requests) for _ in range(REQUEST_ROWS)]
    rows = pa.array([row for _ in range(requests) for row in range(REQUEST_ROWS)], pa.int32())
    path = shop.root / "labels" / "a.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(
        pa.table({"request_id": names, "row": rows, "label": shop.digits[: requests * REQUEST_ROWS]}), path
    )


def verdicts(result: CheckResult) -> Mapping[str, Any]:
    """Return what a check says of the rows, without its times and paths."""
    signals = {"drift": result.drift, "quality": result.quality}
    said = {name: signal and (signal.verdict, signal.value, signal.samples) for name, signal in signals.items()}
    return said | {"rows": (result.samples, result.set_aside, result.violations), "columns": result.columns}


def learnt(result: GatherResult, shop: Shop, into: Path) -> dict[str, list[tuple[bytes, int]]]:
    """Return the rows of each split as digests of the inputs, and labels."""
    assert result.fresh is not None, result.message
    found = {}
    for name in SPLITS:
        stored = getattr(result.fresh, name)
        dataset = Dataset(uri=stored.uri, digest=stored.digest)
        rows = read_dataset(dataset, shop.signature, into=into / name)
        labels = np.asarray(rows.answers).tolist()
        found[name] = list(zip(fingerprints(rows.inputs), labels, strict=True))
    return found
