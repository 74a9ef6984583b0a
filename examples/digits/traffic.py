"""Send the example's model server real handwritten digits, and write later which digit each one was.

Shifted traffic is the same digits in another handwriting: slanted, with a thicker stroke, on noisy paper, and some
digits more often than others. For a pod of the optimizer image; rows and labels lie in folders or a bucket. This file
stands alone: the demo ships it in a ConfigMap. It must know nothing of the model and of what is made of its requests.
"""

import argparse
import http.client
import json
import signal
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import Any, NoReturn
from urllib.parse import urlsplit

import fsspec
import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Array = NDArray[Any]

PIXELS, LOGITS = "pixels", "logits"
REQUEST_ROWS = 8
TELL_SECONDS = 10.0
"""Time between two lines of output, and between two files of labels."""


@dataclass(frozen=True)
class Hand:
    """A handwriting."""

    slant: float = 0.0
    """Mean slant in degrees."""
    unsteadiness: float = 0.0
    """Standard deviation of the slant in degrees."""
    stroke: float = 0.0
    """How much thicker the stroke is, from 0 to 1."""
    noise: float = 0.03
    """Standard deviation of the noise of a scan, as a share of the brightest pixel."""
    favourites: tuple[int, ...] = ()
    """Digits that come three times as often."""

    def write(self, pixels: Array, rng: np.random.Generator) -> Array:
        """Return (N, 1, 8, 8) digits in this handwriting."""
        return np.stack([self._digit(image[0], rng) for image in pixels])[:, np.newaxis].astype(np.float32)

    def _digit(self, image: Array, rng: np.random.Generator) -> Array:
        angle = rng.normal(self.slant, self.unsteadiness)
        turned = ndimage.rotate(image, angle, reshape=False, order=1) if angle else image
        thick = ndimage.grey_dilation(turned, size=(2, 2))
        mixed = (1 - self.stroke) * turned + self.stroke * thick
        noisy = mixed + rng.normal(0.0, self.noise, size=image.shape)
        return np.asarray(np.clip(noisy, 0.0, 1.0))


HANDS = {
    "usual": Hand(),
    "shifted": Hand(slant=18.0, unsteadiness=5.0, stroke=0.3, noise=0.05, favourites=(1, 4, 7)),
}


def rows_of(folder: str) -> tuple[Array, Array]:
    """Return every digit of the example's three files: (N, 1, 8, 8) pixels and (N,) labels."""
    files = [_arrays(f"{folder}/{name}.npz") for name in ("train", "validation", "test")]
    return np.concatenate([file[PIXELS] for file in files]), np.concatenate([file["label"] for file in files])


def _arrays(place: str) -> dict[str, Array]:
    with fsspec.open(place) as source, np.load(source, allow_pickle=False) as file:
        return {PIXELS: file[PIXELS], "label": file["label"]}


def requests(pixels: Array, labels: Array, hand: Hand, *, seed: int) -> Iterator[tuple[Array, Array]]:
    """Yield pixels and labels of one request after the other, for ever."""
    rng = np.random.default_rng(seed)
    weights = np.where(np.isin(labels, hand.favourites), 3.0, 1.0)
    while True:
        chosen = rng.choice(len(labels), size=REQUEST_ROWS, p=weights / weights.sum())
        yield hand.write(pixels[chosen], rng), labels[chosen]


class Server:
    """The model server, asked over a connection for each request, so that all pods of its Service have a share."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._path = parts.path
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port or 80, timeout=10)

    def ask(self, identity: str, pixels: Array) -> Array | None:
        """Return the (N,) digits that the model predicts for (N, 1, 8, 8) pixels; None where it did not answer."""
        tensor = {"name": PIXELS, "shape": list(pixels.shape), "datatype": "FP32", "data": pixels.ravel().tolist()}
        body = json.dumps({"id": identity, "inputs": [tensor]})
        try:
            self._connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            answer = json.loads(self._connection.getresponse().read())
            output = next(output for output in answer["outputs"] if output["name"] == LOGITS)
        except (OSError, http.client.HTTPException, ValueError, KeyError, StopIteration):
            return None
        finally:
            self._connection.close()
        return np.asarray(np.reshape(output["data"], output["shape"]).argmax(axis=1))


class Truth:
    """Which digits they were, written to a folder some seconds after the model was asked."""

    def __init__(self, folder: str) -> None:
        self._fs, self._folder = fsspec.url_to_fs(folder)
        self._known: list[tuple[str, int, int]] = []
        self._fs.makedirs(self._folder, exist_ok=True)

    def learn(self, identity: str, labels: Array) -> None:
        """Take the (N,) labels of a request's rows."""
        self._known += [(identity, row, int(label)) for row, label in enumerate(labels)]

    def tell(self) -> None:
        """Write the labels since the last time to a file of their own, whole or not at all."""
        import pyarrow as pa
        from pyarrow import parquet

        if not self._known:
            return
        identities, rows, labels = zip(*self._known, strict=True)
        table = pa.table({"request_id": identities, "row": pa.array(rows, pa.int32()), "label": pa.array(labels)})
        with self._fs.transaction, self._fs.open(f"{self._folder}/{time.time_ns()}.parquet", "wb") as file:
            parquet.write_table(table, file)
        self._known = []


def send(server: Server, truth: Truth, work: Iterator[tuple[Array, Array]], *, rate: float) -> NoReturn:
    """Ask for ever, and print how many answers were right.

    Args:
        server: The model server.
        truth: Takes the labels of rows that were answered.
        work: Pixels and labels of one request after the other.
        rate: Rows a second.
    """
    right = asked = failed = 0
    printed = due = time.monotonic()
    for pixels, labels in work:
        identity = str(uuid.uuid4())
        answers = server.ask(identity, pixels)
        if answers is None:
            failed += 1
        else:
            truth.learn(identity, labels)
            right, asked = right + int((answers == labels).sum()), asked + len(labels)
        if time.monotonic() - printed >= TELL_SECONDS:
            truth.tell()
            say(f"{asked} digits, {right / max(asked, 1):.1%} right, {failed} requests failed")
            right = asked = failed = 0
            printed = time.monotonic()
        due = max(due + len(labels) / rate, time.monotonic() - 1.0)
        time.sleep(max(0.0, due - time.monotonic()))
    raise AssertionError("the work never ends")


def say(text: str) -> None:
    """Print one line at once."""
    print(text, flush=True)


def main() -> NoReturn:
    """Send traffic until SIGTERM, and then write the last labels."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--url", required=True, help="http://HOST/v2/models/NAME/infer")
    parser.add_argument("--rows", required=True, help="folder with the example's data")
    parser.add_argument("--labels", required=True, help="folder for the labels")
    parser.add_argument("--hand", choices=sorted(HANDS), default="usual", help="handwriting (default: %(default)s)")
    parser.add_argument("--rate", type=float, default=40.0, help="rows a second (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    truth = Truth(options.labels)

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        truth.tell()
        sys.exit(0)

    signal.signal(signal.SIGTERM, stop)
    pixels, labels = rows_of(options.rows)
    say(f"{options.hand} writing, {options.rate:g} digits a second")
    send(
        Server(options.url), truth, requests(pixels, labels, HANDS[options.hand], seed=options.seed), rate=options.rate
    )


if __name__ == "__main__":
    main()
