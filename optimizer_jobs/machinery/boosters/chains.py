"""Write the test of a category as a chain of comparisons: over the ends of the intervals that the set consists of.

Below the first end an input is outside the set, below the second inside, and so on; beyond the last it is outside. All
nodes of a chain lead to the same two children. ONNX Runtime allows that for the branch "true", where the chain has it.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from optimizer_jobs.machinery.boosters.forest import Categories, Tree

_INFINITE = np.float32(np.inf)


def chained(tree: Tree, *, strict: bool, numbers: Mapping[int, Sequence[float]]) -> Tree:
    """Return the tree with comparisons only.

    Args:
        tree: The tree.
        strict: Whether comparisons are `<`, not `<=`.
        numbers: By column whose categories are numbers in the data, the number of each code.
    """
    if not tree.categories:
        return tree
    nodes = _Nodes(tree)
    for node, test in tree.categories.items():
        nodes.chain(
            node, _ends(test, numbers.get(int(tree.feature[node])), strict=strict), inside_left=test.inside_left
        )
    return nodes.tree()


def _ends(test: Categories, numbers: Sequence[float] | None, *, strict: bool) -> list[float]:
    """Return the thresholds of the chain, from low to high: where each interval of the set begins and where it ends."""
    if numbers is None:
        spans = [_span_of_code(code, strict=strict) for code in test.inside]
    else:
        spans = [_span_of_number(numbers[code]) for code in test.inside if code < len(numbers)]
    ends: list[float] = []
    for low, high in sorted(spans):
        if ends and ends[-1] == low:
            ends[-1] = high
        else:
            ends += [low, high]
    exact = np.asarray(ends or [-np.inf, -np.inf], dtype=np.float32)
    return [float(end) for end in (exact if strict else np.nextafter(exact, -_INFINITE))]


def _span_of_code(code: int, *, strict: bool) -> tuple[float, float]:
    """Return the interval of a code: a number is cut to a whole one before it is looked up.

    XGBoost, which compares by `<`, takes a negative number for no code. LightGBM cuts -0.5 to code 0.
    """
    if code == 0 and not strict:
        return float(np.nextafter(np.float32(-1), np.float32(0))), 1.0
    return float(code), code + 1.0


def _span_of_number(number: float) -> tuple[float, float]:
    """Return the interval of a number: a whole one up to the next, so that neighbours join, any other by itself."""
    single = np.float32(number)
    return float(single), float(single) + 1 if number.is_integer() else float(np.nextafter(single, _INFINITE))


class _Nodes:
    """The nodes of a tree while chains are added to it."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._feature, self._threshold = tree.feature.tolist(), tree.threshold.tolist()
        self._left, self._right, self._missing = tree.left.tolist(), tree.right.tolist(), tree.missing_left.tolist()

    def chain(self, node: int, ends: Sequence[float], *, inside_left: bool) -> None:
        """Put a chain in the place of a node; a missing input ends where it did before."""
        left, right = self._left[node], self._right[node]
        inside, outside = (left, right) if inside_left else (right, left)
        missing_inside = self._missing[node] == inside_left
        added = range(len(self._left), len(self._left) + len(ends) - 1)
        places = [node, *added]
        self._grow(len(added), feature=self._feature[node])
        for step, (place, end) in enumerate(zip(places, ends, strict=True)):
            self._threshold[place] = end
            self._left[place] = inside if step % 2 else outside
            self._right[place] = places[step + 1] if step + 1 < len(places) else outside
            self._missing[place] = step == int(missing_inside)

    def _grow(self, count: int, *, feature: int) -> None:
        """Add nodes that compare a feature and lead nowhere yet."""
        self._feature += [feature] * count
        self._threshold += [0.0] * count
        self._left += [0] * count
        self._right += [0] * count
        self._missing += [False] * count

    def tree(self) -> Tree:
        """Return the tree with all chains."""
        tree, added = self._tree, len(self._left) - len(self._tree.left)
        return Tree(
            leaf=np.concatenate([tree.leaf, np.zeros(added, dtype=bool)]),
            feature=np.asarray(self._feature),
            threshold=np.asarray(self._threshold, dtype=np.float32),
            left=np.asarray(self._left),
            right=np.asarray(self._right),
            missing_left=np.asarray(self._missing),
            values=np.concatenate([tree.values, np.zeros((added, tree.values.shape[1]))]),
            outputs=tree.outputs,
        )
