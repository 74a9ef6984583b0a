"""Real data under a shift: rows that a model has learnt, a reference of their kind, and live rows of another kind.

Live rows are divided: some may be asked about, and on the others it is seen what the answers were worth.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.base import clone
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OrdinalEncoder, StandardScaler

from examples.digits.traffic import HANDS, Hand
from tests.bench.streams import sources

Array = NDArray[Any]

LEARNT, REFERENCE, LIVE, TESTED = 1000, 1000, 3000, 3000
"""Most rows that the model has learnt, of the reference, that may be asked about, and that show what it was worth."""


@dataclass(frozen=True)
class Part:
    """Rows with their labels."""

    inputs: pd.DataFrame
    labels: Array

    def take(self, places: Array) -> "Part":
        """Return the rows at these places."""
        return Part(self.inputs.iloc[places].reset_index(drop=True), self.labels[places])

    def beside(self, other: "Part") -> "Part":
        """Return both, one after the other."""
        inputs = pd.concat([self.inputs, other.inputs], ignore_index=True)
        return Part(inputs, np.concatenate([self.labels, other.labels]))


@dataclass(frozen=True)
class Draw:
    """One draw of a world."""

    model: Any
    """Not fitted."""
    learnt: Part
    reference: Part
    live: Part
    tested: Part
    regression: bool = False

    def fitted(self, rows: Part) -> Any:
        """Return the model after it has learnt these rows."""
        return clone(self.model).fit(rows.inputs, rows.labels)


Build = Callable[[Path, int], Draw]


def _divided(
    model: Any,
    before: Part,
    after: Part,
    seed: int,
    *,
    regression: bool = False,
    tested: float = 0.5,
    known: float = 0.6,
) -> Draw:
    generator = np.random.default_rng(seed)
    old, new = generator.permutation(len(before.labels)), generator.permutation(len(after.labels))
    cut = min(LEARNT, int(known * len(old)))
    edge = min(LIVE, int((1 - tested) * len(new)))
    return Draw(
        model,
        before.take(old[:cut]),
        before.take(old[cut : cut + REFERENCE]),
        after.take(new[:edge]),
        after.take(new[edge : edge + TESTED]),
        regression,
    )


def _linear() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=3000))


def _boosting(*, regression: bool = False) -> Any:
    texts = make_column_selector(dtype_include=[object, "str"])
    encoder = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    kind = HistGradientBoostingRegressor if regression else HistGradientBoostingClassifier
    trees = kind(max_iter=60, max_leaf_nodes=15, random_state=0)
    return make_pipeline(make_column_transformer((encoder, texts), remainder="passthrough"), trees)


def _parted(frame: pd.DataFrame, labels: Array, model: Any, column: Array, seed: int, **how: Any) -> Draw:
    """Return a world whose model has learnt rows that are mostly low in a column, and whose live rows are not."""
    generator = np.random.default_rng(seed)
    height = (np.nan_to_num(column, nan=float(np.nanmean(column))) - np.nanmean(column)) / np.nanstd(column)
    low = generator.random(len(labels)) < 1 / (1 + np.exp(3 * height))
    part = Part(frame.reset_index(drop=True), labels)
    return _divided(model, part.take(np.flatnonzero(low)), part.take(np.flatnonzero(~low)), seed, **how)


def digits_hands(_: Path, seed: int) -> Draw:
    """Digits by another hand."""
    pixels, labels = datasets.load_digits(return_X_y=True)
    images, generator = (pixels / 16.0).reshape(-1, 1, 8, 8), np.random.default_rng(seed)
    order = generator.permutation(len(labels))
    far = HANDS["shifted"]
    other = Hand(far.slant * 0.6, far.unsteadiness * 0.6, far.stroke * 0.6, 0.04)

    def written(places: Array, hand: Hand) -> Part:
        rows = hand.write(images[places], generator).reshape(len(places), -1)
        return Part(pd.DataFrame(rows).add_prefix("p"), labels[places])

    old, new = written(order[:700], HANDS["usual"]), written(order[700:], other)
    return _divided(LogisticRegression(max_iter=3000), old, new, seed)


def digits_shapes(_: Path, seed: int) -> Draw:
    """Digits that are brighter at one place; a forest."""
    data = datasets.load_digits(as_frame=True)
    forest = RandomForestClassifier(60, random_state=0)
    return _parted(data.data, data.target.to_numpy(), forest, data.data["pixel_2_4"].to_numpy(), seed)


def breast_cancer(_: Path, seed: int) -> Draw:
    """Tumours of coarser texture."""
    data = datasets.load_breast_cancer(as_frame=True)
    return _parted(data.data, data.target.to_numpy(), _linear(), data.data["mean texture"].to_numpy(), seed)


def breast_cancer_bayes(_: Path, seed: int) -> Draw:
    """Larger tumours; an overconfident naive Bayes."""
    data = datasets.load_breast_cancer(as_frame=True)
    return _parted(data.data, data.target.to_numpy(), GaussianNB(), data.data["mean radius"].to_numpy(), seed)


@cache
def _theirs(packages: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(packages / "nannyml" / "datasets" / "data" / name)


def titanic(packages: Path, seed: int) -> Draw:
    """Passengers of lower classes."""
    table = _theirs(packages, "titanic_reference.csv")
    inputs = table[["Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked"]]
    inputs = inputs.assign(**{name: inputs[name].fillna("").astype(object) for name in ("Sex", "Embarked")})
    labels = table["Survived"].to_numpy(np.int64)
    return _parted(inputs, labels, _boosting(), inputs["Pclass"].to_numpy(np.float64), seed)


def _houses(packages: Path) -> tuple[pd.DataFrame, Array, Array]:
    first, later, known = (
        _theirs(packages, f"california_housing_{name}.csv") for name in ("reference", "analysis", "analysis_gt")
    )
    table = pd.concat([first, later.merge(known, on="id")], ignore_index=True)
    columns = ["MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup"]
    return table[columns], table["clf_target"].to_numpy(np.int64), table["Latitude"].to_numpy()


def houses_north(packages: Path, seed: int) -> Draw:
    """Districts of the north, from a model of the south that does not see where they are."""
    inputs, labels, north = _houses(packages)
    part = Part(inputs, labels)
    south, rest = np.flatnonzero(north < 35.0), np.flatnonzero(north >= 37.0)
    return _divided(_linear(), part.take(south), part.take(rest), seed)


def houses_rich(packages: Path, seed: int) -> Draw:
    """Richer districts; boosted trees."""
    inputs, labels, _ = _houses(packages)
    return _parted(inputs, labels, _boosting(), inputs["MedInc"].to_numpy(), seed)


@cache
def _stream(packages: Path, name: str) -> sources.Stream:
    return sources.SOURCES[name](packages)


def flights_summer(packages: Path, seed: int) -> Draw:
    """Flights of June, from a model of January and February: is one late?"""
    stream = _stream(packages, "flights")
    part = Part(stream.rows, stream.labels)
    before = np.flatnonzero(stream.times < np.datetime64("2013-03-01"))
    june = stream.between(np.datetime64("2013-06-01", "s"), np.datetime64("2013-07-01", "s"))
    return _divided(_boosting(), part.take(before), part.take(june), seed)


def census_old(packages: Path, seed: int) -> Draw:
    """People over 50, from a model of the young: is one employed?"""
    stream = _stream(packages, "census")
    part, age = Part(stream.rows, stream.labels), stream.rows["AGEP"].to_numpy()
    return _divided(_boosting(), part.take(np.flatnonzero(age < 40)), part.take(np.flatnonzero(age >= 30)), seed)


def diabetes(_: Path, seed: int) -> Draw:
    """Heavier patients: how far has the disease gone a year later? A regression."""
    data = datasets.load_diabetes(as_frame=True)
    model = make_pipeline(StandardScaler(), Ridge())
    return _parted(data.data, data.target.to_numpy(), model, data.data["bmi"].to_numpy(), seed, regression=True)


def tumour_sizes(_: Path, seed: int) -> Draw:
    """The area of larger tumours, from their texture and shape; a regression by trees."""
    data = datasets.load_breast_cancer(as_frame=True).data
    wanted = data["mean area"].to_numpy()
    inputs = data[[name for name in data if "area" not in name and "perimeter" not in name]]
    inputs = inputs.drop(columns=["mean radius", "worst radius"])
    concave = data["worst concave points"].to_numpy()
    return _parted(inputs, np.log(wanted), _boosting(regression=True), concave, seed, regression=True)


TUNED: Mapping[str, Build] = {
    "digits by another hand": digits_hands,
    "breast cancer, texture": breast_cancer,
    "titanic": titanic,
    "houses, north": houses_north,
    "diabetes": diabetes,
}
"""Worlds that constants were chosen on."""
REPORTED: Mapping[str, Build] = {
    "digits by shape": digits_shapes,
    "breast cancer, size": breast_cancer_bayes,
    "houses, rich": houses_rich,
    "flights of June": flights_summer,
    "census, over 30": census_old,
    "tumour sizes": tumour_sizes,
}
"""Worlds that nothing was chosen on."""


def draws(packages: Path, build: Build, count: int) -> Iterator[Draw]:
    """Yield draws of a world, always the same ones."""
    for seed in range(count):
        yield build(packages, seed)
