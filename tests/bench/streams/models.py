"""The model of a stream: a scikit-learn pipeline that is fitted in a second, delivered as a user would deliver it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from threadpoolctl import threadpool_limits

from tests.bench.streams.sources import Stream

Floats = NDArray[np.float64]
Places = NDArray[np.int64]

SHARES = (0.6, 0.8)
"""Where the history is divided in the order of time: training, validation, test."""
JUDGED_ROWS = 5000
"""Most rows of validation and test, drawn at random: enough to judge by, and quickly compared with every window."""
MODEL = "model.skops"


@dataclass(frozen=True)
class Fitted:
    """An estimator that was fitted on a span of a stream."""

    estimator: Any

    def probabilities(self, rows: pd.DataFrame) -> Floats:
        """Return the probability (N,) of label 1."""
        with threadpool_limits(1):
            return np.asarray(self.estimator.predict_proba(rows)[:, 1], dtype=np.float64)


def fit(stream: Stream, places: Places) -> Fitted:
    """Return the stream's model, fitted on these rows."""
    return fitted(stream.rows.iloc[places], stream.labels[places])


def fitted(rows: pd.DataFrame, labels: NDArray[np.int64]) -> Fitted:
    """Return the same model, fitted on rows (N, D) with their labels (N,)."""
    texts = [name for name in rows if rows[name].dtype == object]
    numbers = [name for name in rows if name not in texts]
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    columns = ColumnTransformer([("texts", encoder, texts), ("numbers", "passthrough", numbers)])
    boosting = HistGradientBoostingClassifier(
        max_iter=60, max_leaf_nodes=15, min_samples_leaf=50, l2_regularization=1.0, random_state=0
    )
    with threadpool_limits(1):
        return Fitted(make_pipeline(columns, boosting).fit(rows, labels))


def deliver(stream: Stream, folder: Path) -> Fitted:
    """Fit the model on the older part of the history, and write it and the history's three data sets."""
    import skops.io

    history = np.arange(np.searchsorted(stream.times, stream.begins))
    cuts = [int(share * len(history)) for share in SHARES]
    splits = dict(zip(("training", "validation", "test"), np.split(history, cuts), strict=True))
    folder.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for name, part in splits.items():
        places = part if name == "training" else np.sort(generator.permutation(part)[:JUDGED_ROWS])
        table = stream.rows.iloc[places].assign(label=stream.labels[places])
        table.to_parquet(folder / f"{name}.parquet", index=False)
    model = fit(stream, splits["training"])
    skops.io.dump(model.estimator, folder / MODEL)
    return model
