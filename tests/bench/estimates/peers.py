"""Other ways to estimate accuracy without labels, on the same windows: confidence alone, and NannyML's own CBPE.

NannyML needs libraries that ours do not bear beside them, so it runs in an environment of its own: it gets files, and
gives numbers back. This file stands alone for that, and is run there as a script.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

_QUIET = {"NML_DISABLE_USAGE_LOGGING": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Its library would tell its maker that it was used."""
TRUE, ANSWERED, SCORE = "true", "answered", "score"


def confidence_only(probabilities: Any) -> float:
    """Return the mean of the largest probability (N, C) of each row."""
    return float(np.asarray(probabilities).max(axis=1).mean())


def table(probabilities: Any, labels: Any) -> pd.DataFrame:
    """Return answers (N, C) and classes (N,) as NannyML reads them."""
    shares = np.asarray(probabilities, dtype=np.float64)
    scores = {f"{SCORE}{place}": shares[:, place] for place in range(shares.shape[1])}
    return pd.DataFrame({TRUE: labels, ANSWERED: shares.argmax(axis=1), **scores})


def estimates(python: Path, folder: Path) -> list[tuple[float, float, float]]:
    """Return CBPE's accuracy with both ends of what it calls its confidence for each pair of files in a folder.

    Args:
        python: The interpreter of an environment with NannyML.
        folder: Folder with `N.reference.parquet` and `N.window.parquet`, N from 0.
    """
    done = subprocess.run([python, __file__, folder], check=True, capture_output=True, text=True, env=_QUIET)
    return [tuple(entry) for entry in json.loads(done.stdout.splitlines()[-1])]


def main(arguments: Sequence[str]) -> None:
    """Estimate every window of a folder, in NannyML's environment."""
    folder = Path(arguments[0])
    count = len(list(folder.glob("*.window.parquet")))
    print(json.dumps([_estimated(folder, number) for number in range(count)]))


def _estimated(folder: Path, number: int) -> list[float]:
    import nannyml

    reference, window = (pd.read_parquet(folder / f"{number}.{part}.parquet") for part in ("reference", "window"))
    scores = [name for name in reference if str(name).startswith(SCORE)]
    two = len(scores) == 2
    estimator = nannyml.CBPE(
        y_pred_proba=f"{SCORE}1" if two else dict(enumerate(scores)),
        y_pred=ANSWERED,
        y_true=TRUE,
        problem_type="classification_binary" if two else "classification_multiclass",
        metrics=["accuracy"],
        chunk_size=len(window),
    )
    estimator.fit(reference)
    found = estimator.estimate(window.drop(columns=TRUE)).filter(period="analysis").to_df()["accuracy"].iloc[0]
    ends = found["lower_confidence_boundary"], found["upper_confidence_boundary"]
    return [float(found["value"]), *map(float, ends)]


if __name__ == "__main__":
    main(sys.argv[1:])
