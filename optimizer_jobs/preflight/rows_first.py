"""See that a model takes rows: every input has the rows of a request as its first axis.

State that a caller carries along, and settings such as a sample rate, are inputs of another kind. They are named here,
because nothing later could say what is wrong with them.
"""

from collections.abc import Iterator

from optimizer_jobs.errors import JobError
from optimizer_jobs.signature import Signature, TensorSpec
from retune.contract.results import Reason

_NEXT = (
    "Rows must be the first axis of every input: make what never changes a constant of the graph, and wrap the model "
    "so that state stays inside it."
)


def check_rows_first(signature: Signature, *, uri: str) -> None:
    """Refuse a model with an input that does not hold one entry a row; every such input is named.

    Args:
        signature: Inputs and outputs of the model.
        uri: Name by which people know the model.

    Raises:
        JobError: ModelInvalid.
    """
    faults = list(_faults(signature.inputs))
    if faults:
        raise JobError(Reason.MODEL_INVALID, uri, f"{'; '.join(faults)}.", _NEXT)


def _faults(inputs: tuple[TensorSpec, ...]) -> Iterator[str]:
    if not inputs:
        yield "the model has no inputs"
    sizes = {spec.shape[0] for spec in inputs if spec.shape}
    for spec in inputs:
        if not spec.shape:
            yield f"input `{spec.name}` is a scalar ({spec.dtype}), not one value a row"
        elif len(sizes) > 1 and spec.shape[0] >= 0:
            yield f"input `{spec.words}` has {spec.shape[0]} as its first axis, where other inputs have their rows"
