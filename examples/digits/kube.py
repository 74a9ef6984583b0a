"""The digits example in a cluster: its names, and what its model server is asked."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from examples.digits.train import LOGITS, PIXELS, Split
from examples.kube import Example, Tools, infer

NAME = NAMESPACE = "digits"
DIGITS = Example(
    NAME,
    NAMESPACE,
    Path(__file__).resolve().parent,
    stores=("pvc", "s3"),
    targets=("deployment", "kserve"),
    selector=f"model={NAME}",  # KServe gives pods a label `app` of its own
)


@dataclass(frozen=True)
class Answer:
    """What the Service or a pod has answered."""

    place: str
    """Where it was asked: `service/NAME` or `pod/NAME`."""
    version: str
    """The version that serves: the first 12 digits of the digest of its bundle."""
    digits: tuple[int, ...]
    """One predicted digit a row."""


def ask(tools: Tools, place: str, rows: Split) -> Answer:
    """Ask the Service or a pod for predictions by the Open Inference Protocol; raises DemoError without an answer."""
    tensor = {
        "name": PIXELS,
        "shape": list(rows.pixels.shape),
        "datatype": "FP32",
        "data": rows.pixels.ravel().tolist(),
    }
    answer = infer(tools, place, [tensor])
    output = next(output for output in answer["outputs"] if output["name"] == LOGITS)
    scores = np.asarray(output["data"]).reshape(output["shape"])
    return Answer(place, answer.get("model_version") or "?", tuple(scores.argmax(axis=1).tolist()))
