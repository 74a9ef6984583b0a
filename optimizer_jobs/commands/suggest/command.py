"""The command `suggest`: which captured rows are worth a label. It reads, and writes one Parquet file.

The same files give the same rows: what is drawn is seeded by the ids of the rows.
"""

import hashlib
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from optimizer_jobs.commands.suggest.answered import Known, answered
from optimizer_jobs.commands.suggest.inputs import inputs_of
from optimizer_jobs.commands.suggest.sources import Found, found
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.errors import printable
from optimizer_jobs.measure.unlabelled.asking import LEAST_JUDGED, Chosen, Why, candidates, choose
from optimizer_jobs.production import layout
from optimizer_jobs.production.windows import Captured
from retune.contract.machines import AskedRows, SuggestResult
from retune.contract.requests import SuggestRequest

_JUDGED = 5000
"""Most judged rows that others are compared with; of more, a random part."""
_NOTES, _NOTE = 16, 900


def run(request: SuggestRequest) -> SuggestResult:
    """Write the rows that are worth a label, and return what they are.

    Raises:
        JobError: There are no captured rows, or none that can be read.
    """
    with tempfile.TemporaryDirectory(prefix="suggest-") as scratch:
        read = found(request, Path(scratch))
    rows = read.rows.take(~read.labelled)
    judged, count = _judged(read)
    chosen, note = _chosen(request, read, rows, judged)
    notes = (*read.notes, note, *_notes(request, rows, chosen, known=count))
    if len(chosen.rows):
        _write(resolve(request.into).local, rows, chosen)
    whys = Counter(chosen.why)
    labelled = int(read.labelled.sum())
    return SuggestResult(
        rows=len(chosen.rows),
        unlabelled=len(rows),
        labelled=labelled,
        judged=count,
        seen=max(read.rows.seen, len(read.rows)),
        since=_seconds(read.rows.times.min()),
        until=_seconds(read.rows.times.max()),
        why=tuple(AskedRows(why=why, rows=whys[why]) for why in Why if whys[why]),
        notes=tuple(printable(note, limit=_NOTE) for note in notes if note)[:_NOTES],
    )


def _judged(read: Found) -> tuple[pd.DataFrame, int]:
    """Return the inputs of rows that have been judged, at most _JUDGED of them, and how many there are."""
    frames = [inputs_of(rows, read.signature) for rows in read.judged if len(rows)]
    if not frames:
        return pd.DataFrame(), 0
    together = pd.concat(frames, ignore_index=True)
    kept = np.sort(np.random.default_rng(0).permutation(len(together))[:_JUDGED])
    return together.iloc[kept].reset_index(drop=True), len(together)


def _chosen(request: SuggestRequest, read: Found, rows: Captured, judged: pd.DataFrame) -> tuple[Chosen, str]:
    """Return what is chosen of the rows without a label, and what is to be said of their answers."""
    if not len(rows):
        return Chosen(np.zeros(0, dtype=np.int64), (), np.zeros(0)), ""
    known = Known.of(read.manifest, request.model)
    answers = answered(rows.outputs, known, rows=len(rows))
    inputs = inputs_of(rows, read.signature)
    among = candidates(inputs, judged, unsure=answers.unsure, answers=answers.shares)
    return choose(among, count=request.rows, chance=request.chance, seed=_seed(rows)), answers.note


def _seed(rows: Captured) -> int:
    """Return a seed that depends on which rows there are, and on nothing else."""
    keys = sorted(f"{request_id}/{row}" for request_id, row in zip(rows.request_ids, rows.rows, strict=True))
    return int.from_bytes(hashlib.blake2b("\n".join(keys).encode(), digest_size=4).digest(), "little")


def _notes(request: SuggestRequest, rows: Captured, chosen: Chosen, *, known: int) -> tuple[str, ...]:
    notes = []
    if known < LEAST_JUDGED and len(rows):
        words = "no row has" if not known else f"only {known} rows have"
        notes.append(f"So far {words} a label, so nothing tells which rows are far from those that have one.")
    wanted = min(request.rows, len(rows))
    if len(chosen.rows) < wanted:
        notes.append(f"{wanted - len(chosen.rows)} rows fewer than asked for: the others repeat these.")
    elif len(rows) < request.rows:
        notes.append(f"There are no more than {len(rows)} rows without a label.")
    return tuple(notes)


def _write(path: Path, rows: Captured, chosen: Chosen) -> None:
    """Write a line for each chosen row, the most informative first."""
    asked = rows.take(chosen.rows)
    table = pa.table(
        {
            layout.REQUEST_ID: pa.array(asked.request_ids.tolist(), pa.string()),
            layout.ROW: pa.array(asked.rows, layout.KEYS[layout.ROW]),
            layout.TIME: pa.array(asked.times.astype("datetime64[us]").astype(np.int64), layout.KEYS[layout.TIME]),
            "why": pa.array([why.value for why in chosen.why], pa.string()),
            "score": pa.array(np.round(chosen.scores, 4), pa.float64()),
        }
    )
    parquet.write_table(table, path)


def _seconds(moment: NDArray[np.datetime64]) -> int:
    return int(np.asarray(moment).astype("datetime64[s]").astype(np.int64))
