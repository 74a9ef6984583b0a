"""Prune the trees of an ONNX file, whatever library made them: fewer trees, or fewer leaves, or leaves fitted again.

Fewer trees and leaves need the file and training or calibration rows without labels. What is kept is then fitted to
what all trees answered. Labels are for an ensemble as it is, on rows that it was not grown on: on its own training
rows a fit to them learns their noise. Inputs and outputs stay, and so does every direction in which the ensemble is
monotone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.compress.calibration import sample, session_of
from optimizer_jobs.machinery.compress.pruning import STRUCTURED
from optimizer_jobs.machinery.trees import monotone, nodes, refit, shrinking
from optimizer_jobs.machinery.trees.ensemble import Ensemble
from optimizer_jobs.machinery.trees.refit import Link
from optimizer_jobs.technique import Applied, Context, Params, Skipped, Subject
from retune.api.model import Task

Array = NDArray[Any]

FEWEST = 8
"""Trees of an ensemble below which nothing is pruned."""

TREES, FIRST, LEAVES, KEEP = "Trees", "First", "Leaves", "Keep"
"""What is cut: trees that matter least, the last ones, leaves that matter least, or nothing."""
ANSWERS, LABELS, NOTHING = "Answers", "Labels", "None"
"""What the leaves are fitted to afterwards."""
HOLDS = (5.0, 50.0)
"""How strongly leaves that are fitted to labels are held to what they were."""

_HOLD_OF_ANSWERS = 0.05
_ROWS = 1000
"""Rows on which trees are compared, at most."""
_FITTED_ROWS, _FITTED_LEAVES = 20_000, 4_000_000
"""Rows that leaves are fitted on, and rows times trees, at most."""
_MIDDLE = (0.3, 0.7)
"""Share of numbers to predict that lie above what a model of their mean answers. Outside, it predicts a quantile."""


def present(graph: onnx.ModelProto) -> bool:
    """Return whether the model has an ensemble of trees with some to prune."""
    return bool(_prunable(graph))


def unavailable(subject: Subject) -> str | None:
    """Return why no trees can be pruned with this data, or None."""
    if not (subject.training or subject.calibration):
        return "there are no rows to see on which trees matter: set data.training or data.calibration"
    return None


def learns(subject: Subject) -> bool:
    """Return whether leaves can be fitted to labels."""
    return subject.training and subject.task in {Task.CLASSIFICATION, Task.REGRESSION}


def variants(subject: Subject) -> tuple[Params, ...]:
    """Return what is worth a try of its own, the most important first, as the search's parameters.

    All have a `share` of the largest ratio, what is `cut`, what leaves are fitted to (`refit`), and the `hold` on them.
    """
    usual: Params = {"share": 0.5, "cut": TREES, "refit": ANSWERS, "hold": HOLDS[0]}
    labels: tuple[Params, ...] = (usual | {"cut": KEEP},) if learns(subject) else ()
    return (usual, usual | {"share": 1.0}, *labels, usual | {"cut": LEAVES}, usual | {"cut": FIRST, "refit": NOTHING})


def describe(params: Params) -> str:
    """Return what is done to the trees, such as `pruned by 50 % of the trees, leaves fitted to the answers`."""
    cut, fitted = params.get("cut", TREES), params.get("refit", NOTHING)
    words = {TREES: "of the trees", FIRST: "of the trees, the last ones", LEAVES: "of the leaves"}
    parts = [f"pruned by {100 * float(params['ratio']):.3g} % {words[str(cut)]}"] if cut != KEEP else []
    return ", ".join([*parts, *_FITTED[str(fitted)]])


_FITTED = {
    ANSWERS: ["leaves fitted to the answers of all trees"],
    LABELS: ["leaves fitted to labels again"],
    NOTHING: [],
}


def prune(model: Path, params: Params, context: Context) -> Applied | Skipped:
    """Cut the share `params["ratio"]`, 0 to 1, of the trees or leaves of every ensemble, and fit the leaves again."""
    rows = context.calibration or context.training
    if rows is None:
        return Skipped(reason="there are no rows to see on which trees matter")
    if params["granularity"] != STRUCTURED:
        return Skipped(reason="trees have no weights to set to zero; they can be dropped (granularity Structured)")
    proto = onnx.load(model)
    if not _prunable(proto):
        return Skipped(reason=f"no ensemble of {FEWEST} trees or more is left to prune")
    work = _Work(proto, params, context)
    outcome = work.learn() if params.get("refit") == LABELS else work.cut(rows)
    if isinstance(outcome, Skipped):
        return outcome
    target = context.workdir / "model.onnx"
    target.write_bytes(proto.SerializeToString(deterministic=True))
    size = target.stat().st_size / model.stat().st_size
    return Applied(model=target, summary=f"{outcome}, {size:.2f} of the size")


def _prunable(graph: onnx.ModelProto) -> list[onnx.NodeProto]:
    return [node for node in nodes.ensembles(graph) if nodes.count(node) >= FEWEST]


@dataclass(frozen=True)
class _Work:
    """One pruning of one model."""

    proto: onnx.ModelProto
    params: Params
    context: Context

    def cut(self, rows: Rows) -> str:
        """Cut every ensemble, and return how much of it is left, in words."""
        targets = _prunable(self.proto)
        inputs = _inputs(self.proto, targets, sample(rows, self._most(targets), seed=self.context.seed))
        before, after = [], []
        for node, X in zip(targets, inputs, strict=True):
            whole = nodes.read(node)
            part = self._part(whole, X)
            nodes.write(part, node)
            before.append(whole)
            after.append(part)
        return _words(before, after)

    def learn(self) -> str | Skipped:
        """Fit the leaves of the only ensemble to labels, and return what was done, in words."""
        (node, *others), rows = nodes.ensembles(self.proto), self.context.training
        if others:
            return Skipped(reason="it has several ensembles of trees, and labels tell only what all answer together")
        if rows is None or rows.labels is None:
            return Skipped(reason="there are no labelled rows to fit leaves on")
        rows = sample(rows, self._most([node]), seed=self.context.seed)
        ensemble = nodes.read(node)
        (X,) = _inputs(self.proto, [node], rows)
        leaves, _ = ensemble.walk(X)
        sums = ensemble.sums(leaves)
        link = refit.link_of(sums, self._scores(rows), classifies=self.context.task is Task.CLASSIFICATION)
        targets = None if link is None else self._targets(rows, sums.shape[1], link)
        if link is None or targets is None:
            return Skipped(reason="the model makes something of its trees' sums that has no loss here")
        if link is Link.VALUE and not _MIDDLE[0] <= float((targets > sums).mean()) <= _MIDDLE[1]:
            return Skipped(reason="most numbers to predict lie on one side of the answers, so it may predict no mean")
        fitted = refit.to_labels(
            ensemble, leaves, targets, link, hold=float(self.params["hold"]), check_time=self.context.check_time
        )
        nodes.write(monotone.kept(fitted, monotone.directions(ensemble)), node)
        return f"{ensemble.leaves} leaves of {len(ensemble.roots)} trees fitted to {len(rows)} labels"

    def _part(self, whole: Ensemble, X: Array) -> Ensemble:
        """Return what is kept of an ensemble, given its inputs (N, F)."""
        leaves, passed = whole.walk(X)
        self.context.check_time()
        part, is_votes = self._cut(whole, leaves, passed)
        if self.params.get("refit") == ANSWERS:
            ends, _ = part.walk(X)
            fitted = refit.to_answers(
                part, ends, whole.sums(leaves), hold=_HOLD_OF_ANSWERS, check_time=self.context.check_time
            )
            part = _within(fitted, part, votes=is_votes)
        return monotone.kept(shrinking.merged(part), monotone.directions(whole))

    def _cut(self, whole: Ensemble, leaves: Array, passed: Array) -> tuple[Ensemble, bool]:
        """Return what is kept, before its leaves are fitted, and whether the trees are those of a forest that votes."""
        kept, cut = 1 - float(self.params["ratio"]), self.params.get("cut", TREES)
        answers = np.stack([whole.values[leaves[:_ROWS, tree]] for tree in range(len(whole.roots))])
        is_votes = shrinking.are_votes(answers)
        if cut == LEAVES:
            return shrinking.collapsed(whole, passed, max(1, round(whole.leaves * kept))), is_votes
        count = max(1, round(len(whole.roots) * kept))
        if cut == FIRST and not is_votes:
            return whole.trees(_first(whole, kept)), False
        chosen = shrinking.chosen(answers, count)
        part = whole.trees(chosen)
        return replace(part, values=part.values * shrinking.scale_of(answers, chosen)), is_votes

    def _most(self, targets: Sequence[onnx.NodeProto]) -> int:
        """Return the most rows that leaves are fitted on."""
        return min(_FITTED_ROWS, max(_ROWS, _FITTED_LEAVES // max(nodes.count(node) for node in targets)))

    def _scores(self, rows: Rows) -> Array:
        """Return what the model answers to the rows, (N, ...)."""
        output = self.context.signature.score_output
        if output is None:
            return np.zeros((len(rows), 0))
        return np.asarray(session_of(self.proto).run([output.name], dict(rows.inputs))[0])

    def _targets(self, rows: Rows, width: int, link: Link) -> Array | None:
        """Return what the sums are to make (N, K): the numbers, or 1 for the class of a row; None for other labels."""
        labels = rows.answers
        if link in {Link.VALUE, Link.EXP}:
            numbers = np.asarray(labels, dtype=np.float64).reshape(len(rows), -1)
            fits = numbers.shape[1] == width and not (link is Link.EXP and (numbers < 0).any())
            return numbers if fits else None
        classes = self.context.classes or tuple(range(max(2, width)))
        chosen = classes[-1:] if width == 1 else classes
        if len(chosen) != width or not np.isin(labels, classes).all():
            return None
        return np.stack([labels == name for name in chosen], axis=1).astype(np.float64)


def _first(whole: Ensemble, kept: float) -> Array:
    """Return which trees are the first ones (T,). A tree of one leaf is where the sums start from, and stays."""
    starts = whole.is_leaf[whole.roots]
    return np.asarray(starts | (np.cumsum(~starts) <= max(1, round(float((~starts).sum()) * kept))))


def _within(fitted: Ensemble, before: Ensemble, *, votes: bool) -> Ensemble:
    """Return the ensemble with leaves that stay shares or votes where they were: none negative, none above all others.

    Args:
        fitted: The ensemble after its leaves were fitted.
        before: The same before.
        votes: Whether each leaf must sum up to what it did.
    """
    if (before.values < 0).any():
        return fitted
    values = np.clip(fitted.values, 0, before.values.max(axis=0))
    if votes:
        total, wanted = values.sum(axis=1, keepdims=True), before.values.sum(axis=1, keepdims=True)
        values = np.where(total > 0, values * wanted / np.where(total > 0, total, 1), before.values)
    return replace(fitted, values=values)


def _words(before: Sequence[Ensemble], after: Sequence[Ensemble]) -> str:
    (trees, leaves), (all_trees, all_leaves) = (
        (sum(len(part.roots) for part in parts), sum(part.leaves for part in parts)) for parts in (after, before)
    )
    return f"{trees} of {all_trees} trees and {leaves} of {all_leaves} leaves kept"


def _inputs(proto: onnx.ModelProto, targets: Sequence[onnx.NodeProto], rows: Rows) -> list[Array]:
    """Return the input of each node, (N, F), when the model runs on the rows."""
    names = [node.input[0] for node in targets]
    model_inputs = {value.name for value in proto.graph.input}
    inner = [name for name in dict.fromkeys(names) if name not in model_inputs]
    tensors = dict(rows.inputs)
    if inner:
        opened = onnx.ModelProto()
        opened.CopyFrom(proto)
        del opened.graph.output[:]
        opened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in inner)
        tensors |= dict(zip(inner, session_of(opened).run(inner, dict(rows.inputs)), strict=True))
    return [np.asarray(tensors[name]) for name in names]
