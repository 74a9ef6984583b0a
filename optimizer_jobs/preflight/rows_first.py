"""See that a model takes rows, and where inputs come from that the data lacks.

States that a caller carries along begin with zeros. Settings such as a sample rate have no usual value. They are named
here, because nothing later could say what is wrong with them.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from optimizer_jobs.data.datasets import SINGLE_INPUT
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.formats.delivery import Opened
from optimizer_jobs.progress import say
from optimizer_jobs.signature import Signature
from retune.api.model import InputValue
from retune.contract.results import Reason

_NEXT = "Export the model with an axis for the rows of a request."
_NAME = "Set it for all rows in model.inputs, or with --input {}=VALUE, or give it as an array of the data."
_UNKNOWN = "Take the name out of model.inputs, or correct it."


def check_rows(signature: Signature, *, uri: str) -> None:
    """Refuse a model without an input that holds rows.

    Args:
        signature: Inputs and outputs of the model.
        uri: Name by which people know the model.

    Raises:
        JobError: ModelInvalid.
    """
    if not any(axis is not None for axis in signature.input_axes.values()):
        inputs = ", ".join(spec.words for spec in signature.inputs)
        reason = f"no input has an axis for rows: {inputs}" if inputs else "the model has no inputs"
        raise JobError(Reason.MODEL_INVALID, uri, f"{reason}.", _NEXT)


def with_fills(opened: Opened, asked: Sequence[InputValue], columns: Collection[str], *, uri: str) -> Opened:
    """Return the model with the values of inputs that the data lacks, and say which were found rather than told.

    Args:
        opened: The model as delivered.
        asked: Values that the spec names.
        columns: Names of the columns or arrays that every data set has.
        uri: Name by which people know the model.

    Raises:
        JobError: ModelInvalid; the spec names no input, or a setting has no value.
    """
    signature = opened.signature
    names = [spec.name for spec in signature.inputs]
    constants = {constant.name: float(constant.value) for constant in asked}
    if unknown := [name for name in constants if name not in names]:
        message = f"model.inputs names {', '.join(unknown)}, and the inputs are {', '.join(names)}."
        raise JobError(Reason.MODEL_INVALID, uri, message, _UNKNOWN)
    zeros = [name for name in _states(signature, columns) if name not in constants]
    if zeros:
        say(f"  {', '.join(zeros)} begin{'s' if len(zeros) == 1 else ''} with zeros: the data has no such state")
    fills = constants | dict.fromkeys(zeros, 0.0)
    _check_settings(signature, {*columns, *fills}, uri=uri)
    return replace(opened, signature=signature.model_copy(update={"fills": fills})) if fills else opened


def _states(signature: Signature, columns: Collection[str]) -> Iterator[str]:
    """Yield the states that the data lacks, where it has another input."""
    lacking = [name for name in signature.states if name not in columns]
    if len(lacking) < len(signature.inputs):
        yield from lacking


def _check_settings(signature: Signature, known: Collection[str], *, uri: str) -> None:
    """Refuse an input without rows that has no value; one input alone may be a whole table, or the array `x`."""
    for spec in signature.inputs:
        if signature.input_axes[spec.name] is None and spec.name not in known and spec.name != SINGLE_INPUT:
            message = f"input `{spec.words}` is one value for all rows of a request, and the data has none."
            raise JobError(Reason.MODEL_INVALID, uri, message, _NAME.format(spec.name))
