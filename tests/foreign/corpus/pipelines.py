"""Pipelines on tables as businesses have them: text, unseen categories, empty cells, times, prices, labels as words."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import (
    FunctionTransformer,
    KBinsDiscretizer,
    OneHotEncoder,
    OrdinalEncoder,
    StandardScaler,
    TargetEncoder,
)

from tests.foreign.corpus.fitted import deliver
from tests.foreign.delivered import Array, Columns, Delivered, Foreign

Data = Callable[[], tuple[Columns, Array]]
_KINDS = {
    "toys": ["plush", "bear", "puzzle", "game", "kids", "doll"],
    "garden": ["hose", "seeds", "pot", "shovel", "lawn", "plant"],
    "office": ["paper", "pen", "stapler", "desk", "printer", "ink"],
}
_COMMON = ["new", "sale", "great", "quality", "pack", "set", "color", "size", "best"]


def _shop() -> tuple[Columns, Array]:
    """Return articles of a shop: brand, title, price with holes and weight, and what kind of article each is."""
    random, count = np.random.default_rng(7), 4500
    kind = random.choice(list(_KINDS), count, p=[0.5, 0.3, 0.2])
    own = np.char.add(kind, random.integers(0, 9, count).astype(str))
    brand = np.where(random.random(count) < 0.6, own, random.choice(["acme", "zeta", "nova"], count))
    brand[-300:] = random.choice(["unseen a", "unseen b"], 300)
    titles = [_title(random, name) for name in kind]
    price = np.exp(random.normal(3, 0.8, count)) * np.where(kind == "office", 0.6, 1)
    price[random.random(count) < 0.08] = np.nan
    weight = random.gamma(2, 2, count) * np.where(kind == "garden", 1.5, 1)
    columns = {"brand": brand.astype(object), "title": np.array(titles, object), "price": price, "weight": weight}
    return columns, kind


def _title(random: np.random.Generator, kind: str) -> str:
    words = _KINDS[kind] if random.random() < 0.7 else _COMMON
    return " ".join([*random.choice(_COMMON, 4), *random.choice(words, 2)])


def titles() -> tuple[Columns, Array]:
    """Return titles of articles, and what kind of article each is."""
    columns, kind = _shop()
    return {"title": columns["title"]}, kind


def _numbers_of_shop() -> tuple[Columns, Array]:
    """Return the shop's numbers alone, without holes."""
    columns, kind = _shop()
    return {"price": np.nan_to_num(columns["price"], nan=20.0), "weight": columns["weight"]}, kind


def _sales() -> tuple[Columns, Array]:
    """Return sales by shop, time in seconds since 1970 and amount, with what each earned."""
    random, count = np.random.default_rng(5), 5000
    effect, shop = random.normal(0, 3, 30), random.integers(0, 30, 5000)
    time = 1_700_000_000 + random.integers(0, 86400 * 30, count)
    hour, day = (time % 86400) / 3600, (time - 1_700_000_000) // 86400
    earned = effect[shop] + 4 * np.sin(hour / 24 * 2 * np.pi) + 0.3 * day + random.normal(0, 0.7, count)
    names = np.array([f"s{number}" for number in shop], object)
    return {"shop": names, "unix_time": time, "amount": np.exp(random.normal(8, 2, count))}, earned


def _stock() -> tuple[Columns, Array]:
    """Return prices and stock, with a positive number to predict."""
    random, count = np.random.default_rng(3), 5000
    price, stock = np.exp(random.normal(3, 1, count)), random.poisson(20, count).astype(np.float64)
    return {"price": price, "stock": stock}, 20 + 3 * np.log1p(price) + 0.1 * stock + random.normal(0, 0.5, count)


def _cells() -> tuple[Columns, Array]:
    """Return answers of a form in which cells were left empty, as words and as numbers."""
    random, count = np.random.default_rng(11), 5000
    city, plan = random.choice(["bern", "oslo", "riga"], count), random.choice(["free", "pro"], count)
    age = random.normal(40, 12, count).round()
    leaves = (plan == "free") * 1.2 + (city == "riga") * 0.8 - age / 50 + random.normal(0, 0.7, count) > 0
    city, plan = city.astype(object), plan.astype(object)
    city[random.random(count) < 0.1], plan[random.random(count) < 0.05] = None, None
    age[random.random(count) < 0.1] = np.nan
    return {"city": city, "plan": plan, "age": age}, leaves.astype(np.int64)


