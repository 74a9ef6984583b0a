"""Which label a column of a network's scores stands for, where the network names its columns."""

from collections.abc import Sequence

from optimizer_jobs.data.datasets import Array
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.base import Delivered
from retune.api.model import Task
from retune.contract.results import Reason

_SHOWN = 5


def labels_in(delivered: Delivered) -> Array | None:
    """Return the labels of the validation rows, or None where there are none."""
    columns = delivered.columns
    return columns.read(delivered.label) if delivered.label in columns.names else None


def named_classes(
    names: Sequence[object] | None, delivered: Delivered, *, otherwise: str = "give the network an attribute `classes`"
) -> tuple[str, ...]:
    """Return the names of the score columns where labels are text; () where numbers, or the spec, say what they are.

    Args:
        names: What the network calls its columns; None where it says nothing.
        delivered: The delivered network.
        otherwise: How the network itself could say it, in words.

    Raises:
        JobError: DataInvalid when labels are text, and nothing says to which column a label belongs.
    """
    labels = labels_in(delivered)
    if delivered.task is not Task.CLASSIFICATION or delivered.classes or labels is None:
        return ()
    if labels.dtype.kind not in "OUS":
        return ()
    known, wanted = tuple(str(name) for name in names or ()), {str(label) for label in labels}
    if known and wanted <= set(known):
        return known
    words = f"; the network calls them {', '.join(known[:_SHOWN])}" if known else ""
    raise JobError(
        Reason.DATA_INVALID,
        delivered.uri,
        f"column {delivered.label!r} holds text, and nothing says which column of the scores a label is{words}.",
        f"Write labels as the numbers of the columns, from 0, name them in model.classes, or {otherwise}.",
    )


def numbered_classes(names: Sequence[str], delivered: Delivered) -> tuple[str, ...]:
    """Return the names of the score columns where labels are numbers that are such names, and no numbers of columns.

    Args:
        names: What the network calls its columns, such as 1 to 5 for stars.
        delivered: The delivered network.

    Raises:
        JobError: DataInvalid when labels could be either, and would mean something else.
    """
    labels = labels_in(delivered)
    if delivered.task is not Task.CLASSIFICATION or delivered.classes or labels is None or labels.ndim != 1:
        return ()
    if labels.dtype.kind not in "biu" or not names or list(names) == [str(place) for place in range(len(names))]:
        return ()
    values = {int(label) for label in labels}
    if not {str(value) for value in values} <= set(names):
        return ()
    if not values <= set(range(len(names))):
        return tuple(names)
    raise JobError(
        Reason.DATA_INVALID,
        delivered.uri,
        f"labels of column {delivered.label!r} could be the numbers of the score columns, or what the network calls "
        f"them ({', '.join(names[:_SHOWN])}).",
        "Name the label of each column in model.classes, in their order.",
    )
