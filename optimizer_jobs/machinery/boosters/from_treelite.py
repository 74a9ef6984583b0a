"""Read trees out of treelite, which reads the files of XGBoost and LightGBM without either library.

The parser is compiled code and the file may be hostile, so this runs in a process of its own (`formats.sandbox`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from optimizer_jobs.errors import printable
from optimizer_jobs.machinery.boosters.forest import (
    LARGEST_CODE,
    Answer,
    Array,
    BoosterError,
    Categories,
    Forest,
    Tree,
    rounded,
)

_NUMERICAL, _CATEGORICAL = 1, 2
_LESS = 2
"""treelite's number of the comparison `<`."""
_ANSWERS: Mapping[str, Answer] = {
    "identity": Answer.VALUE,
    "exponential": Answer.EXP,
    "sigmoid": Answer.SIGMOID,
    "signed_square": Answer.SIGNED_SQUARE,
    "logarithm_one_plus_exp": Answer.SOFTPLUS,
    "softmax": Answer.SOFTMAX,
    "multiclass_ova": Answer.ONE_AGAINST_ALL,
}


def parsed(read: Callable[[], Any]) -> Any:
    """Return the treelite model that `read` returns; raises BoosterError when treelite refuses the file."""
    from treelite import TreeliteError

    try:
        return read()
    except TreeliteError as error:
        reason = str(error).split("Error!")[0].rsplit("] ", maxsplit=1)[-1].rsplit(": ", maxsplit=1)[-1]
        raise BoosterError(f"treelite cannot read it ({printable(reason, limit=200).rstrip('.')})") from error


def forest_of(model: Any, *, classifies: bool, first: int | None = None) -> Forest:
    """Return the trees of a treelite model.

    Args:
        model: The model.
        classifies: Whether its objective has classes.
        first: Number of trees to keep; all by default.

    Raises:
        BoosterError: Some part of it has no counterpart, such as several labels a row.
    """
    header = model.get_header_accessor()
    targets, classes = int(header.get_field("num_target")[0]), header.get_field("num_class").tolist()
    if classifies and targets > 1:
        raise BoosterError("it predicts more than one label a row, and a classifier has one")
    if targets > 1 and max(classes) > 1:
        raise BoosterError("it predicts several targets of several classes each")
    answer = _answer(str(header.get_field("postprocessor")), classifies=classifies)
    owners = _owners(header, model.num_tree, width=max(targets, classes[0]))
    kept = model.num_tree if first is None else min(first, model.num_tree)
    scale = _scales(header, owners[:kept])
    trees = [model.get_tree_accessor(number) for number in range(kept)]
    strict = _strict(trees)
    base = np.asarray(header.get_field("base_scores"), dtype=np.float64)
    return Forest(
        trees=[
            _tree(tree, outputs=outputs, scale=scale[outputs[0]], strict=strict)
            for tree, outputs in zip(trees, owners, strict=False)
        ],
        strict=strict,
        features=int(header.get_field("num_feature")[0]),
        base=tuple((base * _slope(header)).tolist()),
        answer=answer,
    )


def _answer(postprocessor: str, *, classifies: bool) -> Answer:
    answer = _ANSWERS.get(postprocessor)
    if answer is Answer.SIGMOID and classifies:
        return Answer.BINARY
    if answer is None or answer.classifies != classifies:
        raise BoosterError(f"its answers are made by {postprocessor}, which is not written as ONNX")
    return answer


def _owners(header: Any, trees: int, *, width: int) -> list[tuple[int, ...]]:
    """Return the outputs that each tree adds to; one class or target, or all of them in trees with vectors."""
    targets, classes = (header.get_field(name).tolist() for name in ("target_id", "class_id"))
    if len(targets) != trees or len(classes) != trees:
        raise BoosterError("its trees do not fit its outputs")
    several = int(header.get_field("num_target")[0]) > 1
    owners = targets if several else classes
    return [tuple(range(width)) if owner < 0 else (int(owner),) for owner in owners]


def _slope(header: Any) -> float:
    """Return what sums are multiplied by before the sigmoid."""
    sigmoid = str(header.get_field("postprocessor")) in {"sigmoid", "multiclass_ova"}
    return float(header.get_field("sigmoid_alpha")[0]) if sigmoid else 1.0


def _scales(header: Any, owners: list[tuple[int, ...]]) -> dict[int, float]:
    """Return what the leaves of an output are multiplied by: the slope, over the number of trees in an average."""
    slope, averaged = _slope(header), bool(header.get_field("average_tree_output")[0])
    outputs = [output for owner in owners for output in owner]
    return {output: slope / (outputs.count(output) if averaged else 1) for output in set(outputs)}


def _strict(trees: list[Any]) -> bool:
    """Return whether numbers are compared by `<`, not `<=`; raises BoosterError for anything else, or a mixture."""
    used = {int(sign) for tree in trees for sign in tree.get_field("cmp")[tree.get_field("node_type") == _NUMERICAL]}
    if len(used) > 1 or used - {_LESS, _LESS + 1}:
        raise BoosterError("its trees compare numbers in more than one way")
    return used == {_LESS}


def _tree(tree: Any, *, outputs: tuple[int, ...], scale: float, strict: bool) -> Tree:
    leaf = tree.get_field("cleft") < 0
    return Tree(
        leaf=leaf,
        feature=np.where(leaf, 0, tree.get_field("split_index")).astype(np.int64),
        threshold=rounded(tree.get_field("threshold").astype(np.float64), strict=strict),
        left=tree.get_field("cleft").astype(np.int64),
        right=tree.get_field("cright").astype(np.int64),
        missing_left=tree.get_field("default_left").astype(bool) & ~leaf,
        values=_values(tree, leaf, width=len(outputs)) * scale,
        outputs=outputs,
        categories=_categories(tree),
    )


def _values(tree: Any, leaf: Array, *, width: int) -> Array:
    """Return what each node adds (M, W); nodes that are no leaves add nothing."""
    begin, end = (tree.get_field(f"leaf_vector_{end}").astype(np.int64) for end in ("begin", "end"))
    if not (end > begin).any():
        return np.repeat(np.where(leaf, tree.get_field("leaf_value"), 0).astype(np.float64)[:, np.newaxis], width, 1)
    if (end - begin)[leaf].tolist() != [width] * int(leaf.sum()):
        raise BoosterError("its leaves do not fit its outputs")
    values = np.zeros((len(leaf), width))
    values[leaf] = tree.get_field("leaf_vector")[begin[leaf][:, np.newaxis] + np.arange(width)]
    return values


def _categories(tree: Any) -> dict[int, Categories]:
    inside_right = tree.get_field("category_list_right_child").astype(bool)
    begin, end = tree.get_field("category_list_begin"), tree.get_field("category_list_end")
    codes = tree.get_field("category_list")
    tests = {}
    for node in np.flatnonzero(tree.get_field("node_type") == _CATEGORICAL).tolist():
        inside = sorted(int(code) for code in codes[begin[node] : end[node]])
        if inside and inside[-1] >= LARGEST_CODE:
            raise BoosterError(
                f"it has category {inside[-1]}, and only codes below {LARGEST_CODE} are exact in float32"
            )
        tests[node] = Categories(inside=tuple(inside), inside_left=not inside_right[node])
    return tests
