"""A metric of your own for `model.customMetric.container`: how much the boxes of a detector overlap the true ones.

It reads boxes as x, y, width and height, (rows, boxes, 4) or (rows, 4), and writes one number a picture: the mean
intersection over union of its boxes. An overlap below the argument `least` counts as none.
"""

import os

import numpy as np


def overlaps(answered: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Return the intersection over union (N, K) of boxes (N, K, 4) and the true ones of the same places."""
    low = np.maximum(answered[..., :2], true[..., :2])
    high = np.minimum(answered[..., :2] + answered[..., 2:], true[..., :2] + true[..., 2:])
    common = np.clip(high - low, 0, None).prod(axis=-1)
    union = np.abs(answered[..., 2:]).prod(axis=-1) + true[..., 2:].prod(axis=-1) - common
    return np.asarray(common / np.maximum(union, 1e-9))


def main() -> None:
    """Measure once, as RETUNE_OUTPUTS, RETUNE_LABELS and RETUNE_RESULT say."""
    with np.load(os.environ["RETUNE_OUTPUTS"]) as outputs, np.load(os.environ["RETUNE_LABELS"]) as given:
        true = given["labels"].astype(np.float64)
        rows = len(true)
        true = true.reshape(rows, -1, 4)
        answered = outputs["boxes"].astype(np.float64).reshape(rows, -1, 4)
    shares = overlaps(answered, true)
    least = float(os.environ.get("RETUNE_PARAM_LEAST", "0"))
    np.save(os.environ["RETUNE_RESULT"], np.where(shares >= least, shares, 0.0).mean(axis=1))


if __name__ == "__main__":
    main()
