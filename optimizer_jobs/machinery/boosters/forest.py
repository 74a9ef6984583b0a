"""Boosted trees as plain arrays: what every library's file is read into, and what the ONNX file is written from.

Thresholds are already rounded so that a float32 number takes the way that the library itself would send it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

LARGEST_CODE = 1 << 24
"""Whole numbers up to here are exact in float32."""


class BoosterError(ValueError):
    """The trees cannot be read or written as ONNX.

    The message says which part, without a full stop; `next_step` what a person should do, as a sentence.
    """

    def __init__(self, message: str, next_step: str = "Train without that part, or deliver the model as ONNX.") -> None:
        super().__init__(message)
        self.next_step = next_step


class Answer(StrEnum):
    """What becomes of the sums of leaves."""

    VALUE = "the sums themselves"
    EXP = "exp(x)"
    SIGMOID = "sigmoid(x)"
    SIGNED_SQUARE = "x * abs(x)"
    SOFTPLUS = "log(1 + exp(x))"
    BINARY = "sigmoid(x), and a label"
    SOFTMAX = "softmax, and a label"
    ONE_AGAINST_ALL = "a sigmoid for each class, and a label"

    @property
    def classifies(self) -> bool:
        """Whether the model answers a label with probabilities."""
        return self in {Answer.BINARY, Answer.SOFTMAX, Answer.ONE_AGAINST_ALL}


@dataclass(frozen=True)
class Categories:
    """A test of one node: is the input's category in a set? All other categories, known or not, are outside."""

    inside: tuple[int, ...]
    """Codes of the categories in the set."""
    inside_left: bool
    """Whether categories in the set go to the left child."""


@dataclass(frozen=True, kw_only=True)
class Tree:
    """One tree as arrays over its M nodes; node 0 is the root."""

    leaf: Array
    """Whether the node is a leaf (M,)."""
    feature: Array
    """Column that the node compares (M,)."""
    threshold: Array
    """Number that it compares with, float32 (M,)."""
    left: Array
    """Child for an input below the threshold (M,)."""
    right: Array
    missing_left: Array
    """Whether a missing input goes left (M,)."""
    values: Array
    """What a leaf adds to each of the outputs (M, W), float64."""
    outputs: tuple[int, ...]
    """The W outputs that the tree adds to."""
    categories: Mapping[int, Categories] = field(default_factory=dict)
    """The test of each node that compares a category instead of a number."""


@dataclass(frozen=True, kw_only=True)
class Forest:
    """All trees of a model, and what becomes of their sums."""

    trees: Sequence[Tree]
    strict: bool
    """Whether a number goes left when it is less than the threshold; otherwise also when it is equal."""
    features: int
    """Number of input columns."""
    base: tuple[float, ...]
    """What each output starts from, before any tree."""
    answer: Answer

    @property
    def classes(self) -> int:
        """Number of classes; 0 for a regression."""
        if not self.answer.classifies:
            return 0
        return 2 if self.answer is Answer.BINARY else len(self.base)


_ZERO = np.float32(1e-35)
"""LightGBM takes numbers of this size and smaller for 0."""


def rounded(thresholds: Array, *, strict: bool) -> Array:
    """Return float32 thresholds (M,) that send every float32 number to the same side as the float64 thresholds.

    `x <= t` stays the same when t is rounded down, `x < t` when it is rounded up. Where comparisons are `<=`, as in
    LightGBM, a threshold close to 0 has all numbers on one side that LightGBM takes for 0.
    """
    if not strict:
        thresholds = np.where((thresholds >= 0) & (thresholds < _ZERO), _ZERO, thresholds)
        thresholds = np.where(
            (thresholds < 0) & (thresholds >= -_ZERO), np.nextafter(-_ZERO, np.float32(-1)), thresholds
        )
    with np.errstate(over="ignore"):
        near = thresholds.astype(np.float32)
    if strict:
        return np.where(near < thresholds, np.nextafter(near, np.float32(np.inf)), near)
    return np.where(near > thresholds, np.nextafter(near, np.float32(-np.inf)), near)


@dataclass(frozen=True, kw_only=True)
class Booster:
    """A model of boosted trees, as its file describes it."""

    forest: Forest
    parsed: Any
    """The same trees as treelite's model; None for CatBoost."""
    library: str
    """XGBoost, LightGBM or CatBoost."""
    objective: str
    """What it was trained for, in the library's words."""
    names: tuple[str, ...] = ()
    """Names of the columns; empty where the file has none."""
    categories: Mapping[int, tuple[str, ...] | tuple[float, ...]] = field(default_factory=dict)
    """By column, the category of each code, where the data holds the categories themselves and not their codes."""
    labels: tuple[int, ...] | tuple[str, ...] = ()
    """Label of each class; empty where the class's number is the label."""
    rounds: int | None = None
    """Rounds of the training whose trees are used; None where all are."""

    @property
    def textual(self) -> frozenset[int]:
        """The columns whose categories are text."""
        return frozenset(column for column, values in self.categories.items() if isinstance(values[0], str))

    @property
    def numbers(self) -> Mapping[int, tuple[float, ...]]:
        """By column whose categories are numbers in the data, the number of each code."""
        kept = {column: values for column, values in self.categories.items() if column not in self.textual}
        return {column: tuple(float(value) for value in values) for column, values in kept.items()}


def labels_of(model: Any) -> tuple[int, ...] | tuple[str, ...]:
    """Return the label of each class of a fitted object; none where they are the numbers of its classes."""
    labels = np.asarray(getattr(model, "classes_", ())).tolist()
    if any(isinstance(label, str) for label in labels):
        return tuple(str(label) for label in labels)
    numbers = tuple(int(label) for label in labels)
    return () if numbers == tuple(range(len(numbers))) else numbers
