"""Inputs of captured rows as a table; a wide one, such as an image, by random projections of all its numbers.

The same numbers have the same projections, whichever rows stand beside them, so that rows of two files can be compared.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from optimizer_jobs.production.features import is_wide, table
from optimizer_jobs.production.windows import Captured
from optimizer_jobs.signature import Signature
from retune.api.model import Task

PROJECTIONS = 32
"""Numbers that stand for a wide input."""
_ROWS = 512
"""Rows that are projected at once."""


def inputs_of(rows: Captured, signature: Signature) -> pd.DataFrame:
    """Return N rows as a table with a column for every value of narrow inputs, and PROJECTIONS for each wide one."""
    narrow = tuple(spec for spec in signature.inputs if not is_wide(rows.inputs[spec.name]))
    chosen = replace(rows, inputs={spec.name: rows.inputs[spec.name] for spec in narrow}, outputs={})
    frame = table(chosen, signature.model_copy(update={"inputs": narrow}), task=Task.GENERIC)
    wide: Mapping[str, NDArray[Any]] = {
        spec.name: rows.inputs[spec.name] for spec in signature.inputs if spec not in narrow
    }
    parts = [_projected(name, values) for name, values in wide.items()]
    return pd.concat([frame.reset_index(drop=True), *parts], axis=1) if parts else frame


def _projected(name: str, values: NDArray[Any]) -> pd.DataFrame:
    from sklearn.random_projection import SparseRandomProjection

    flat = values.reshape(len(values), -1)
    width = flat.shape[1]
    shown = np.zeros((len(flat), PROJECTIONS))
    if len(flat) and width:
        projection = SparseRandomProjection(PROJECTIONS, random_state=0).fit(np.zeros((1, width)))
        for start in range(0, len(flat), _ROWS):
            part = np.nan_to_num(flat[start : start + _ROWS].astype(np.float64), posinf=0.0, neginf=0.0)
            shown[start : start + _ROWS] = projection.transform(part)
    return pd.DataFrame(shown, columns=[f"{name}~{width}~{number}" for number in range(PROJECTIONS)])
