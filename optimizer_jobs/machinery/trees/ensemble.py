"""An ensemble of trees as arrays, and its walk over rows, which must end where ONNX Runtime's ends.

Nothing here knows how a file stores trees (`nodes`), nor what becomes of their sums (`refit`).
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LEAF = "LEAF"
MODES = ("BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT", "BRANCH_EQ", "BRANCH_NEQ")
"""Comparisons of a node, in the order in which version 5 of the operators numbers them."""
_COMPARE = dict(zip(MODES, (np.less_equal, np.less, np.greater_equal, np.greater, np.equal, np.not_equal), strict=True))


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """T trees over M nodes, whose leaves are added up to K sums a row.

    A node may be reached from several others: a test of a set of categories is a chain of such nodes. Nodes that no
    root leads to are not part of the ensemble.
    """

    roots: Array
    """Node that each tree starts at (T,)."""
    mode: Array
    """Comparison of each node as a word, or LEAF (M,)."""
    feature: Array
    """Column that the node compares (M,)."""
    threshold: Array
    """Number that it compares with (M,), float32 or float64 as the file compares."""
    yes: Array
    """Node for a row whose comparison is true (M,)."""
    no: Array
    missing_yes: Array
    """Whether a missing number counts as true (M,)."""
    values: Array
    """What a leaf adds to each sum (M, K), float64."""
    used: Array
    """Which sums a leaf adds to (M, K)."""
    base: Array
    """What each sum starts from (K,)."""

    @property
    def is_leaf(self) -> Array:
        """Whether each node is a leaf (M,)."""
        return np.asarray(self.mode == LEAF)

    def walk(self, X: Array) -> tuple[Array, Array]:
        """Return the leaf of each row in each tree (N, T), and the rows that passed each node (M,).

        Args:
            X: Rows (N, F), in the precision in which the file gets them; whole numbers are compared as float32.
        """
        X = np.asarray(X, dtype=np.float64 if X.dtype == np.float64 else np.float32)
        nodes = np.tile(self.roots, len(X))
        owners = np.repeat(np.arange(len(X)), len(self.roots))
        passed = np.bincount(nodes, minlength=len(self.mode))
        inner = ~self.is_leaf
        walking = np.flatnonzero(inner[nodes])
        while walking.size:
            at = nodes[walking]
            following = np.where(self._is_true(at, X[owners[walking], self.feature[at]]), self.yes[at], self.no[at])
            nodes[walking] = following
            passed += np.bincount(following, minlength=len(self.mode))
            walking = walking[inner[following]]
        return nodes.reshape(len(X), len(self.roots)), passed

    def _is_true(self, at: Array, value: Array) -> Array:
        """Return whether the comparison of each of the nodes `at` is true for its value; both (S,)."""
        threshold, modes = self.threshold[at], self.mode[at]
        kinds = np.unique(self.mode[~self.is_leaf])
        true = np.zeros(len(at), dtype=bool)
        for kind in kinds:
            mask = modes == kind if len(kinds) > 1 else slice(None)
            true[mask] = _COMPARE[str(kind)](value[mask], threshold[mask])
        return true | (np.isnan(value) & self.missing_yes[at])

    def sums(self, leaves: Array) -> Array:
        """Return the sums (N, K), base included, of rows that end at these leaves (N, T)."""
        sums = np.tile(self.base, (len(leaves), 1)).astype(np.float64)
        for tree in range(leaves.shape[1]):
            sums += self.values[leaves[:, tree]]
        return sums

    def trees(self, chosen: Any) -> "Ensemble":
        """Return the ensemble with these trees alone, by their places."""
        return replace(self, roots=self.roots[chosen])

    def order(self) -> Array:
        """Return every node of the ensemble once, each after all that lead to it; reversed, children go first."""
        state = np.zeros(len(self.mode), dtype=np.int8)
        leaf, yes, no = self.is_leaf.tolist(), self.yes.tolist(), self.no.tolist()
        finished: list[int] = []
        stack = [(root, False) for root in reversed(self.roots.tolist())]
        while stack:
            node, done = stack.pop()
            if done:
                finished.append(node)
            elif not state[node]:
                state[node] = 1
                stack.append((node, True))
                if not leaf[node]:
                    stack += [(yes[node], False), (no[node], False)]
        return np.asarray(finished[::-1], dtype=np.int64)

    @property
    def leaves(self) -> int:
        """Number of leaves that some root leads to."""
        return int(self.is_leaf[self.order()].sum())
