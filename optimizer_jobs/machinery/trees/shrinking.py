"""Make an ensemble smaller: fewer trees, or fewer leaves in each. What is kept stands where it stood.

A subtree that becomes a leaf answers what its leaves answered on average over the rows that reached them.
"""

import heapq
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from optimizer_jobs.machinery.trees.ensemble import LEAF, Array, Ensemble


def chosen(answers: Array, count: int) -> list[int]:
    """Return which trees are kept, in order.

    Trees are added one by one. Each time it is the tree that brings the sum closest in direction to the sum of all.

    Args:
        answers: Answers (trees, rows, sums) of every tree.
        count: Number of trees to keep.
    """
    flat = answers.reshape(len(answers), -1).astype(np.float64)
    products, with_total = flat @ flat.T, flat @ flat.sum(axis=0)
    kept: list[int] = []
    with_sum = np.zeros(len(flat))  # products of each tree with the sum of the kept ones
    sum_with_total, sum_squared = 0.0, 0.0
    free = np.ones(len(flat), dtype=bool)
    for _ in range(min(count, len(flat))):
        squared = sum_squared + 2 * with_sum + np.diag(products)
        cosine = np.where(free, (sum_with_total + with_total) / np.sqrt(np.maximum(squared, 1e-30)), -np.inf)
        best = int(np.argmax(cosine))
        sum_with_total, sum_squared = sum_with_total + with_total[best], squared[best]
        with_sum, free[best] = with_sum + products[best], False
        kept.append(best)
    return sorted(kept)


def scale_of(answers: Array, kept: Sequence[int]) -> float:
    """Return what the answers of kept trees are multiplied by.

    Votes of a forest still sum to what they did; other answers take the best fit to the sum of all.

    Args:
        answers: Answers (trees, rows, sums) of every tree.
        kept: Places of the trees that are kept.
    """
    if are_votes(answers):
        votes = answers.sum(axis=(1, 2))
        return float(votes.sum() / votes[list(kept)].sum())
    total, part = answers.sum(axis=0).ravel(), answers[list(kept)].sum(axis=0).ravel()
    squared = float(part @ part)
    return float(total @ part) / squared if squared > 0 else 1.0


def are_votes(answers: Array) -> bool:
    """Return whether each tree gives every row the same sum of numbers that are not negative, as forests do.

    Args:
        answers: Answers (trees, rows, sums) of every tree.
    """
    votes = answers.sum(axis=2)
    return bool((answers >= 0).all() and votes[0, 0] > 0 and np.allclose(votes, votes[0, 0], rtol=1e-3))


def collapsed(ensemble: Ensemble, passed: Array, leaves: int) -> Ensemble:
    """Return the ensemble with at most this many leaves, but at least one a tree.

    Again and again those two neighbours become one leaf whose difference costs the answers least, over all trees and
    the rows that reached them. Splits that no row needs go first.

    Args:
        ensemble: The ensemble.
        passed: Rows that passed each node (M,).
        leaves: Leaves to keep.
    """
    work = _Collapsing(ensemble, passed)
    order = ensemble.order()
    for node in order[~ensemble.is_leaf[order]].tolist():
        work.consider(node)
    left = int(ensemble.is_leaf[order].sum())
    while left > leaves and (node := work.cheapest()) is not None:
        work.collapse(node)
        left -= 1
    return work.ensemble()


def merged(ensemble: Ensemble) -> Ensemble:
    """Return the ensemble without splits whose two sides answer the same; every row gets what it got."""
    work = _Collapsing(ensemble, np.ones(len(ensemble.mode)))
    order = ensemble.order()
    for node in order[::-1][~ensemble.is_leaf[order[::-1]]].tolist():
        if work.is_same(node):
            work.collapse(node)
    return work.ensemble()


class _Collapsing:
    """An ensemble while splits over two leaves become leaves."""

    def __init__(self, ensemble: Ensemble, passed: Array) -> None:
        self._from = ensemble
        self._passed = passed
        self._leaf = ensemble.is_leaf.copy()
        self._values, self._used = ensemble.values.copy(), ensemble.used.copy()
        self._single = bool(ensemble.used[ensemble.is_leaf].sum(axis=1).max(initial=0) <= 1)
        self._heap: list[tuple[float, int]] = []
        self._parents: dict[int, list[int]] = {}
        for node in np.flatnonzero(~self._leaf).tolist():
            for child in {int(ensemble.yes[node]), int(ensemble.no[node])}:
                self._parents.setdefault(child, []).append(node)

    def consider(self, node: int) -> None:
        """Remember what it costs to make a leaf of the node, once both its sides are leaves."""
        if self._mergeable(node):
            heapq.heappush(self._heap, (self._cost(node), node))

    def cheapest(self) -> int | None:
        """Return the node that costs least to make a leaf, or None when there is none."""
        while self._heap:
            _, node = heapq.heappop(self._heap)
            if not self._leaf[node]:
                return node
        return None

    def is_same(self, node: int) -> bool:
        """Return whether both sides of a node are leaves that answer the same."""
        yes, no = self._sides(node)
        return self._mergeable(node) and bool((self._values[yes] == self._values[no]).all())

    def collapse(self, node: int) -> None:
        """Make a leaf of a node whose two sides are leaves."""
        yes, no = self._sides(node)
        self._values[node] = self._mean(yes, no)
        self._used[node] = self._used[yes] | self._used[no]
        self._leaf[node] = True
        for parent in self._parents.get(node, ()):
            self.consider(parent)

    def ensemble(self) -> Ensemble:
        """Return the ensemble as it is now."""
        mode = np.where(self._leaf, LEAF, self._from.mode)
        return replace(self._from, mode=mode, values=self._values, used=self._used)

    def _sides(self, node: int) -> tuple[int, int]:
        return int(self._from.yes[node]), int(self._from.no[node])

    def _mergeable(self, node: int) -> bool:
        """Return whether both sides are leaves that become one: where a leaf adds to one sum, to the same one."""
        yes, no = self._sides(node)
        same = not self._single or bool((self._used[yes] == self._used[no]).all())
        return bool(self._leaf[yes] and self._leaf[no] and not self._leaf[node]) and same

    def _mean(self, yes: int, no: int) -> Array:
        first, second = self._values[yes], self._values[no]
        rows = self._passed[yes] + self._passed[no]
        share = self._passed[no] / rows if rows else 0.5
        return np.asarray(first + share * (second - first))

    def _cost(self, node: int) -> float:
        """Return by how much the squares of the answers' changes sum up over the rows."""
        yes, no = self._sides(node)
        rows = self._passed[yes] + self._passed[no]
        apart = float(((self._values[yes] - self._values[no]) ** 2).sum())
        return float(self._passed[yes] * self._passed[no]) / rows * apart if rows else 0.0
