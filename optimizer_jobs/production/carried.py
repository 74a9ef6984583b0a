"""What each column of a champion carries, as the reference's file holds it: in its metadata, under the file's digest.

A reference without it, or with one that cannot be read, is a reference all the same: columns count alike then.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from optimizer_jobs.measure.sensitivity import Unit
from optimizer_jobs.production.features import is_wide
from retune.contract.requests import Document

Array = NDArray[Any]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]

KEY = "retune.carried"
"""Key of the file's metadata."""
EARLIER = "the champion's reference was written before what columns carry was measured; the next version's will say"


class Carried(Document):
    """The shares of the answers that columns carry at most."""

    inputs: Mapping[str, tuple[Share | None, ...]] = {}
    """By input, for each number of a row in row-major order; one for a wide input. None where it had one value."""
    unknown: Annotated[str, Field(max_length=300)] | None = None
    """Why nothing is known, as a clause."""

    @property
    def columns(self) -> int:
        """Number of columns that were measured."""
        return sum(map(len, self.inputs.values()))


def units_of(inputs: Mapping[str, Array]) -> list[Unit]:
    """Return what is drawn anew at a time: each number of a row of inputs (N, ...), and wide inputs whole."""
    units = []
    for name, values in inputs.items():
        size = int(np.prod(values.shape[1:], dtype=np.int64))
        units += [Unit(name)] if is_wide(values) else [Unit(name, place) for place in range(size)]
    return units


def as_stored(shares: Mapping[Unit, float | None]) -> Carried:
    """Return the shares of units in the form of the file; shares are rounded up, so that none is too small."""
    inputs: dict[str, list[float | None]] = {}
    for unit, share in shares.items():
        inputs.setdefault(unit.name, []).append(None if share is None else float(np.ceil(1e4 * share) / 1e4))
    return Carried(inputs={name: tuple(values) for name, values in inputs.items()})


def written(carried: Carried) -> dict[str, str]:
    """Return the metadata of a reference's file."""
    return {KEY: carried.model_dump_json(by_alias=True, exclude_none=False)}


def read(metadata: Mapping[bytes, bytes] | None) -> Carried:
    """Return what a file's metadata says."""
    text = (metadata or {}).get(KEY.encode())
    if text is None:
        return Carried(unknown=EARLIER)
    try:
        return Carried.model_validate_json(text)
    except ValidationError:
        return Carried(unknown="what the champion's reference says of it cannot be read")
