"""Captured requests for tests: real digits, answered by a real model, written by the real writer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.models.engine import Session
from optimizer_jobs.production.layout import folder_of
from optimizer_jobs.production.windows import Captured, Selection, read_window
from optimizer_jobs.production.writer import CaptureWriter
from optimizer_jobs.signature import Signature
from retune.api.production import Labels, Production

Array = NDArray[Any]

HOUR = 3600
NOW = 490_000 * HOUR
"""A full hour that is over, in seconds since 1970."""
DIGEST = "sha256:" + "ab" * 32
REQUEST_ROWS = 4


@dataclass(frozen=True)
class Shop:
    """A folder of captured requests and one of labels, in a claim of its own."""

    root: Path
    session: Session
    pixels: Array
    digits: Array

    production = Production(uri="pvc://shop/captured", labels=Labels(uri="pvc://shop/labels"))

    @property
    def captured(self) -> Path:
        """Where requests are captured."""
        return self.root / "captured"

    @property
    def signature(self) -> Signature:
        """What the model takes and answers."""
        return self.session.signature

    def serve(self, requests: Sequence[int], *, since: float, every: float = 1.0, model: str = DIGEST) -> None:
        """Capture requests by number, each of REQUEST_ROWS digits, one `every` so many seconds."""
        writer = CaptureWriter(self.captured, self.signature)
        for place, number in enumerate(requests):
            inputs = {"x": self.pixels[self.places(number)]}
            time = since + place * every
            assert writer.offer(f"r{number}", model, inputs, self.session.run(inputs), time)
        writer.close()

    def label(self, requests: Sequence[int], name: str = "a", *, change: Callable[[Array], Array] = np.asarray) -> Path:
        """Write what the digits of these requests are, or what `change` makes of it."""
        pairs = [(f"r{number}", row) for number in requests for row in range(REQUEST_ROWS)]
        labels = change(np.concatenate([self.digits[self.places(number)] for number in requests]))
        table = pa.table(
            {
                "request_id": [request for request, _ in pairs],
                "row": pa.array([row for _, row in pairs], pa.int32()),
                "label": labels,
            }
        )
        path = self.root / "labels" / f"{name}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, path)
        return path

    def read(self, into: Path, *, start: int = NOW, end: int = NOW + HOUR, **changes: Any) -> Captured:
        """Read a window, the hour from NOW unless said otherwise."""
        limits = {"max_rows": changes.pop("max_rows", 100_000), "seed": changes.pop("seed", 0)}
        selection = Selection(start=start, end=end, **({"now": NOW + HOUR} | changes))
        return read_window(self.production, self.signature, selection, into=into, **limits)

    def file(self, name: str, *, hour: int = NOW) -> Path:
        """Return the path of a file in an hour's folder, which is made."""
        path = self.captured / folder_of(hour) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    def rewrite(self, change: Callable[[pa.Table], pa.Table]) -> Path:
        """Replace the only captured file by what `change` makes of its table."""
        (path,) = self.captured.rglob("*.parquet")
        parquet.write_table(change(parquet.read_table(path)), path)
        return path

    @staticmethod
    def places(number: int) -> slice:
        """Return which digits a request has."""
        return slice(number * REQUEST_ROWS, (number + 1) * REQUEST_ROWS)
