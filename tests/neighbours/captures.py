"""What captures of the same requests have in common, however they were captured."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.production.windows import Captured, Selection, read_window
from retune.api.production import CaptureFormat, Production
from tests.neighbours.answering import KINDS, Sent, ask, request
from tests.unit.jobs.captured_for_tests import DIGEST, Shop

WINDOW_REQUESTS = 120
"""As many as a check and a gathering need."""
OWN = Production(uri="pvc://shop/captured")
"""What the server that was asked has captured itself."""
REQUESTS = 24


def sent(shop: Shop, count: int = REQUESTS, kinds: Sequence[str] = KINDS) -> list[Sent]:
    """Return requests of four digits each, of all kinds in turns."""
    return [request(kinds[n % len(kinds)], shop.pixels[shop.places(n)], f"u{n}") for n in range(count)]


def ask_all(port: int, requests: Sequence[Sent]) -> None:
    """Send requests one after the other; every one has to be answered."""
    for each in requests:
        status, answer = ask(port, each)
        assert status == 200, answer


def read(production: Production, shop: Shop, into: Path, **selection: Any) -> Captured:
    """Read what was captured lately, as a check Job does for the model of the tests."""
    now = int(time.time()) + 5
    wanted: dict[str, Any] = {"start": now - 1800, "end": now, "now": now, "models": {DIGEST}, **selection}
    return read_window(production, shop.signature, Selection(**wanted), max_rows=100_000, into=into, seed=0)


def at(uri: str, written: CaptureFormat) -> Production:
    """Return where captures of a format lie."""
    return Production(uri=uri, format=written)


@dataclass(frozen=True)
class Rows:
    """Rows of a capture in the order of ids, without their times."""

    keys: list[tuple[str, int, str]]
    pixels: NDArray[np.float32]
    scores: NDArray[np.float32]


def rows(found: Captured) -> Rows:
    """Return what is the same in every capture of the same requests."""
    keys = list(zip(found.request_ids.tolist(), found.rows.tolist(), found.models.tolist(), strict=True))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    return Rows([keys[place] for place in order], found.inputs["x"][order], found.outputs["scores"][order])


def assert_same(found: Captured, own: Captured, *, digits: int | None = None) -> None:
    """Fail unless two captures have the same rows: exactly, or to so many significant digits."""
    mine, theirs = rows(own), rows(found)
    assert theirs.keys == mine.keys
    tolerance = 0.0 if digits is None else 0.5 * 10.0 ** (1 - digits)
    np.testing.assert_allclose(theirs.pixels, mine.pixels, rtol=tolerance, atol=0)
    np.testing.assert_allclose(theirs.scores, mine.scores, rtol=tolerance, atol=0)
