"""The quality of champion and finalists on the test rows, in requests of every size that serves.

Where answers depend on the rows beside them, the size counts at which a finalist does worst against the champion.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from optimizer_jobs.commands.judge.rules import Entrant, Rules
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.errors import JobError
from optimizer_jobs.machinery.robust.attack import method_for, withstood
from optimizer_jobs.measure.answers import Answers
from optimizer_jobs.measure.by_size import BySize, answers_by_size
from optimizer_jobs.measure.custom import CustomMetricError
from optimizer_jobs.measure.metrics.evaluation import Evaluation, mean_of
from optimizer_jobs.measure.mix import served_mix
from optimizer_jobs.measure.quality import counted, evaluate, measured_metrics
from optimizer_jobs.measure.unfit import UnfitAnswersError
from optimizer_jobs.models.runtime import open_session
from retune.api.metrics import Metric
from retune.contract.results import Reason

Floats = NDArray[np.float64]
Evaluations = Mapping[Metric, Evaluation]


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The quality of all models. Mappings are by bundle digest."""

    answers: Mapping[str, Answers]
    """Answers to the test rows; of a finalist, those by which it does worst in the main metric."""
    delivered: Answers
    """Answers of the model as delivered."""
    own: Mapping[str, Evaluations]
    """Of a finalist, each metric at the size at which it does worst against the champion."""
    base: Mapping[str, Evaluations]
    """By finalist, the champion's evaluations at the same sizes."""
    worst: Mapping[str, int]
    """The size at which a finalist's main metric counts, of those whose answers depend on the size."""
    attack: str | None
    """The attack that all models were put under for robust accuracy, if an objective needs it."""


def scored(champion: Entrant, finalists: Sequence[Entrant], rows: Rows, *, original: Entrant, rules: Rules) -> Scored:
    """Ask all models, and evaluate their answers.

    Args:
        champion: The champion.
        finalists: The models that may replace it.
        rows: The test rows.
        original: The model as delivered, with which embeddings are compared.
        rules: The rules of the judgement.

    Raises:
        JobError: The outputs of a model do not fit its task.
    """
    entrants = (champion, *finalists)
    delivered = _answers(original, rows, rules)
    answers = {entrant.bundle.digest: _answers(entrant, rows, rules) for entrant in entrants}
    exam = _Exam(rows, delivered, answers, rules, _attack(entrants, rules))
    table = {size: {entrant.bundle.digest: exam.scores(entrant, size) for entrant in entrants} for size in exam.sizes}
    base, usual = champion.bundle.digest, delivered.usual
    chosen = {finalist.bundle.digest: _worst(table, base, finalist.bundle.digest) for finalist in finalists}
    mains = {digest: next(iter(sizes.values())) for digest, sizes in chosen.items()} | {base: usual}

    def at_worst(of: str, digest: str) -> Evaluations:
        return {metric: table[size][of][metric] for metric, size in chosen[digest].items()}

    return Scored(
        answers={digest: answers[digest].at(size) for digest, size in mains.items()},
        delivered=delivered.usual_answers,
        own={base: table[usual][base], **{digest: at_worst(digest, digest) for digest in chosen}},
        base={digest: at_worst(base, digest) for digest in chosen},
        worst={digest: mains[digest] for digest in chosen if len(answers[digest].answers) > 1},
        attack=exam.attack,
    )


def _worst(table: Mapping[int, Mapping[str, Evaluations]], base: str, digest: str) -> dict[Metric, int]:
    """Return by metric the size at which a finalist does worst against the champion, the main metric first."""

    def loss(size: int, metric: Metric) -> float:
        difference = table[size][base][metric].value - table[size][digest][metric].value
        return difference if metric.higher_is_better else -difference

    metrics = next(iter(table.values()))[digest]
    return {metric: max(table, key=partial(loss, metric=metric)) for metric in metrics}


@dataclass(frozen=True)
class _Exam:
    """Evaluates answers to the test rows."""

    rows: Rows
    delivered: BySize
    answers: Mapping[str, BySize]
    rules: Rules
    attack: str | None

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes at which some model answers otherwise than at the usual size, which comes first."""
        every = (self.delivered, *self.answers.values())
        return tuple(dict.fromkeys(size for answers in every for size in answers.answers))

    def scores(self, entrant: Entrant, size: int) -> Evaluations:
        """Return the quality metrics of the objectives and of the task, those of the objectives first."""
        objectives, answers = self.rules.objectives, self.answers[entrant.bundle.digest].at(size)
        yardstick, reference = self.rules.yardstick, self.delivered.at(size)
        metrics = measured_metrics(entrant.bundle.manifest.task, objectives, yardstick)
        score = partial(evaluate, answers=answers, rows=self.rows, reference=reference, yardstick=yardstick)
        try:
            measured = {metric: score(metric) for metric in metrics}
        except UnfitAnswersError as error:
            raise _unfit(entrant, error) from error
        if self.attack is not None:
            right = mean_of(self._withstood(entrant, size, self.attack), is_share=True)
            measured[Metric.ROBUST_ACCURACY] = counted(right, self.rows)
        named = [objective.metric for objective in objectives if objective.metric in measured]
        return {metric: measured[metric] for metric in dict.fromkeys([*named, *measured])}

    def _withstood(self, entrant: Entrant, size: int, attack: str) -> Floats:
        manifest = entrant.bundle.manifest
        return withstood(
            entrant.bundle.model,
            open_session(entrant.bundle, threads_limit=self.rules.threads),
            self.rows,
            method=attack,
            settings=self.rules.attack,
            classes=manifest.classes,
            seed=self.rules.seed,
            reading=manifest.signature.reading,
            batch=size,
        )


def _answers(entrant: Entrant, rows: Rows, rules: Rules) -> BySize:
    manifest = entrant.bundle.manifest
    session = open_session(entrant.bundle, threads_limit=rules.threads)
    mix, keep_outputs = served_mix(rules.serving, session.signature), rules.yardstick.reads_outputs
    try:
        return answers_by_size(manifest, session, rows, mix, keep_outputs=keep_outputs)
    except UnfitAnswersError as error:
        raise _unfit(entrant, error) from error


def _unfit(entrant: Entrant, error: UnfitAnswersError) -> JobError:
    if isinstance(error, CustomMetricError):
        return error.refusal
    fix = "Give a model whose outputs fit spec.model.task and the objectives."
    return JobError(Reason.MODEL_INVALID, entrant.ref.uri, f"{error}.", fix)


def _attack(entrants: Sequence[Entrant], rules: Rules) -> str | None:
    """Return the attack that all models are put under, if an objective needs robust accuracy."""
    if not any(objective.metric is Metric.ROBUST_ACCURACY for objective in rules.objectives):
        return None
    return method_for(entrant.bundle.model for entrant in entrants)
