"""Keep an ensemble monotone where it was: a feature that could only raise a sum must not lower it after a change.

Libraries train such ensembles by constraints that no file names. So the constraints are read from the trees: a feature
is held where every single tree is monotone in it, in the same direction. Missing numbers are outside of that order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np

from optimizer_jobs.machinery.trees.ensemble import Array, Ensemble

_UPWARDS = {"BRANCH_LEQ": True, "BRANCH_LT": True, "BRANCH_GTE": False, "BRANCH_GT": False}
"""Whether the side "no" of a comparison has the larger numbers."""
_MOST_LEAVES = 256
"""Leaves of a tree up to which they are compared pair by pair; constraints of larger trees are not looked for."""

Directions = Mapping[tuple[int, int], int]
"""1 for a sum that only rises with a feature, -1 for one that only falls, by feature and sum."""


def directions(ensemble: Ensemble) -> Directions:
    """Return in which features every tree of the ensemble is monotone.

    A feature that changes nothing at all is left out: there is no direction to keep. Trees with votes for several
    classes in one leaf have none, because no library constrains those.
    """
    hints = _hints(ensemble)
    if hints:
        for tree in _boxes(ensemble):
            hints = {key: sign for key, sign in hints.items() if tree.keeps(key[0], key[1], sign)}
    return hints


def kept(ensemble: Ensemble, wanted: Directions) -> Ensemble:
    """Return the ensemble with leaves moved as little as makes every tree monotone as wanted.

    Each leaf gets the middle between the largest leaf that must not exceed it and the smallest that it must not exceed,
    itself included: with the order of leaves complete, this is monotone whatever the leaves were.
    """
    if not wanted:
        return ensemble
    values = ensemble.values.copy()
    for tree in _boxes(ensemble):
        for output in {output for _, output in wanted}:
            signs = {feature: sign for (feature, of), sign in wanted.items() if of == output}
            values[tree.nodes, output] = _isotonic(values[tree.nodes, output], tree.order(signs))
    return replace(ensemble, values=values)


def _hints(ensemble: Ensemble) -> dict[tuple[int, int], int]:
    """Return features that splits over two leaves show one direction of only, by feature and sum.

    What such a split shows is enough to rule most features out of an unconstrained ensemble.
    """
    nodes = ensemble.order()
    if (ensemble.used[nodes].sum(axis=1) > 1).any():
        return {}
    inner = nodes[~ensemble.is_leaf[nodes]]
    known = np.isin(ensemble.mode[inner], list(_UPWARDS))
    loose = {int(feature) for feature in ensemble.feature[inner[~known]]}
    last = inner[known & ensemble.is_leaf[ensemble.yes[inner]] & ensemble.is_leaf[ensemble.no[inner]]]
    up = np.asarray([_UPWARDS.get(str(mode), True) for mode in ensemble.mode[last]], dtype=bool)
    rise = (ensemble.values[ensemble.no[last]] - ensemble.values[ensemble.yes[last]]) * np.where(up, 1, -1)[:, None]
    hints: dict[tuple[int, int], int] = {}
    for feature in sorted({int(feature) for feature in ensemble.feature[last]} - loose):
        own = rise[ensemble.feature[last] == feature]
        for output in range(own.shape[1]):
            rises, falls = bool((own[:, output] > 0).any()), bool((own[:, output] < 0).any())
            if rises != falls:
                hints[feature, output] = 1 if rises else -1
    return hints


class _Boxes:
    """The leaves of one tree, each with the box of numbers that leads to it."""

    def __init__(self, ensemble: Ensemble, root: int) -> None:
        leaves = list(islice(_leaves(ensemble, root), _MOST_LEAVES + 1))
        self.nodes = np.asarray([node for node, _ in leaves])
        self._values = ensemble.values[self.nodes]
        features = sorted({feature for _, box in leaves for feature in box})
        self._places = {feature: place for place, feature in enumerate(features)}
        self._low = np.full((len(leaves), len(features)), -np.inf)
        self._high = np.full((len(leaves), len(features)), np.inf)
        for number, (_, box) in enumerate(leaves):
            for feature, (low, high) in box.items():
                place = self._places[feature]
                self._low[number, place], self._high[number, place] = low, high
        self._too_many = len(leaves) > _MOST_LEAVES

    def keeps(self, feature: int, output: int, sign: int) -> bool:
        """Return whether no leaf breaks the direction of a feature for a sum."""
        if self._too_many:
            return False
        below = self._below(feature)
        values = sign * self._values[:, output]
        return not bool((below & (values[:, np.newaxis] > values)).any())

    def order(self, signs: Mapping[int, int]) -> Array:
        """Return which leaf must not exceed which (L, L), complete, for the directions of some features."""
        order = self.nodes[:, np.newaxis] == self.nodes
        for feature, sign in signs.items():
            below = self._below(feature)
            order |= below if sign > 0 else below.T
        while True:
            further = (order.astype(np.float32) @ order.astype(np.float32)) > 0
            if bool((further == order).all()):
                return np.asarray(order)
            order = further

    def _below(self, feature: int) -> Array:
        """Return for which pairs (L, L) the first leaf is where only a smaller number of the feature leads."""
        place = self._places.get(feature)
        count = len(self.nodes)
        if place is None:
            return np.zeros((count, count), dtype=bool)
        below = self._high[:, np.newaxis, place] <= self._low[:, place]
        for other in range(self._low.shape[1]):
            if other != place:
                low, high = self._low[:, other], self._high[:, other]
                below &= (low[:, np.newaxis] < high) & (low < high[:, np.newaxis])
        return np.asarray(below)


def _boxes(ensemble: Ensemble) -> Iterator[_Boxes]:
    for root in ensemble.roots.tolist():
        yield _Boxes(ensemble, root)


def _leaves(ensemble: Ensemble, root: int) -> Iterator[tuple[int, dict[int, tuple[float, float]]]]:
    """Yield the leaves below a node, as often as ways lead there, each with the ranges of the features on the way.

    A range has its lower end and not its upper one.
    """
    stack: list[tuple[int, dict[int, tuple[float, float]]]] = [(root, {})]
    leaf = ensemble.is_leaf
    while stack:
        node, box = stack.pop()
        if leaf[node]:
            yield node, box
            continue
        upwards = _UPWARDS.get(str(ensemble.mode[node]))
        feature, edge = int(ensemble.feature[node]), _edge(ensemble, int(node))
        low, high = box.get(feature, (-np.inf, np.inf))
        smaller, larger = (low, min(high, edge)), (max(low, edge), high)
        for child, takes_larger in ((ensemble.yes[node], upwards is False), (ensemble.no[node], upwards is True)):
            side = (low, high) if upwards is None else larger if takes_larger else smaller
            if side[0] < side[1]:
                stack.append((int(child), box | {feature: side}))


def _edge(ensemble: Ensemble, node: int) -> float:
    """Return the first number that is not on the side of the smaller ones."""
    threshold = ensemble.threshold[node]
    belongs_below = ensemble.mode[node] in {"BRANCH_LEQ", "BRANCH_GT"}
    return float(np.nextafter(threshold, threshold.dtype.type(np.inf)) if belongs_below else threshold)


def _isotonic(values: Array, order: Array) -> Array:
    """Return values (L,) that keep an order (L, L), in which every value is at most those that it must not exceed."""
    least = np.where(order, values, np.inf).min(axis=1)
    most = np.where(order.T, values, -np.inf).max(axis=1)
    return np.asarray((least + most) / 2)
