"""Whether an object is what an earlier resource of this name left behind when it was deleted with `--cascade=orphan`.

Nothing with a controller is ever taken: it is somebody's. What has none must carry our labels and do exactly what would
have been asked of the object in its place, so that its result is an answer to the same question by the same image.
"""

from typing import Any

from retune.api.base import Json
from retune.cluster.parse import owner
from retune.workloads.labels import KUEUE_FEWEST

_OMITTED_IF_FALSE = frozenset({"readOnly"})
"""Fields that the API server leaves out where they are false."""


def is_left_behind(raw: Json, wanted: Json) -> bool:
    """Return whether nobody owns an object, and its labels say that a resource of the same name made it.

    Args:
        raw: The object that has the name.
        wanted: The manifest that was to be created under it.
    """
    labels = raw["metadata"].get("labels") or {}
    return owner(raw) is None and wanted["metadata"]["labels"].items() <= labels.items()


def answers_the_same(raw: Json, wanted: Json) -> bool:
    """Return whether an object that was left behind does what would have been asked of the one in its place.

    Args:
        raw: The object that has the name.
        wanted: The manifest that was to be created under it.
    """
    ends = "deletionTimestamp" in raw["metadata"]
    return is_left_behind(raw, wanted) and not ends and _holds(raw["spec"], _asked(wanted))


def _asked(wanted: Json) -> Json:
    """Return what a manifest asks for, without what a queue decides: whether the Job waits, and how many run."""
    annotations = wanted["metadata"].get("annotations") or {}
    theirs = {"suspend", "parallelism", "completions"} if KUEUE_FEWEST in annotations else {"suspend"}
    return {name: value for name, value in wanted["spec"].items() if name not in theirs}


def _holds(actual: Any, wanted: Any) -> bool:
    """Return whether every value that is wanted is there; the API server adds defaults of its own."""
    if isinstance(wanted, dict):
        return isinstance(actual, dict) and all(_has(actual, name, value) for name, value in wanted.items())
    if isinstance(wanted, list):
        same_length = isinstance(actual, list) and len(actual) == len(wanted)
        return same_length and all(_holds(*pair) for pair in zip(actual, wanted, strict=True))
    return bool(actual == wanted)


def _has(actual: Json, name: str, value: Any) -> bool:
    omitted = value is False and name in _OMITTED_IF_FALSE
    return _holds(actual.get(name, False if omitted else None), value)
