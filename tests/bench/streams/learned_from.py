"""What a run had best learn from, month by month: `python -m tests.bench.streams.learned_from --packages DIR`.

At the beginning of each month a run has the labelled rows of the days before, divided as `gather` does, and the rows
that the delivered model was made from. The stream's model is fitted on each training set that `refresh.policy` knows,
and judged on the month that follows; what Retune chooses knows nothing of that month.
"""

import argparse
import warnings
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from optimizer_jobs.commands.gather.choosing import choose
from optimizer_jobs.commands.gather.policies import Parts, all_sets
from optimizer_jobs.data.datasets import Rows
from retune.api.model import Task
from tests.bench.streams.models import SHARES, Fitted, Places, fit, fitted
from tests.bench.streams.scores import log_loss
from tests.bench.streams.sources import SOURCES, Stream

_DAY = np.timedelta64(86400, "s")
_SHARE, _LIMIT, _SEED = 0.5, 100_000, 0


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each month, and their means."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.streams.learned_from", description=__doc__)
    parser.add_argument("--packages", type=Path, required=True, help="folder with the packages that carry the data")
    parser.add_argument("--stream", choices=SOURCES, default="flights")
    parser.add_argument("--days", type=int, default=61, help="days before a month whose labelled rows there are")
    parser.add_argument("--every", type=int, default=1, help="take every so manieth month")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    stream = SOURCES[options.stream](options.packages)
    months = list(pairwise(stream.months()))[1 :: options.every]
    found = [_month(stream, *month, days=options.days) for month in months]
    means = {name: np.mean([losses[name] for losses in found]) for name in found[0]}
    print("mean", {name: f"{mean:.4f}" for name, mean in means.items()})


def _month(stream: Stream, begin: np.datetime64, end: np.datetime64, *, days: int) -> dict[str, float]:
    """Return the log-loss of the month by what was learned from."""
    history = np.arange(np.searchsorted(stream.times, stream.begins))
    original = history[: int(SHARES[0] * len(history))]
    recent = stream.between(begin - days * _DAY, begin)
    training, judged, _ = np.split(recent, [int(share * len(recent)) for share in SHARES])
    parts = Parts(_rows(stream, training), _rows(stream, original), share=_SHARE, limit=_LIMIT, seed=_SEED)
    with threadpool_limits(1):
        sets = all_sets(parts)
        choice = choose(sets, _rows(stream, judged), task=Task.CLASSIFICATION, linear=False, seed=_SEED)
    month = stream.between(begin, end)
    losses = {"frozen": _loss(fit(stream, original), stream, month)}
    losses |= {str(each.policy): _loss(_learned(each.rows), stream, month) for each in sets.values()}
    losses["chosen"] = losses[choice.policy]
    print(
        begin.astype("datetime64[M]"), {name: f"{loss:.4f}" for name, loss in losses.items()}, choice.words, flush=True
    )
    return losses


def _rows(stream: Stream, places: Places) -> Rows:
    frame = stream.rows.iloc[places]
    return Rows({str(name): frame[name].to_numpy()[:, None] for name in frame}, stream.labels[places], "")


def _frame(rows: Rows) -> pd.DataFrame:
    return pd.DataFrame({name: pd.Series(values[:, 0], dtype=values.dtype) for name, values in rows.inputs.items()})


def _learned(rows: Rows) -> Fitted:
    return fitted(_frame(rows), rows.answers)


def _loss(model: Fitted, stream: Stream, places: Places) -> float:
    return log_loss(model.probabilities(stream.rows.iloc[places]), stream.labels[places])


if __name__ == "__main__":
    main()
