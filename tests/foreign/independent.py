"""Is a run right? Version 1, the numbers and the verdict, each recomputed from files and data without our code."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from tests.foreign.answers import AT_ONCE, MANIFEST, MODEL, Outputs, answer_bundle
from tests.foreign.delivered import Array, Delivered
from tests.foreign.figures import FIDELITY, Limit, Reading, drawn, figure, is_text, limits, read
from tests.foreign.local import Ended

_PROBABILITY = 1e-4
"""What a probability of version 1 may differ by, and other numbers in units of their standard deviation."""
_PRINTED = 2e-4
"""What numbers of a verdict may differ by, relative to 1 or to themselves: they are printed with six digits."""
_DRAWS = 200
_HARMFUL = 0.1
"""Largest share of draws with replacement that may miss a limit where a winner is said to keep it."""
_CONSTANT = 0.1
_NAMES = {"label": "iuOUS", "probabilities": "f", "value": "f"}
"""What native answers are called here, and the kinds of the ONNX outputs that hold them."""

VERDICTS = {"Promote": 0, "NoGain": 0, "GateFailed": 1}
"""Exit code of each verdict."""
_BELOW = {"AccuracyBelowMargin", "QualityBelowMargin", "TooFewTestRows"}


def check_version_1(ended: Ended, delivered: Delivered) -> None:
    """Version 1 answers all test rows as the model's own library does."""
    _check_files(ended.champion)
    outputs = answer_bundle(ended.champion, delivered.rows, at_once=AT_ONCE)  # as its own library was asked
    for name, native in delivered.native.items():
        _check_alike(_output(outputs, name), native, name, deviants=delivered.deviants)


def check_candidate(ended: Ended, delivered: Delivered) -> None:
    """Every number of the comparison that is no time is what the files answer and weigh."""
    champion = read(answer_bundle(ended.champion, delivered.rows), delivered)
    folder = ended.candidate
    candidate = None
    if folder is not None:
        _check_files(folder)
        _check_form(ended.champion, folder)
        candidate = read(answer_bundle(folder, delivered.rows), delivered)
    for comparison in ended.document["comparisons"]:
        _check_value(comparison, "champion", ended.champion, champion, delivered, reference=champion)
        if folder is not None and candidate is not None:
            _check_value(comparison, "candidate", folder, candidate, delivered, reference=champion)


def check_verdict(ended: Ended, delivered: Delivered) -> None:
    """The verdict follows from the numbers: a winner keeps every limit and gains, all else leaves the champion."""
    document = ended.document
    verdict = document["verdict"]
    assert ended.code == VERDICTS[verdict], ended.said
    if verdict != "Promote":
        assert document["paths"]["bundle"] is None
        assert verdict == "NoGain" or document["reason"] not in _BELOW or _misses(document, delivered), document
        return
    winner = ended.folder / document["paths"]["bundle"]
    champion = read(answer_bundle(ended.champion, delivered.rows), delivered)
    answers = read(answer_bundle(winner, delivered.rows), delivered)
    assert answers.spread >= _CONSTANT * champion.spread
    for limit in _limits(document, delivered):
        if _measured(limit.metric, document):
            _check_kept(limit, champion, answers, delivered)
    _check_gain(ended, winner)


def _limits(document: Mapping[str, Any], delivered: Delivered) -> list[Limit]:
    """Return what the documentation holds the model to, taken for what the run has taken it for."""
    names = {comparison["name"] for comparison in document["comparisons"]}
    return limits(delivered, is_generic=delivered.labels is None and FIDELITY in names)


def _output(outputs: Outputs, name: str) -> Array:
    """Return an ONNX output by its own name, or by what it holds."""
    if name in outputs:
        return outputs[name]
    fitting = [values for values in outputs.values() if values.dtype.kind in _NAMES[name]]
    assert len(fitting) == 1, f"no single output holds {name}: {list(outputs)}"
    return fitting[0]


def _check_alike(ours: Array, native: Array, name: str, *, deviants: float) -> None:
    ours = ours.reshape(native.shape)
    if is_text(native) or native.dtype.kind in "iub":
        differ = ours.astype(str) != native.astype(str)
    else:
        allowed = _PROBABILITY if name == "probabilities" else _PROBABILITY * max(float(np.std(native)), 1e-6)
        differ = ~np.isclose(ours.astype(np.float64), native.astype(np.float64), rtol=0, atol=allowed, equal_nan=True)
    rows = differ.reshape(len(differ), -1).any(axis=1)
    assert rows.sum() <= max(1, deviants * len(rows)), f"{name} differs in {rows.sum()} of {len(rows)} rows"


