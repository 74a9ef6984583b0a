"""How good answers to the validation rows are, by the metrics that the objectives of a search name."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers
from optimizer_jobs.measure.by_size import BySize, answers_by_size
from optimizer_jobs.measure.metrics.evaluation import Evaluation
from optimizer_jobs.measure.mix import served_mix
from optimizer_jobs.measure.quality import MAIN, evaluate, measured_metrics
from optimizer_jobs.measure.yardstick import Yardstick
from optimizer_jobs.models.bundle import Manifest
from optimizer_jobs.models.runtime import Session
from optimizer_jobs.study.objectives import limits
from optimizer_jobs.study.prospects import standard_error
from retune.api.metrics import Metric
from retune.api.objectives import Objective
from retune.api.search import Serving


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Asks models for the validation rows, and says how good their answers are."""

    manifest: Manifest
    """Of the model as delivered."""
    rows: Rows
    objectives: Sequence[Objective]
    serving: Serving
    yardstick: Yardstick

    @property
    def held(self) -> tuple[Objective, ...]:
        """The objectives that limit quality, in their order."""
        return tuple(limit for limit in limits(self.objectives) if limit.metric in self._metrics)

    def answers(self, session: Session, rows: Rows) -> BySize:
        """Return a model's answers to rows, in requests of each size that serves."""
        mix, keep_outputs = served_mix(self.serving, session.signature), self.yardstick.reads_outputs
        return answers_by_size(self.manifest, session, rows, mix, keep_outputs=keep_outputs)

    def worst(self, session: Session, delivered: Answers) -> Answers:
        """Return a model's answers to the validation rows, at the size of requests at which they are worst."""
        metric = self.held[0].metric if self.held else MAIN[self.manifest.task][0]

        def goodness(answers: Answers) -> float:
            value = self.evaluation(metric, answers, delivered).value
            return value if metric.higher_is_better else -value

        return self.answers(session, self.rows).worst(goodness)

    def evaluation(self, metric: Metric, answers: Answers, delivered: Answers) -> Evaluation:
        """Return a metric of answers; `delivered` are those of the model as delivered, for metrics that compare."""
        return evaluate(metric, answers, self.rows, reference=delivered, yardstick=self.yardstick)

    def quality(self, answers: Answers, delivered: Answers) -> dict[Metric, float]:
        """Return the quality metrics of task and objectives."""
        return {metric: self.evaluation(metric, answers, delivered).value for metric in self._metrics}

    def errors(self, answers: Answers, *, champion: Answers, delivered: Answers) -> dict[str, float]:
        """Return, by metric with a limit on quality, the standard error of the number that the limit applies to."""
        at = partial(self.evaluation, delivered=delivered)
        return {
            limit.metric.value: standard_error(limit, at(limit.metric, champion), at(limit.metric, answers))
            for limit in self.held
        }

    @property
    def _metrics(self) -> tuple[Metric, ...]:
        return measured_metrics(self.manifest.task, self.objectives, self.yardstick)
