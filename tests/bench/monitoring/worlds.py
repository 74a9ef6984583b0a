"""Real data as a world without end: windows drawn from rows that a real model has not seen, and changes made to them.

References are drawn from the same rows as windows, so that without a change there is nothing to find but chance.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import norm
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

LOADERS: Mapping[str, Callable[..., Any]] = {
    "breast_cancer": load_breast_cancer,
    "wine": load_wine,
    "digits": load_digits,
}
Change = Callable[[pd.DataFrame], pd.DataFrame]


@dataclass(frozen=True)
class World:
    """Rows that windows are drawn from, and the model that answers them."""

    name: str
    rows: pd.DataFrame
    model: Any
    labels: NDArray[np.int64]
    """What is true of the rows."""
    order: NDArray[np.int64]
    """Rows from one end of their main direction to the other, which makes neighbours alike."""

    @property
    def inputs(self) -> list[str]:
        """Columns of the inputs."""
        return list(map(str, self.rows.columns))

    @property
    def columns(self) -> list[str]:
        """All columns of a table: inputs and what the model answers."""
        return [*self.inputs, "prediction", "confidence"]

    def draw(
        self, rows: int, generator: np.random.Generator, *, rho: float = 0.0, change: Change | None = None
    ) -> pd.DataFrame:
        """Return rows as captured in the order of time; with `rho`, each resembles the one before."""
        chosen = self._places(rows, generator, rho)
        inputs = self.rows.iloc[chosen].reset_index(drop=True)
        inputs = change(inputs) if change else inputs
        scores = self.model.predict_proba(inputs)
        answers = {"prediction": self.model.classes_[scores.argmax(axis=1)], "confidence": scores.max(axis=1)}
        return inputs.assign(**answers)

    def shifted(self, deviations: float, share: float, generator: np.random.Generator) -> Change:
        """Return a change that moves a share of the columns by so many standard deviations."""
        varying = [str(name) for name in self.rows if self.rows[name].std() > 0]
        count = max(1, round(share * len(varying)))
        moved = generator.choice(varying, count, replace=False)
        by = deviations * self.rows[moved].std()
        return lambda inputs: inputs.assign(**{name: inputs[name] + by[name] for name in moved})

    def _places(self, rows: int, generator: np.random.Generator, rho: float) -> NDArray[np.int64]:
        if not rho:
            return generator.integers(0, len(self.rows), rows)
        noise = generator.standard_normal(rows)
        state = np.empty(rows)
        state[0] = noise[0]
        for step in range(1, rows):
            state[step] = rho * state[step - 1] + np.sqrt(1 - rho**2) * noise[step]
        return np.asarray(
            self.order[np.minimum((norm.cdf(state) * len(self.rows)).astype(np.int64), len(self.rows) - 1)]
        )


def world(name: str) -> World:
    """Return a world of one of scikit-learn's data sets; half of the rows have trained its model."""
    data = LOADERS[name](as_frame=True)
    inputs, rest, labels, known = train_test_split(
        data.data, data.target, test_size=0.5, random_state=0, stratify=data.target
    )
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000)).fit(inputs, labels)
    scaled = StandardScaler().fit_transform(rest)
    main = np.linalg.svd(scaled, full_matrices=False)[2][0]
    return World(name, rest.reset_index(drop=True), model, known.to_numpy(), np.argsort(scaled @ main))
