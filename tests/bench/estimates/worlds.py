"""Real data whose inputs shift: a model that has learnt one part, a reference, and windows of other kinds of rows.

Labels of all windows are known here, and nothing that estimates is told them. Shifts are those of the world itself
(months, airports, years, hands that write) or draws that prefer rows of one kind. Some are of the meaning of inputs
too, which no estimate can see: the bench says what they cost.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from sklearn import datasets
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from examples.digits.traffic import HANDS, Hand
from tests.bench.streams import sources

Array = NDArray[Any]
Places = NDArray[np.int64]

WINDOW = 600
"""Rows of a window."""
REFERENCE = 2000
"""Most rows of a reference."""
REFERENCES = 4
"""References of a world."""
TILTS = (0.0, 0.5, -0.5, 1.0, -1.0, 2.0, -2.0)
"""By how many log-odds a row one standard deviation higher is drawn more often."""


@dataclass(frozen=True)
class Sample:
    """Rows with what is known of them."""

    inputs: pd.DataFrame
    probabilities: NDArray[np.float64]
    """(N, C)"""
    labels: Places
    """(N,): number of the class."""


@dataclass(frozen=True)
class Case:
    """A window beside a reference."""

    name: str
    reference: Sample
    window: Sample


@dataclass(frozen=True)
class World:
    """Cases of one kind of shift. Several references share them, so that the luck of one draw is not the world's."""

    name: str
    cases: tuple[Case, ...]


@dataclass(frozen=True)
class Answering:
    """A model beside the rows that it has not learnt."""

    model: Any
    inputs: pd.DataFrame
    labels: Places

    def take(self, places: Places) -> Sample:
        """Return the rows at these places, and the model's answers."""
        inputs = self.inputs.iloc[places].reset_index(drop=True)
        return Sample(inputs, np.asarray(self.model.predict_proba(inputs)), self.labels[places])


