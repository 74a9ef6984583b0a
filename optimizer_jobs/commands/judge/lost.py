"""What the limits of a server cost the winner: how fast it would be with options that only Retune's runtime has.

Measured for the winner alone, with options that leave its answers as they are, in turns with the winner as its server
runs it. Nothing is claimed that this comparison does not prove.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import onnx

from optimizer_jobs.commands.judge import words
from optimizer_jobs.commands.judge.evidence import LATENCIES
from optimizer_jobs.commands.judge.measuring import engine_of, raced, session_of
from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.commands.judge.served import Through
from optimizer_jobs.commands.judge.verdict import Decision, latency_of
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.latency import Effort, ratio
from optimizer_jobs.measure.mix import typical_request
from optimizer_jobs.measure.stats import Interval
from optimizer_jobs.models.engine import EngineError, Session
from optimizer_jobs.models.fixed import row_axis
from optimizer_jobs.models.runtime import open_model
from optimizer_jobs.progress import say
from retune.api.metrics import Metric
from retune.contract.results import Verdict

_SERVED = "as served"
_CLOSE, _MOST_SECONDS = 0.02, 10.0
"""Precision and time of the comparison, on which no verdict depends."""


@dataclass(frozen=True)
class Lost:
    """What the server's limits cost."""

    lines: tuple[str, ...]
    """What the report says, each as a sentence."""
    sentence: str | None = None
    """What the verdict says, where a loss is proven."""

    def told_by(self, decision: Decision) -> Decision:
        """Return the decision with the sentence in its message."""
        return replace(decision, message=f"{decision.message} {self.sentence}") if self.sentence else decision

    def and_found(self, found: "_Found") -> "Lost":
        """Return all of it, with what the winner loses."""
        told = [self.sentence, found.line if found.proven else None]
        return Lost((*self.lines, found.line), " ".join(filter(None, told)) or None)


def lost_to_server(
    decision: Decision,
    entrants: Sequence[Entrant],
    rows: Rows,
    *,
    champion: Entrant,
    rules: Rules,
    effort: Effort,
    served: Through | None = None,
) -> Lost | None:
    """Return what the server's limits cost; None where it has none.

    Args:
        decision: The verdict.
        entrants: The finalists.
        rows: The test rows, of which only the inputs are used.
        champion: The champion.
        rules: The rules of the judgement.
        effort: How long the judge measures.
        served: The server itself, where all were measured through it.
    """
    limits = rules.limits
    if limits.free:
        return None
    measured = _through(served, told=not decision.findings) if served else _without(champion, rules)
    said = replace(measured, lines=(limits.words, *measured.lines))
    if decision.verdict is not Verdict.PROMOTE or decision.subject is None:
        return said
    digest = decision.subject.contender.bundle.digest
    winner = next(entrant for entrant in entrants if entrant.bundle.digest == digest)
    found = _measured(winner, rows, rules, effort)
    return said.and_found(found) if found else said


def _through(served: Through, *, told: bool) -> Lost:
    """Return what is said where the server itself was measured: nothing of its engine is in doubt then.

    Args:
        served: All models as the server serves them.
        told: Whether the verdict tells already which finalists have lost in it.
    """
    out = tuple(out.sentence for out in served.out)
    return Lost((served.words, *out), " ".join([served.words, *(() if told else out)]))


def _without(champion: Entrant, rules: Rules) -> Lost:
    """Return what is in doubt, because an engine was measured and no server."""
    limits, image = rules.limits, rules.serving.image
    fault = limits.fault(champion.bundle.model)
    absent = f"Image {image} was not measured: only a judge in a cluster has it beside itself." if image else None
    of_champion = f"{limits.engine_words} cannot run the champion itself: {fault}." if fault else None
    return Lost(tuple(filter(None, (absent, limits.doubt, of_champion))), absent)


@dataclass(frozen=True)
class _Found:
    line: str
    proven: bool


def _measured(winner: Entrant, rows: Rows, rules: Rules, effort: Effort) -> _Found | None:
    """Return how much faster the winner would be with the best options that its server lacks; None without any."""
    sessions = _beyond(winner, rows, rules)
    if not sessions:
        return None
    say(f"  what {rules.limits.server} cannot express: {words.listed([*sessions])}")
    short = replace(effort, half_width=_CLOSE, max_seconds=min(effort.max_seconds, _MOST_SECONDS))
    served, twin = session_of(winner, rules), session_of(winner, rules)
    subjects = {_SERVED: served, **sessions}
    timings, node = raced(subjects, rows, twin=twin, reference=_SERVED, rules=rules, effort=short)
    if node.noise is not None:
        return _Found(f"What that costs cannot be judged on this node: {node.noise}.", proven=False)
    metric, confidence = latency_of(rules.objectives), 1 - (1 - rules.confidence) / len(sessions)
    slower = partial(ratio, b=timings[_SERVED], q=LATENCIES[metric], confidence=confidence)
    found = {name: slower(timings[name]).widened(node.widening) for name in sessions}
    return _found(found, metric, rules.limits.server)


def _beyond(winner: Entrant, rows: Rows, rules: Rules) -> dict[str, Session]:
    """Return the winner, opened with each set of options that its server lacks, without those that do not open."""
    options, bundle = engine_of(winner, rules), winner.bundle
    signature, size = bundle.manifest.signature, rules.serving.only_size
    fixed = row_axis(onnx.load(bundle.model, load_external_data=False)) is not None
    typical = typical_request(rows, signature, batch=signature.batch or size) if size else {}
    opened = {}
    for name, other in rules.limits.beyond(options, rows=size if fixed else None, planned=typical).items():
        with suppress(EngineError):
            opened[name] = open_model(bundle.model, other)
    return opened


def _found(slower: Mapping[str, Interval], metric: Metric, server: str) -> _Found:
    """Return the largest loss that is proven, in words; or that none is.

    Args:
        slower: By options that the server lacks, the latency as served divided by that with the options.
        metric: The latency metric that is compared.
        server: The server in sentences.
    """
    name, most = max(slower.items(), key=lambda item: item[1].low)
    label = words.LABELS[metric]
    if most.low <= 1:
        line = f"It is not proven that this costs speed: with {name}, {label} of the winner was x{1 / most.value:.2f}."
        return _Found(line, proven=False)
    span = f"{most.low:.2f}..{most.high:.2f}"
    slower_by = f"{label} is {most.value:.2f}x slower ({span}) than with Retune's runtime"
    return _Found(f"{server} cannot express {name}: {slower_by}.", proven=True)
