"""One trial: build the model, check it on a few rows, measure it beside the champion, store its bundle.

A trial never sees the test rows.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from time import monotonic

import numpy as np
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.early_stopping import Watch
from optimizer_jobs.commands.search.kept import KeptInBucket
from optimizer_jobs.commands.search.measuring import SideBySide
from optimizer_jobs.commands.search.sameness import what_runs
from optimizer_jobs.commands.search.space import Plan
from optimizer_jobs.commands.search.validation import Validation
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.answers import Answers, alike, outputs_of
from optimizer_jobs.measure.quality import MAIN, evaluate
from optimizer_jobs.measure.yardstick import PLAIN, Yardstick
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.runtime import EngineOptions, Session, limited, open_model
from optimizer_jobs.stores.published import publish
from optimizer_jobs.study.objectives import limits, rate, shortfall
from optimizer_jobs.study.trials import REJECTED, TrialResult
from optimizer_jobs.technique import ONE_LINE, Context, Subject
from optimizer_jobs.techniques.containment import BrokenTechniqueError
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Built, Step, build
from retune.api.metrics import Metric
from retune.api.model import Task
from retune.api.objectives import Objective
from retune.api.search import Serving
from retune.api.techniques import Adversarial
from retune.api.techniques import Technique as TechniqueSpec

PROXY_ROWS = 100
"""Number of validation rows on which a candidate is checked before it is measured: the proxy rows."""
_BULK = 64
"""Rows of a call that is asked for many rows together."""
PROXY_AGREEMENT = 0.8
"""Smallest share of the proxy rows that a candidate must answer like the champion; below, it is broken."""

_REPORTED = {Task.CLASSIFICATION: Metric.ACCURACY, Task.EMBEDDING: Metric.COSINE}
"""By task, the metric that training reports as quality; for other tasks, it reports none of the objectives' metrics."""


class Unchanged(Exception):  # noqa: N818 - an outcome, not an error
    """The candidate runs what an earlier trial ran; carries the result so far."""

    def __init__(self, result: TrialResult) -> None:
        super().__init__(result.reason)
        self.result = result


class Discarded(Exception):  # noqa: N818 - an outcome, not an error
    """The candidate is not worth a full measurement; carries the result so far."""

    def __init__(self, result: TrialResult) -> None:
        super().__init__(result.reason)
        self.result = result