def tilted(name: str, answering: Answering, columns: Mapping[str, Array]) -> World:
    """Return a world whose windows prefer rows that are high, or low, in a column (N,); no row is in one twice."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(REFERENCES):
        order = generator.permutation(len(answering.labels))
        known, pool = np.split(order, [min(REFERENCE, len(order) // 2)])
        reference, rows = answering.take(known), min(WINDOW, len(pool) // 2)
        for column, values in columns.items():
            height = (values - np.nanmean(values)) / max(float(np.nanstd(values)), 1e-9)
            for tilt in TILTS:
                chances = np.exp(tilt * np.clip(np.nan_to_num(height)[pool], -3, 3))
                chosen = generator.choice(pool, rows, replace=False, p=chances / chances.sum())
                found.append(Case(f"{column} {tilt:+g}", reference, answering.take(chosen)))
    return World(name, tuple(found))


def _fitted(model: Any, inputs: pd.DataFrame, labels: Places, *, share: float = 0.4) -> Answering:
    """Return a model that has learnt a share of the rows, beside the others."""
    order = np.random.default_rng(1).permutation(len(labels))
    learnt, rest = np.split(order, [int(share * len(labels))])
    model.fit(inputs.iloc[learnt], labels[learnt])
    return Answering(model, inputs.iloc[rest].reset_index(drop=True), labels[rest])


def _boosting() -> Any:
    texts = make_column_selector(dtype_include=[object, "str"])
    encoder = OneHotEncoder(handle_unknown="ignore", sparse_output=False, max_categories=30)
    columns = make_column_transformer((encoder, texts), remainder="passthrough")
    return make_pipeline(columns, HistGradientBoostingClassifier(max_iter=60, max_leaf_nodes=15, random_state=0))


def _linear() -> Any:
    return make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(max_iter=2000))


def _main_direction(inputs: pd.DataFrame) -> Array:
    scaled = StandardScaler().fit_transform(inputs)
    return np.asarray(scaled @ np.linalg.svd(scaled, full_matrices=False)[2][0])


def _scikit(name: str, load: Callable[..., Any], model: Any, columns: tuple[str, ...]) -> World:
    data = load(as_frame=True)
    labels = np.asarray(data.target)
    codes = (labels > np.median(labels)).astype(np.int64) if len(set(labels)) > 20 else labels.astype(np.int64)
    answering = _fitted(model, data.data, codes)
    by = {column: answering.inputs[column].to_numpy(np.float64) for column in columns}
    return tilted(name, answering, {"main direction": _main_direction(answering.inputs)} | by)


def breast_cancer(_: Path) -> World:
    """Tumours, some kinds of cells more often; an overconfident naive Bayes."""
    return _scikit("breast cancer", datasets.load_breast_cancer, GaussianNB(), ("mean texture",))


def wine(_: Path) -> World:
    """Wines: a reference of 53 rows."""
    return _scikit("wine", datasets.load_wine, _linear(), ("alcohol",))


def iris(_: Path) -> World:
    """Irises: a reference of 45 rows."""
    return _scikit("iris", datasets.load_iris, _linear(), ("sepal width (cm)",))


def diabetes(_: Path) -> World:
    """Patients of other ages and weights: is the disease beyond the median a year later?"""
    return _scikit("diabetes", datasets.load_diabetes, _linear(), ("age", "bmi"))


def digits_kinds(_: Path) -> World:
    """Digits of some shapes more often; a forest that is unsure where it is right."""
    return _scikit("digits by shape", datasets.load_digits, RandomForestClassifier(60, random_state=0), ("pixel_2_4",))


def digits_hands(_: Path) -> World:
    """Digits by other hands: the example's shifted one, part of the way to it, and all that is between."""
    pixels, labels = datasets.load_digits(return_X_y=True)
    images = (pixels / 16.0).reshape(-1, 1, 8, 8)
    generator = np.random.default_rng(0)

    def written(places: Places, hand: Hand) -> pd.DataFrame:
        return pd.DataFrame(hand.write(images[places], generator).reshape(len(places), -1)).add_prefix("p")

    learnt, rest = np.split(generator.permutation(len(labels)), [700])
    model = LogisticRegression(max_iter=2000).fit(written(learnt, HANDS["usual"]), labels[learnt])
    found = []
    for _turn in range(REFERENCES):
        known, pool = np.split(generator.permutation(rest), [550])
        answers = written(known, HANDS["usual"])
        reference = Sample(answers, model.predict_proba(answers), labels[known])
        for part, share in product((0.0, 0.15, 0.3, 0.5, 0.75, 1.0), (0.3, 1.0)):
            chosen = generator.choice(pool, len(pool) // 2, replace=False)
            cut = int(share * len(chosen))
            pieces = [(chosen[:cut], _towards(part)), (chosen[cut:], HANDS["usual"])]
            inputs = pd.concat([written(*piece) for piece in pieces if len(piece[0])], ignore_index=True)
            window = Sample(inputs, model.predict_proba(inputs), labels[chosen])
            found.append(Case(f"{part:.0%} of the way, {share:.0%} of rows", reference, window))
    return World("digits by hands", tuple(found))


def _towards(part: float) -> Hand:
    """Return a hand a part (0..1) of the way to the example's shifted one."""
    far = HANDS["shifted"]
    return Hand(far.slant * part, far.unsteadiness * part, far.stroke * part, 0.03 + 0.02 * part)


def _theirs(packages: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(packages / "nannyml" / "datasets" / "data" / name)


def titanic(packages: Path) -> World:
    """Passengers of other classes, ages and fares."""
    table = _theirs(packages, "titanic_reference.csv")
    inputs = table[["Pclass", "Sex", "Age", "SibSp", "Parch", "Fare", "Embarked"]]
    inputs = inputs.assign(**{name: inputs[name].fillna("").astype(object) for name in ("Sex", "Embarked")})
    answering = _fitted(_boosting(), inputs, table["Survived"].to_numpy(np.int64))
    by = {name: answering.inputs[name].to_numpy(np.float64) for name in ("Pclass", "Age")}
    return tilted("titanic", answering, by)


def _houses(packages: Path) -> tuple[pd.DataFrame, Places]:
    first, later, known = (
        _theirs(packages, f"california_housing_{name}.csv") for name in ("reference", "analysis", "analysis_gt")
    )
    table = pd.concat([first, later.merge(known, on="id")], ignore_index=True)
    columns = ["MedInc", "HouseAge", "AveRooms", "AveBedrms", "Population", "AveOccup", "Latitude", "Longitude"]
    return table[columns], table["clf_target"].to_numpy(np.int64)


def houses_kinds(packages: Path) -> World:
    """Californian districts, older or richer ones more often."""
    answering = _fitted(_boosting(), *_houses(packages))
    by = {name: answering.inputs[name].to_numpy(np.float64) for name in ("MedInc", "HouseAge")}
    return tilted("houses by kind", answering, by)


def houses_places(packages: Path) -> World:
    """Californian districts ever farther north, from a model of the south that does not see where they are."""
    inputs, labels = _houses(packages)
    north = inputs["Latitude"].to_numpy()
    hidden = inputs.drop(columns=["Latitude", "Longitude"])
    south = np.flatnonzero(north < 35.0)
    answering = _fitted(_linear(), hidden.iloc[south], labels[south], share=0.5)
    everywhere = Answering(answering.model, hidden, labels)
    generator = np.random.default_rng(0)
    found = []
    for _ in range(REFERENCES):
        reference = answering.take(generator.permutation(len(answering.labels))[:REFERENCE])
        for low in (35.0, 36.0, 37.0, 37.5, 38.0, 38.5, 39.0):
            pool = np.flatnonzero((north >= low) & (north < low + 1.0))
            window = everywhere.take(generator.choice(pool, min(WINDOW, len(pool)), replace=False))
            found.append(Case(f"latitude {low:g}", reference, window))
    return World("houses by place", tuple(found))


@dataclass(frozen=True)
class Dated:
    """A stream with its model of the older history."""

    stream: sources.Stream
    answering: Answering
    newer: Places
    """The history that the model has not learnt."""
    live: Places

    @classmethod
    def of(cls, packages: Path, name: str) -> "Dated":
        """Return a stream by its name, and fit its model."""
        stream = sources.SOURCES[name](packages)
        history = int(np.searchsorted(stream.times, stream.begins))
        learnt, newer = np.split(np.arange(history), [int(0.6 * history)])
        model = _boosting().fit(stream.rows.iloc[learnt], stream.labels[learnt])
        return cls(stream, Answering(model, stream.rows, stream.labels), newer, np.arange(history, len(stream)))

    def divided(self, generator: np.random.Generator) -> tuple[Sample, Places]:
        """Return a reference, and the other rows of its time."""
        known, rest = np.split(generator.permutation(self.newer), [REFERENCE])
        return self.answering.take(np.sort(known)), rest


def _dated(name: str, dated: Dated, keys: Array) -> World:
    """Return a world whose windows are live rows with one value of a key (N,) each."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(REFERENCES):
        reference, _ = dated.divided(generator)
        for value in np.unique(keys):
            chosen = np.sort(generator.choice(dated.live[keys == value], WINDOW, replace=False))
            found.append(Case(str(value), reference, dated.answering.take(chosen)))
    return World(name, tuple(found))


def flights_months(packages: Path) -> World:
    """Flights by month, from a model of January and February: is one late?"""
    dated = Dated.of(packages, "flights")
    return _dated("flights by month", dated, dated.stream.times[dated.live].astype("datetime64[M]"))


def census_years(packages: Path) -> World:
    """People asked in other years; of the first, its second half."""
    dated = Dated.of(packages, "census")
    return _dated("census by year", dated, dated.stream.times[dated.live].astype("datetime64[Y]"))


def _of_kinds(name: str, dated: Dated, kinds: Mapping[str, Callable[[pd.DataFrame], Any]]) -> World:
    """Return a world of the time of the reference, in whose windows rows of one kind come more often."""
    generator = np.random.default_rng(0)
    found = []
    for _ in range(REFERENCES):
        reference, rest = dated.divided(generator)
        rows = dated.answering.inputs.iloc[rest]
        for kind, choose in kinds.items():
            chosen = rest[np.asarray(choose(rows))]
            for share in (0.0, 0.5, 1.0):
                cut = min(int(share * WINDOW), len(chosen))
                both = [
                    generator.choice(pool, size, replace=False) for pool, size in ((chosen, cut), (rest, WINDOW - cut))
                ]
                found.append(Case(f"{kind} {share:.0%}", reference, dated.answering.take(np.concatenate(both))))
    return World(name, tuple(found))


def flights_airports(packages: Path) -> World:
    """Flights of one airport, carrier or time of day more often."""
    kinds: dict[str, Callable[[pd.DataFrame], Any]] = {
        "JFK": lambda rows: rows["origin"] == "JFK",
        "United": lambda rows: rows["carrier"] == "UA",
        "evening": lambda rows: rows["minutes"] > 1080,
        "wind": lambda rows: rows["wind_speed"] > 15,
    }
    return _of_kinds("flights by kind", Dated.of(packages, "flights"), kinds)


def census_people(packages: Path) -> World:
    """People of other ages, abilities and origins."""
    kinds: dict[str, Callable[[pd.DataFrame], Any]] = {
        "over 60": lambda rows: rows["AGEP"] > 60,
        "under 30": lambda rows: rows["AGEP"] < 30,
        "disabled": lambda rows: rows["DIS"] == 1,
        "born abroad": lambda rows: rows["NATIVITY"] == 2,
    }
    return _of_kinds("census by kind", Dated.of(packages, "census"), kinds)


def car_loans(packages: Path) -> World:
    """NannyML's own example of loans, whose rows are made up: the shift for which its method is shown."""
    first, later, known = (
        _theirs(packages, f"synthetic_car_loan_{name}.csv") for name in ("reference", "analysis", "analysis_target")
    )
    later = later.merge(known, on="id") if "id" in known else later.assign(repaid=known["repaid"])
    columns = ["car_value", "salary_range", "debt_to_income_ratio", "loan_length", "repaid_loan_on_prev_car",
               "size_of_downpayment", "driver_tenure"]  # fmt: skip

    def sample(table: pd.DataFrame) -> Sample:
        positive = table["y_pred_proba"].to_numpy(np.float64)
        answers = np.stack([1 - positive, positive], axis=1)
        return Sample(table[columns].reset_index(drop=True), answers, table["repaid"].to_numpy(np.int64))

    found = []
    for draw in range(REFERENCES):
        reference = sample(first.sample(REFERENCE, random_state=draw))
        starts = range(400 * draw, len(later) - WINDOW, 4000)
        found += [Case(f"row {start}", reference, sample(later[start : start + WINDOW])) for start in starts]
    return World("car loans", tuple(found))


TUNED: Mapping[str, Callable[[Path], World]] = {
    "breast cancer": breast_cancer,
    "digits by shape": digits_kinds,
    "titanic": titanic,
    "houses by kind": houses_kinds,
    "flights by kind": flights_airports,
}
"""Worlds that constants were chosen on."""
REPORTED: Mapping[str, Callable[[Path], World]] = {
    "digits by hands": digits_hands,
    "wine": wine,
    "iris": iris,
    "diabetes": diabetes,
    "houses by place": houses_places,
    "flights by month": flights_months,
    "census by year": census_years,
    "census by kind": census_people,
    "car loans": car_loans,
}
"""Worlds that nothing was chosen on."""


def worlds(packages: Path, chosen: Mapping[str, Callable[[Path], World]]) -> Iterator[World]:
    """Yield worlds one by one."""
    for build in chosen.values():
        yield build(packages)
