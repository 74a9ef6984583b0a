"""Metrics as owners write them, each to be written into a folder of its own: boxes, and what goes wrong."""

SOURCE = '''
import os
import time
import numpy as np


def iou(outputs, labels):
    """Intersection over union of one box a row, as x, y, width and height."""
    found, true = outputs["boxes"].reshape(-1, 4), labels.reshape(-1, 4)
    low = np.maximum(found[:, :2], true[:, :2])
    high = np.minimum(found[:, :2] + found[:, 2:], true[:, :2] + true[:, 2:])
    common = np.prod(np.clip(high - low, 0, None), axis=1)
    return common / (np.prod(found[:, 2:], axis=1) + np.prod(true[:, 2:], axis=1) - common)


def average_precision(outputs, labels, least=0.5):
    """Area under precision and recall of boxes in the order of their scores."""
    order = np.argsort(-outputs["scores"].reshape(-1), kind="stable")
    hits = (iou(outputs, labels) >= least)[order]
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float((precision * hits).sum() / len(hits))


def misses(outputs, labels):
    return (iou(outputs, labels) < 0.5).astype(float)


def error(outputs, labels):
    return float(np.abs(outputs["value"] - labels).mean())


def below(outputs, labels):
    return -0.3


def words(outputs, labels):
    return "good"


def short(outputs, labels):
    return np.zeros(3)


def infinite(outputs, labels):
    return np.full(len(labels), np.nan)


def broken(outputs, labels):
    raise KeyError("logits")


def dying(outputs, labels):
    os._exit(3)


def secret(outputs, labels):
    return float("RETUNE_SECRET_KEY" in os.environ)


def slow(outputs, labels):
    time.sleep(0.2)
    return 0.5


def positional(answers, truth):
    return 1.0


threshold = 0.5
'''
