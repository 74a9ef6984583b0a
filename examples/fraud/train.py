"""Train boosted trees on imbalanced transactions for the manifest here: `python -m examples.fraud.train OUT`.

No real fraud data may be passed on freely, so scikit-learn makes the transactions up: one in fifty is fraud, in small
groups among the honest ones, and some labels are wrong.
"""

import sys
from pathlib import Path

import numpy as np
import xgboost
from sklearn.datasets import make_classification

SEED = 7
SPLITS = {"training": 12_000, "validation": 8_000, "test": 20_000}
"""Rows of each set. A rare class needs many: the test set has about four hundred frauds."""


def main(folder: Path) -> None:
    """Write model.ubj, training.npz, validation.npz and test.npz into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    X, y = make_classification(
        n_samples=sum(SPLITS.values()),
        n_features=24,
        n_informative=10,
        n_clusters_per_class=4,
        weights=[0.98],
        flip_y=0.002,
        class_sep=1.6,
        random_state=SEED,
    )
    start = 0
    for name, count in SPLITS.items():
        rows = slice(start, start + count)
        np.savez(folder / f"{name}.npz", x=X[rows].astype(np.float32), label=y[rows].astype(np.int64))
        start += count
    training = np.load(folder / "training.npz")
    model = xgboost.XGBClassifier(n_estimators=300, max_depth=6, learning_rate=0.1, n_jobs=1, random_state=SEED)
    model.fit(training["x"], training["label"]).save_model(folder / "model.ubj")
    print(f"{SPLITS['training']} transactions, {training['label'].mean():.1%} fraud: {folder / 'model.ubj'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/fraud"))