@dataclass(frozen=True)
class Reference:
    """What candidates are compared with."""

    session: Session
    """The champion, opened."""
    answers: Answers
    """The champion's answers to the validation rows."""
    delivered: Answers
    """Answers of the model as delivered to the validation rows, with which embeddings are compared."""
    quality: Mapping[Metric, float]
    """The champion's quality on the validation rows."""
    size_bytes: int
    """Size of the champion."""
    seconds: float
    """How long the champion took to answer the validation rows, once in requests of each size that serves."""


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything that the trials of one worker share."""

    original: Bundle
    champion: Bundle
    subject: Subject
    training: Rows | None
    validation: Rows
    calibration: Rows | None
    objectives: Sequence[Objective]
    threads: int
    serving: Serving = field(default_factory=Serving)
    attack: Adversarial = field(default_factory=Adversarial)
    """The attack under which robust accuracy is measured."""
    yardstick: Yardstick = PLAIN
    """What the owner measures quality by."""
    seed: int
    scratch: Path
    kept_steps: Path
    """Folder of finished steps, which trials with the same steps reuse."""
    elsewhere: KeptInBucket | None = None
    """Where workers that do not share that folder give each other finished steps."""
    candidates_uri: str
    """URI of the folder for the candidates' bundles."""
    lineage: Lineage
    identity: str
    """Digest of everything that a step's result depends on besides model, parameters and seed."""
    rejected: frozenset[str] = frozenset()
    """Digests of bundles that are not proposed again."""

    @cached_property
    def reference(self) -> Reference:
        """The champion, opened, with its answers and its quality."""
        session = open_model(self.champion.model, self._limited(self.champion.manifest.engine))
        began = monotonic()
        answers = self._validated.answers(session, self.validation).usual_answers
        seconds = monotonic() - began
        delivered = answers
        if self.original.digest != self.champion.digest:
            original = open_model(self.original.model, self._limited(self.original.manifest.engine))
            delivered = self._validated.answers(original, self.validation).usual_answers
        return Reference(
            session=session,
            answers=answers,
            delivered=delivered,
            quality=self._validated.quality(answers, delivered),
            size_bytes=self.champion.manifest.size_bytes,
            seconds=seconds,
        )

    def run(
        self,
        plan: Plan,
        *,
        number: int,
        watch: Watch | None = None,
        earlier: Callable[[str], int | None] = lambda _: None,
    ) -> TrialResult:
        """Build, check, measure and store the model of a plan.

        Args:
            plan: What is done to the model, and how it is run.
            number: The trial's number for people.
            watch: Is told of every step and epoch, and may raise StoppedEarlyError.
            earlier: Returns the number of an earlier trial that runs what has this digest, or None.

        Raises:
            Unchanged: An earlier trial runs the same.
            Discarded: The model is broken, or the same bundle was rejected before.
        """
        if self.elsewhere is not None:
            self.elsewhere.make_room()
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            built = self._built(plan, Path(folder), watch)
            runs = what_runs(built.model, plan.engine, scratch=Path(folder))
            result = replace(_result(plan, built), one_line=self._is_one_line(plan), runs=runs)
            if (fault := self.subject.limits.fault(built.model)) is not None:
                raise Discarded(replace(result, reason=f"{self.subject.limits.engine_words} cannot run it: {fault}"))
            if (same := earlier(runs)) is not None:
                raise Unchanged(replace(result, reason=f"it runs the same as trial {same}"))
            session = open_model(built.model, plan.engine)
            result = self._checked(result, session)
            bundle = self._bundle(Path(folder) / "bundle", plan=plan, built=built, session=session, number=number)
            if bundle.digest in self.rejected:
                raise Discarded(replace(result, reason=REJECTED))
            ref = publish(bundle, uri=self.candidates_uri)
            return self._measured(result, session=session, bundle=bundle, uri=ref.uri)

    def bulk_seconds(self) -> float:
        """Return the time in which the champion answers a row when many are asked together, as in training.

        Rows that can only be asked one by one are.
        """
        began, signature = monotonic(), self.original.manifest.signature
        singly = signature.reading is not None and signature.reading.singly
        outputs_of(self.reference.session, self._proxy, signature.batch or (1 if singly else _BULK))
        return (monotonic() - began) / len(self._proxy)

    def _built(self, plan: Plan, folder: Path, watch: Watch | None) -> Built:
        context = self._context(folder)
        built_by = partial(build, self.original.model, plan.steps, kept=self.kept_steps, elsewhere=self.elsewhere)
        if watch is None:
            return built_by(context=context)
        context = replace(context, report=watch.report, alive=watch.alive, seconds_left=watch.seconds_left)
        built = built_by(context=context, entering=watch.entering)
        watch.entering("measuring")
        return built

    def _checked(self, result: TrialResult, session: Session) -> TrialResult:
        """Return the result with the agreement on the proxy rows; raises Discarded when the model is broken.

        A model is broken when it answers too differently from the champion and is worse by the labels. Training may
        well change many answers for the better.
        """
        proxy, reference = self._proxy, self.reference
        answers = self._validated.answers(session, proxy).usual_answers
        champion = reference.answers.take(self._proxy_indices)
        agreement = float(alike(champion, answers).mean())
        metric, delivered = MAIN[self._task][0], reference.delivered.take(self._proxy_indices)
        measured = partial(evaluate, metric, rows=proxy, reference=delivered)
        mine, theirs = measured(answers).value, measured(champion).value
        worse = mine < theirs if metric.higher_is_better else mine > theirs
        if worse and agreement < PROXY_AGREEMENT:
            reason = f"agrees with the champion on {agreement:.0%} of {len(proxy)} rows only"
            raise Discarded(replace(result, agreement=agreement, reason=reason, broken=True))
        return replace(result, agreement=agreement)

    def does_nothing(self, spec: TechniqueSpec) -> str | None:
        """Return why a cheap technique leaves the model as it is, even in its most thorough variant.

        None when it changes the model, or when the technique is not cheap.
        """
        technique = TECHNIQUES[spec.type]
        if not technique.CHEAP:
            return None
        most_thorough = technique.defaults(spec, self.subject)[-1]
        params = technique.suggest(FixedTrial(most_thorough), spec, self.subject)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            step = Step(name=spec.name, type=spec.type, params=params or {})
            try:
                built = build(self.original.model, [step], context=self._context(Path(folder)), kept=self.kept_steps)
            except BrokenTechniqueError as broken:
                return str(broken)
        return next(iter(built.skipped), None)

    def _measured(self, result: TrialResult, *, session: Session, bundle: Bundle, uri: str) -> TrialResult:
        reference, size = self.reference, bundle.manifest.size_bytes
        answers, usage = self._validated.worst(session, reference.delivered), self._beside.usage(bundle)
        champion = {**reference.quality, Metric.SIZE_BYTES: float(reference.size_bytes)}
        values = {**self._validated.quality(answers, reference.delivered), Metric.SIZE_BYTES: float(size)}
        for metric, (theirs, ours) in self._beside.compare(bundle, session, usage).items():
            champion[metric], values[metric] = theirs, ours
        rating = rate(self.objectives, values=_named(values), champion=_named(champion))
        return replace(
            result,
            uri=uri,
            digest=bundle.digest,
            control=self._is_champion(bundle),
            size_bytes=size,
            values=_named(values),
            champion=_named(champion),
            shortfalls=self._beside.with_memory(rating.shortfalls, usage),
            errors=self._validated.errors(answers, champion=reference.answers, delivered=reference.delivered),
            rows=self.validation.effective,
            costs=rating.costs,
        )

    @cached_property
    def _beside(self) -> SideBySide:
        return SideBySide(
            champion=self.champion,
            session=self.reference.session,
            rows=self.validation,
            objectives=self.objectives,
            threads=self.threads,
            serving=self.serving,
            attack=self.attack,
            classes=self.original.manifest.classes,
            seed=self.seed,
        )

    @cached_property
    def _validated(self) -> Validation:
        return Validation(
            manifest=self.original.manifest,
            rows=self.validation,
            objectives=self.objectives,
            serving=self.serving,
            yardstick=self.yardstick,
        )

    def _bundle(self, folder: Path, *, plan: Plan, built: Built, session: Session, number: int) -> Bundle:
        manifest = self.original.manifest
        return make_bundle(
            folder,
            model=built.model,
            engine=plan.engine,
            signature=manifest.signature,
            classes=manifest.classes,
            task=manifest.task,
            native=self._native(built),
            techniques=built.applied,
            accepts_missing=bool(manifest.accepts_missing),
            lineage=self.lineage.model_copy(update={"trial": number}),
            golden=record(session, self.validation, sizes=[size for size, _ in self.serving.mix]),
        )

    def _native(self, built: Built) -> Native | None:
        """Return the candidate in the format that the model was delivered in, if its steps produced it."""
        native = self.original.native
        if native is None or built.native is None:
            return None
        return replace(native, path=built.native, factory=built.factory or native.factory)

    def _context(self, folder: Path) -> Context:
        return Context(
            workdir=folder,
            signature=self.original.manifest.signature,
            task=self.original.manifest.task,
            classes=self.original.manifest.classes,
            native=self.original.native,
            training=self.training,
            validation=self.validation,
            calibration=self.calibration,
            threads=self.threads,
            seed=self.seed,
            cpu_flags=self.subject.cpu_flags,
            shortfall=self._quality_shortfall(),
            identity=self.identity,
        )

    def enough(self, quality: float) -> bool:
        """Return whether a quality that training reports keeps the limit on it; False when there is no limit."""
        metric = _REPORTED.get(self.original.manifest.task)
        limit = next((limit for limit in limits(self.objectives) if limit.metric is metric), None)
        if limit is None:
            return False
        return shortfall(limit, quality, self.reference.quality[limit.metric]) <= 0

    def _quality_shortfall(self) -> Callable[[Path], float] | None:
        """Return a function that says how far a model file misses the first quality limit; None without a limit."""
        limit = next(iter(self._validated.held), None)
        if limit is None:
            return None

        def missed(model: Path) -> float:
            delivered = self.reference.delivered
            answers = self._validated.worst(open_model(model, EngineOptions(threads=self.threads)), delivered)
            value = self._validated.evaluation(limit.metric, answers, delivered).value
            return shortfall(limit, value, self.reference.quality[limit.metric])

        return missed

    def _is_one_line(self, plan: Plan) -> bool:
        """Return whether a plan is what a user would try in one line, in the usual engine with its defaults."""
        as_one_line = [bool(step.params.get(ONE_LINE)) for step in plan.steps] == [True]
        return as_one_line and plan.engine == EngineOptions(threads=self.threads)

    def _is_champion(self, bundle: Bundle) -> bool:
        mine, theirs = bundle.manifest, self.champion.manifest
        return (mine.model_digest, mine.engine) == (theirs.model_digest, self._limited(theirs.engine))

    @property
    def _task(self) -> Task:
        return self.original.manifest.task

    def _limited(self, engine: EngineOptions) -> EngineOptions:
        return limited(engine, self.threads)

    @cached_property
    def _proxy_indices(self) -> np.ndarray:
        return np.sort(np.random.default_rng(self.seed).permutation(len(self.validation))[:PROXY_ROWS])

    @cached_property
    def _proxy(self) -> Rows:
        return replace(self.validation.take(self._proxy_indices), weights=None)


def _result(plan: Plan, built: Built) -> TrialResult:
    return TrialResult(
        plan=plan.words,
        steps=plan.names,
        techniques=built.applied,
        skipped=built.skipped,
        idle=built.idle,
        engine=plan.engine.model_dump(mode="json"),
    )


def _named(values: Mapping[Metric, float]) -> dict[str, float]:
    return {metric.value: values[metric] for metric in Metric if metric in values}