def _mixed() -> Any:
    parts = [
        ("brand", OneHotEncoder(handle_unknown="ignore"), ["brand"]),
        ("title", TfidfVectorizer(min_df=3), "title"),
        ("numbers", make_pipeline(SimpleImputer(strategy="median"), StandardScaler()), ["price", "weight"]),
    ]
    model = HistGradientBoostingClassifier(max_iter=60, random_state=0)
    return make_pipeline(ColumnTransformer(parts, sparse_threshold=0), model)


def _targets() -> Any:
    parts = [
        ("shop", TargetEncoder(random_state=0), ["shop"]),
        ("numbers", "passthrough", ["unix_time", "amount"]),
    ]
    return make_pipeline(ColumnTransformer(parts), HistGradientBoostingRegressor(max_iter=80, random_state=0))


def _one_hot() -> Any:
    words = make_pipeline(SimpleImputer(strategy="constant", fill_value="none"), OneHotEncoder(handle_unknown="ignore"))
    parts = [("words", words, ["city", "plan"]), ("numbers", SimpleImputer(add_indicator=True), ["age"])]
    return make_pipeline(ColumnTransformer(parts), LogisticRegression())


def _ordinal() -> Any:
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    parts = [("brand", codes, ["brand"])]
    trees = RandomForestClassifier(60, min_samples_leaf=3, random_state=0)
    return make_pipeline(ColumnTransformer(parts, remainder="drop"), trees)


def _logarithm() -> Any:
    parts = [("price", FunctionTransformer(np.log1p), ["price"]), ("stock", StandardScaler(), ["stock"])]
    return TransformedTargetRegressor(
        make_pipeline(ColumnTransformer(parts), Ridge()), func=np.log1p, inverse_func=np.expm1
    )


def _bins() -> Any:
    bins = KBinsDiscretizer(8, quantile_method="averaged_inverted_cdf")
    return make_pipeline(bins, SelectKBest(k=10), LogisticRegression(max_iter=500))


def _words(model: Any, vectorizer: Any) -> Any:
    return make_pipeline(ColumnTransformer([("title", vectorizer, "title")]), model)


def titles_model() -> Any:
    """Return a classifier of titles that is not fitted."""
    return _words(LogisticRegression(), TfidfVectorizer())


def _plain(model: Any, vectorizer: Any) -> Any:
    return make_pipeline(FunctionTransformer(_first), vectorizer, model)


def _first(table: pd.DataFrame) -> Any:
    return table.iloc[:, 0]


_LAST_DIGIT = 0.01
"""Trees that decide on numbers which earlier steps computed: where two of these differ in the last digit alone, so do
the trees' ways. Rounding the same numbers to single precision turns eight times as many rows."""


def _make(pipeline: Callable[[], Any], data: Data, folder: Path, **options: Any) -> Delivered:
    columns, labels = data()
    return deliver(folder, pipeline(), columns, labels, **options)


def _foreign(
    name: str,
    pipeline: Callable[[], Any],
    data: Data,
    *,
    as_: str = "csv",
    deviants: float = 0.001,
    **about: Any,
) -> Foreign:
    return Foreign(name=name, make=partial(_make, pipeline, data, as_=as_, deviants=deviants), **about)


MODELS = (
    _foreign("shop-mixed", _mixed, _shop, deviants=_LAST_DIGIT),
    _foreign("shop-brand-codes", _ordinal, _shop, as_="parquet"),
    _foreign("titles-tfidf", titles_model, titles),
    _foreign("titles-counts", partial(_words, MultinomialNB(), CountVectorizer(ngram_range=(1, 2))), titles),
    _foreign(
        "titles-hashed",
        partial(_words, LogisticRegression(), HashingVectorizer(n_features=512)),
        titles,
        refused="(HashingVectorizer) cannot be written as ONNX",
    ),
    _foreign(
        "titles-own-function",
        partial(_plain, LogisticRegression(), TfidfVectorizer()),
        titles,
        refused="FunctionTransformer",
    ),
    _foreign("sales-target-encoder", _targets, _sales, deviants=_LAST_DIGIT),
    _foreign("stock-log-target", _logarithm, _stock),
    _foreign("form-empty-cells", _one_hot, _cells),
    _foreign("shop-bins", _bins, _numbers_of_shop),
)
