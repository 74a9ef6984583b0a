"""Ask a model with rows as the first axis of everything, whatever axis the model itself has them on.

Data sets and measurements hold rows first. A state of a recurrent network may have them as another axis, and a setting
such as a sample rate has none; both are turned here and nowhere else. Requests of a server are never changed: golden
requests and timed calls have the form that the model takes.
"""

from collections.abc import Mapping

import numpy as np

from optimizer_jobs.models.engine import Array, EngineError, Session
from optimizer_jobs.signature import Signature


def ask(session: Session, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Return the outputs of one batch, rows first; an output without rows stays as it is.

    Args:
        session: The open model.
        inputs: Values by input name, each with shape (N, ...).

    Raises:
        EngineError: The model refuses them, or a setting that is one for all rows differs between them.
    """
    signature = session.signature
    if signature.is_rows_first:
        return session.run(inputs)
    outputs = session.run(as_taken(signature, inputs))
    axes = signature.output_axes
    turned = {name: np.moveaxis(values, axes[name] or 0, 0) for name, values in outputs.items() if values.ndim}
    return outputs | turned


def as_taken(signature: Signature, inputs: Mapping[str, Array]) -> Mapping[str, Array]:
    """Return inputs (N, ...) in the form that the model takes; errors are those of `ask`."""
    if signature.is_rows_first:
        return inputs
    axes = signature.input_axes
    return {name: _taken(values, axes[name], name) for name, values in inputs.items()}


def _taken(values: Array, axis: int | None, name: str) -> Array:
    if axis is not None:
        return values if axis == 0 else np.ascontiguousarray(np.moveaxis(values, 0, axis))
    if (values != values[:1]).any():
        raise EngineError(f"input {name} is one value for all rows of a request, and these rows have several")
    return np.asarray(values[0])
