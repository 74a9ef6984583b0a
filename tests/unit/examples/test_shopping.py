"""Rows of the recommender example: nothing that a model is told of a candidate comes from the week it is about."""

import dataclasses
import itertools

import numpy as np
import pytest
import yaml
from numpy.typing import NDArray

from examples.recommender.demo import RECOMMENDER
from examples.recommender.shopping import CANDIDATES, DENSE, FEATURES, GROUPS, IDS, WEEKS, Candidates, History, Shopping
from retune.api.objects import ModelOptimization

HOUSEHOLDS, PRODUCTS, KINDS = 12, 400, 9


def shop(weeks: int = 53, *, seed: int = 0) -> Shopping:
    """Return a year of random baskets of a few households, some products far more often than others."""
    random = np.random.default_rng(seed)
    count = 40 * HOUSEHOLDS * weeks
    popular = np.minimum(random.geometric(0.01, count), PRODUCTS)
    places = {name: random.integers(0, KINDS, PRODUCTS + 1) for name in IDS[2:]}
    return Shopping(
        household=random.integers(1, HOUSEHOLDS + 1, count),
        product=popular,
        week=random.integers(1, weeks + 1, count),
        attributes=places,
        price=random.uniform(1, 9, PRODUCTS + 1),
        discount=random.uniform(0, 1, PRODUCTS + 1),
        own_brand=random.integers(0, 2, PRODUCTS + 1).astype(float),
    )


def test_history_counts_only_what_came_before() -> None:
    """Counts by hand: an event of the week itself or later is never among them."""
    history = History(np.array([3, 3, 3, 5]), np.array([2, 4, 4, 4]))
    keys, weeks = np.array([3, 3, 3, 5, 7]), np.array([2, 4, 5, 5, 5])
    assert history.count(keys, weeks).tolist() == [0, 1, 2, 1, 0]
    assert history.count(keys, weeks, last=2).tolist() == [0, 1, 1, 1, 0]
    assert history.since(keys, weeks).tolist() == [60, 2, 1, 1, 60]


@pytest.mark.parametrize("split", list(WEEKS))
def test_groups_are_whole_and_have_both_kinds_of_rows(split: str) -> None:
    """Each group is one household with so many different products, some of them bought; ids fit their tables."""
    purchases = shop()
    rows = Candidates(purchases).rows(split, seed=1)
    assert set(rows) == {*IDS, DENSE, "label", "group"}
    assert rows[DENSE].shape == (len(rows["label"]), len(FEATURES))
    assert all(rows[name].max() < size for name, size in purchases.sizes.items())
    assert len(np.unique(rows["group"])) <= GROUPS[split]
    for group in np.unique(rows["group"]):
        chosen = rows["group"] == group
        assert chosen.sum() == CANDIDATES
        assert len(np.unique(rows["household"][chosen])) == 1
        assert len(np.unique(rows["product"][chosen])) == CANDIDATES
        assert 1 <= rows["label"][chosen].sum() <= 10


def test_a_household_has_one_group_where_quality_is_judged() -> None:
    """Groups that are drawn again and again for an interval have to be independent of each other."""
    rows = Candidates(shop()).rows("test", seed=1)
    assert len(np.unique(rows["group"])) == len(np.unique(rows["household"]))


def test_what_is_told_of_a_candidate_does_not_depend_on_the_week_or_the_future() -> None:
    """Purchases from a week on may be anything: ids and numbers of that week's candidates stay as they were."""
    purchases, week = shop(), 46
    past = purchases.week < week
    other = shop(seed=9)
    mixed = dataclasses.replace(
        purchases,
        household=np.concatenate([purchases.household[past], other.household]),
        product=np.concatenate([purchases.product[past], other.product]),
        week=np.concatenate([purchases.week[past], np.maximum(other.week, week)]),
    )
    assert np.array_equal(described(purchases, week), described(mixed, week))


def described(purchases: Shopping, week: int) -> NDArray[np.float32]:
    """Return the dense numbers (N, 14) of some candidates of one week."""
    household, product = np.arange(1, HOUSEHOLDS + 1), np.arange(20, 20 + HOUSEHOLDS)
    rows = Candidates(purchases)._described(household, product, np.full(HOUSEHOLDS, week))
    return np.asarray(rows[DENSE])


def test_splits_follow_each_other_in_time() -> None:
    """Validation comes after training, and the test after both."""
    spans = [WEEKS[split] for split in ("train", "validation", "test")]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(spans))


def test_the_manifest_asks_for_whole_groups_and_ranks_as_many_rows_as_a_request_has() -> None:
    """Every data set names its groups, and candidates are measured with requests of CANDIDATES rows."""
    text = (RECOMMENDER.folder / "manifests" / "40-modeloptimization.yaml").read_text()
    spec = ModelOptimization.model_validate(yaml.safe_load(text)).spec
    sets = (spec.data.training, spec.data.calibration, spec.data.validation, spec.data.test)
    assert [data.group_column for data in sets if data is not None] == ["group"] * 4
    assert spec.serving.batch_size == CANDIDATES
