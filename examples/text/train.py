"""Train a text classifier on real texts, and write what the manifest names: `python -m examples.text.train OUT`.

The texts are paragraphs of the documentation that NumPy, SciPy and scikit-learn carry inside, all under the BSD licence
with three clauses. The class of a paragraph is its library, whose names are left out. So nothing is downloaded.
"""

import csv
import importlib
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import joblib
import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

SEED = 7
MODULES = (
    *(f"numpy.{name}" for name in ("fft", "linalg", "ma", "polynomial", "random", "strings")),
    *(f"scipy.{name}" for name in ("interpolate", "linalg", "ndimage", "optimize", "signal", "sparse", "stats")),
    *(f"sklearn.{name}" for name in ("ensemble", "linear_model", "metrics", "model_selection", "preprocessing")),
)
SPLITS = {"training": 0.5, "validation": 0.2, "test": 0.3}
_NAMES = re.compile(r"\b(numpy|np|scipy|scikit-learn|sklearn)\b\.?", re.IGNORECASE)


def paragraphs(module: str) -> Iterator[str]:
    """Yield the paragraphs of prose in the documentation of a module's public parts."""
    for _, part in inspect.getmembers(importlib.import_module(module), callable):
        for paragraph in re.split(r"\n\s*\n", inspect.getdoc(part) or ""):
            text = " ".join(_NAMES.sub(" ", paragraph).split())
            if 8 <= len(text.split()) <= 80 and ">>>" not in text:
                yield text


def texts() -> list[tuple[str, str]]:
    """Return each paragraph once, with its library, in a random order that is always the same."""
    known = {text: module.split(".")[0] for module in MODULES for text in paragraphs(module)}
    rows = sorted(known.items())
    return [rows[place] for place in np.random.default_rng(SEED).permutation(len(rows))]


def main(folder: Path) -> None:
    """Write model.joblib, training.csv, validation.csv and test.csv into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = texts()
    ends = np.cumsum([0, *(round(share * len(rows)) for share in SPLITS.values())])
    for place, name in enumerate(SPLITS):
        with (folder / f"{name}.csv").open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows[ends[place] : ends[place + 1]]])
    known, classes = zip(*rows[: ends[1]], strict=True)
    model = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000)).fit(known, classes)
    joblib.dump(model, folder / "model.joblib")
    print(f"{len(known)} paragraphs of {len(set(classes))} libraries: {folder / 'model.joblib'}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "out/text"))
