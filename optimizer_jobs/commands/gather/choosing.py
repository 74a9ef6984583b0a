"""Which way to make the training set is taken: the one whose quick learner is best on newer rows.

Sets are compared that are made of the older rows alone, by newer ones of which no policy sees even the inputs. The
test rows, which decide promotion, are newer still and are not looked at here.

The choice is made once, before the search, and not by its trials. A trial costs a training, and a small search has two:
policies as a parameter would eat them up, and would be compared across other hyperparameters. Which rows teach best is
mostly a matter of the rows, so a learner that takes seconds can tell (C. Coleman et al., ICLR 2020, choose data by a
small proxy of the model): boosted trees, or a linear model where a linear model is delivered. What it cannot tell is
left as it was: a policy takes the place of the usual one only where it gains more than the standard error of the gain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.commands.gather.policies import Policy, TrainingSet, evenly
from optimizer_jobs.commands.gather.tables import Tables
from optimizer_jobs.data.datasets import Array, Rows
from optimizer_jobs.errors import printable
from retune.api.model import Task

Floats = NDArray[np.float64]

USUAL = Policy.MIXED
"""The policy that others have to beat."""
FEWEST_JUDGED = 30
"""Newer rows from which a choice is made."""
_MOST_ROWS, _LEAST_ROWS = 20_000, 200
"""Rows of a training set that a quick learner learns from, spread evenly over all; with fewer, none is trained."""
_MOST_WORK = 10_000_000
"""Rows times columns times classes that a quick learner may take: some seconds of one core."""
_TREES, _LEAVES = 60, 15
_LEAST_PROBABILITY, _TWO = 1e-6, 2
_ERROR = {Task.CLASSIFICATION: "log-loss", Task.REGRESSION: "squared error, as a share of the labels' variance,"}


@dataclass(frozen=True)
class Choice:
    """The policy that is taken."""

    policy: Policy
    words: str
    """Why, as a clause without a full stop."""


def choose(sets: Mapping[Policy, TrainingSet], judged: Rows, *, task: Task, linear: bool, seed: int) -> Choice:
    """Return which of the training sets is taken.

    Args:
        sets: The training set of every policy that is possible, the usual one first.
        judged: Rows that are newer than every row of any of these sets.
        task: What the model does.
        linear: Whether a linear model is delivered.
        seed: Seed of everything random.
    """
    usual = next(iter(sets))
    if len(sets) == 1:
        return Choice(usual, f"{usual}, because there is nothing else to learn from")
    reason = _incomparable(sets, judged, task)
    tables = None if reason else Tables.of(sets[usual].rows)
    if tables is None:
        return Choice(usual, f"{usual}, as usual: {reason or 'rows are too wide for a quick comparison'}")
    rows = min(_MOST_ROWS, _MOST_WORK // (tables.width * _classes(sets[usual].rows, task)))
    if rows < _LEAST_ROWS:
        return Choice(usual, f"{usual}, as usual: rows are too wide for a quick comparison")
    learner = _Learner(tables, task, linear=linear, seed=seed)
    try:
        lost = {policy: learner.losses(evenly(each.rows, rows), judged) for policy, each in sets.items()}
    except (ValueError, MemoryError, np.linalg.LinAlgError) as error:
        return Choice(usual, f"{usual}, as usual: {printable(str(error), limit=100).rstrip('.')}")
    return Choice(_best(lost), _words(lost, task, rows=len(judged), linear=linear))


def _incomparable(sets: Mapping[Policy, TrainingSet], judged: Rows, task: Task) -> str | None:
    """Return why training sets cannot be compared, in words, or None."""
    if task not in _ERROR or judged.answers.ndim > 1:
        return "no quick learner is there for such labels"
    if len(judged) < FEWEST_JUDGED:
        return f"{len(judged)} newer rows are too few to tell"
    if task is Task.CLASSIFICATION and any(_classes(each.rows, task) < _TWO for each in sets.values()):
        return "a training set has rows of one class only"
    return None


def _classes(rows: Rows, task: Task) -> int:
    return len(np.unique(rows.answers)) if task is Task.CLASSIFICATION else 1


def _best(lost: Mapping[Policy, Floats]) -> Policy:
    """Return the policy that loses least; the usual one unless the gain over it is more than its standard error."""
    usual = next(iter(lost))
    best = min(lost, key=lambda policy: float(lost[policy].mean()))
    gains = lost[usual] - lost[best]
    return best if float(gains.mean()) > float(gains.std()) / np.sqrt(len(gains)) else usual


def _words(lost: Mapping[Policy, Floats], task: Task, *, rows: int, linear: bool) -> str:
    """Return the choice in words, such as `Mixed: log-loss 0.41 (RecentOnly 0.43) on ...`."""
    chosen = _best(lost)
    means = {policy: f"{losses.mean():.4f}" for policy, losses in lost.items()}
    others = ", ".join(f"{policy} {mean}" for policy, mean in means.items() if policy != chosen)
    least = min(means, key=lambda policy: float(lost[policy].mean()))
    within = "" if least == chosen else f"; {least} gains no more than chance would"
    learner = "a linear model" if linear else "boosted trees"
    return f"{chosen}: {_ERROR[task]} {means[chosen]} of {learner} on {rows} newer rows ({others}{within})"


@dataclass(frozen=True)
class _Learner:
    """A learner that takes seconds."""

    tables: Tables
    task: Task
    linear: bool
    seed: int

    def losses(self, rows: Rows, judged: Rows) -> Floats:
        """Return the loss (N,) of each judged row by what was learned from some rows."""
        model = self._model().fit(self.tables.table(rows), rows.answers)
        table = self.tables.table(judged)
        if self.task is Task.REGRESSION:
            variance = max(float(judged.answers.var()), _LEAST_PROBABILITY)
            return np.asarray((model.predict(table) - judged.answers) ** 2 / variance)
        return _log_losses(model.predict_proba(table), model.classes_, judged.answers)

    def _model(self) -> Any:
        from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

        if self.linear:
            return self._linear_model()
        kind = HistGradientBoostingRegressor if self.task is Task.REGRESSION else HistGradientBoostingClassifier
        return kind(
            max_iter=_TREES,
            max_leaf_nodes=_LEAVES,
            l2_regularization=1.0,
            early_stopping=False,
            categorical_features=self.tables.is_category,
            random_state=self.seed,
        )

    def _linear_model(self) -> Any:
        from sklearn.compose import ColumnTransformer
        from sklearn.impute import SimpleImputer
        from sklearn.linear_model import LogisticRegression, Ridge
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import OneHotEncoder, StandardScaler

        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        texts = OneHotEncoder(handle_unknown="ignore")
        is_text = self.tables.is_category
        columns = [("texts", texts, np.flatnonzero(is_text)), ("numbers", numbers, np.flatnonzero(~is_text))]
        last = Ridge() if self.task is Task.REGRESSION else LogisticRegression(max_iter=200)
        return make_pipeline(ColumnTransformer(columns), last)


def _log_losses(probabilities: Array, classes: Sequence[Any], labels: Array) -> Floats:
    """Return the log-loss (N,) of each row; a class that was not learned has the least probability."""
    columns = {str(name): column for column, name in enumerate(classes)}
    chosen = np.asarray([columns.get(str(label), -1) for label in labels])
    given = np.where(chosen >= 0, probabilities[np.arange(len(chosen)), chosen], 0.0)
    return np.asarray(-np.log(np.maximum(given, _LEAST_PROBABILITY)))