def _check_files(folder: Path) -> None:
    """Every file of a bundle has the digest that its manifest says."""
    manifest = json.loads((folder / MANIFEST).read_text())
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == digest.removeprefix("sha256:"), name


def _check_form(champion: Path, candidate: Path) -> None:
    """A candidate is called as the champion is called."""
    assert _form(champion) == _form(candidate)


def _form(folder: Path) -> list[tuple[str, int, int]]:
    graph = onnx.load(folder / MODEL, load_external_data=False).graph
    tensors = [(value.name, value.type.tensor_type) for value in (*graph.input, *graph.output)]
    return [(name, kind.elem_type, len(kind.shape.dim)) for name, kind in tensors]


def _check_value(
    comparison: Mapping[str, Any],
    whose: str,
    folder: Path,
    answers: Reading,
    delivered: Delivered,
    *,
    reference: Reading,
) -> None:
    name, said = comparison["name"], float(comparison[whose]["value"])
    expected = _size(folder) if name == "size_bytes" else figure(name, answers, delivered, reference=reference)
    if expected is None:
        return
    rows = 1.5 / len(next(iter(delivered.rows.values())))
    allowed = max(_PRINTED * max(1.0, abs(expected)), rows if expected <= 1 else 0.0)
    assert abs(said - expected) <= allowed, f"{name} of the {whose} is {expected}, and the verdict says {said}"


def _size(folder: Path) -> float:
    """Return the bytes of the model file with its external data."""
    manifest = json.loads((folder / MANIFEST).read_text())
    others = {"golden.json", *([manifest["native"]["file"]] if manifest.get("native") else [])}
    return float(sum((folder / name).stat().st_size for name in manifest["files"] if name not in others))


def _measured(metric: str, document: Mapping[str, Any]) -> bool:
    """Return whether the verdict speaks of a metric; only models without probabilities may leave theirs out."""
    names = {comparison["name"] for comparison in document["comparisons"]}
    assert metric in names or metric == "d2_brier_score", f"the verdict does not speak of {metric}"
    return metric in names


def _check_kept(limit: Limit, champion: Reading, winner: Reading, delivered: Delivered) -> None:
    """The winner keeps a limit on the test rows, and in nearly all draws of them with replacement."""
    before = figure(limit.metric, champion, delivered, reference=champion)
    after = figure(limit.metric, winner, delivered, reference=champion)
    assert before is not None
    assert after is not None
    assert limit.kept(before, after), f"{limit.metric} {before} -> {after} misses {limit.allowed(before)}"
    if delivered.labels is None:
        return
    labels, random = delivered.labels, np.random.default_rng(0)
    missed = [
        not limit.kept(drawn(limit.metric, champion, labels, rows), drawn(limit.metric, winner, labels, rows))
        for rows in _draws(random, len(labels))
    ]
    assert np.mean(missed) <= _HARMFUL, f"{np.mean(missed):.0%} of draws miss the limit on {limit.metric}"


def _draws(random: np.random.Generator, rows: int) -> list[NDArray[np.int64]]:
    return [random.integers(0, rows, rows) for _ in range(_DRAWS)]


def _check_gain(ended: Ended, winner: Path) -> None:
    """A winner is smaller by what is said, where it is said to be smaller."""
    if "Smaller" in ended.document["reason"]:
        assert _size(winner) <= 0.95 * _size(ended.champion)
    assert winner != ended.champion


def _misses(document: Mapping[str, Any], delivered: Delivered) -> bool:
    """Return whether the bad end of some interval of the verdict misses a limit, as a refusal must show."""
    said = {comparison["name"]: comparison for comparison in document["comparisons"]}
    return any(_may_miss(limit, said[limit.metric]) for limit in _limits(document, delivered) if limit.metric in said)


def _may_miss(limit: Limit, comparison: Mapping[str, Any]) -> bool:
    champion, candidate, change = (comparison[part] for part in ("champion", "candidate", "change"))
    before, end = float(champion["value"]), "low" if limit.higher_is_better else "high"
    relative = before + float(change.get(end, change["value"]))
    own = float(candidate.get(end, candidate["value"]))
    return not limit.kept(before, relative) or not limit.kept(before, own)
