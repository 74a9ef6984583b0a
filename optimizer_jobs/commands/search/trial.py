"""One trial: build the model, look at it cheaply, measure it beside the champion, store its bundle.

A trial sees training, calibration and validation rows, never the test split. Its latency is only a hint for the
search: short, interleaved with the champion, and measured again by the judge.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property, partial
from pathlib import Path

import numpy as np
from optuna.trial import FixedTrial

from optimizer_jobs.commands.search.space import Plan
from optimizer_jobs.commands.search.stopping import Watch
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.machinery.robust.attack import method_for, withstood
from optimizer_jobs.measure.confinement import confined, confinement
from optimizer_jobs.measure.latency import interleave, ratio
from optimizer_jobs.measure.quality import MAIN, Answers, alike, answer, figure, scores
from optimizer_jobs.measure.resources import RESOURCES, Served, Usage, measure_resources
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle, publish
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.native import Native
from optimizer_jobs.models.runtime import EngineOptions, Session, limited, open_model
from optimizer_jobs.study.objectives import cost, limits, ranked, shortfall
from optimizer_jobs.study.prospects import standard_error
from optimizer_jobs.study.trials import Found
from optimizer_jobs.technique import Context, Subject
from optimizer_jobs.techniques.registry import TECHNIQUES
from optimizer_jobs.techniques.steps import Built, Step, build
from retune.api.model import Task
from retune.api.objectives import Metric, Objective
from retune.api.quantities import memory_bytes
from retune.api.search import Serving
from retune.api.techniques import Adversarial
from retune.api.techniques import Technique as TechniqueSpec

PROXY_ROWS = 100
PROXY_AGREEMENT = 0.8
"""A candidate that answers fewer of the proxy rows like the champion is broken, not compressed."""
_BLOCKS, _CALLS = 12, 25
_QUANTILES = {Metric.LATENCY_P50_MS: 0.5, Metric.LATENCY_P95_MS: 0.95}

_REPORTED = {Task.CLASSIFICATION: Metric.ACCURACY, Task.EMBEDDING: Metric.COSINE}
"""What training reports as quality, where objectives speak of the same."""


_CHAMPION, _CANDIDATE = "champion", "candidate"


class Discarded(Exception):  # noqa: N818 - an outcome, not an error
    """The candidate is not worth a full measurement; carries what was found so far."""

    def __init__(self, found: Found) -> None:
        super().__init__(found.reason)
        self.found = found


@dataclass(frozen=True)
class Reference:
    """The champion as the search compares with it."""

    session: Session
    answers: Answers
    """To the validation rows."""
    delivered: Answers
    """The same of the model as delivered, which embeddings are compared with."""
    quality: Mapping[Metric, float]
    """Figures on the validation rows."""
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything the trials of one worker share."""

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
    """What robust accuracy is measured against."""
    seed: int
    scratch: Path
    kept_steps: Path
    candidates_uri: str
    lineage: Lineage
    identity: str
    rejected: frozenset[str] = frozenset()
    """Digests of bundles that are not proposed again."""

    @cached_property
    def reference(self) -> Reference:
        """The champion, opened and asked once."""
        session = open_model(self.champion.model, self._limited(self.champion.manifest.engine))
        found = self._answer(session, self.validation)
        original = open_model(self.original.model, self._limited(self.original.manifest.engine))
        delivered = self._answer(original, self.validation)
        return Reference(
            session=session,
            answers=found,
            delivered=delivered,
            quality=self._quality(found, delivered),
            size_bytes=self.champion.manifest.size_bytes,
        )

    def run(self, plan: Plan, *, number: int, watch: Watch | None = None) -> Found:
        """Return what the plan is worth; raises Discarded when the proxy finds it broken.

        `watch` hears of every step and epoch, and may raise StoppedEarlyError.
        """
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            context = self._context(Path(folder))
            if watch is not None:
                context = replace(context, report=watch.report, alive=watch.alive)
            entering = watch.entering if watch else None
            built = build(self.original.model, plan.steps, context=context, kept=self.kept_steps, entering=entering)
            if watch is not None:
                watch.entering("measuring")
            session = open_model(built.model, plan.engine)
            found = Found(
                plan=plan.words,
                steps=plan.names,
                techniques=built.applied,
                skipped=built.skipped,
                idle=built.idle,
                engine=plan.engine.model_dump(mode="json"),
            )
            found = self._looked_at(found, session)
            bundle = self._bundle(Path(folder) / "bundle", plan=plan, built=built, session=session, number=number)
            if bundle.digest in self.rejected:
                raise Discarded(replace(found, reason="this bundle was rejected before"))
            ref = publish(bundle, uri=self.candidates_uri)
            return self._measured(found, session=session, bundle=bundle, uri=ref.uri)

    def _looked_at(self, found: Found, session: Session) -> Found:
        """Return what is found with the agreement on a few rows; raises Discarded when the model is broken.

        A model that answers otherwise and is better by its labels is not: training may well do that.
        """
        proxy, reference = self._proxy, self.reference
        answers, champion = self._answer(session, proxy), reference.answers.take(self._proxy_index)
        found = replace(found, agreement=float(alike(champion, answers).mean()))
        metric, delivered = MAIN[self._task][0], reference.delivered.take(self._proxy_index)
        mine, theirs = [
            figure(metric, scores(metric, each, proxy, reference=delivered)) for each in (answers, champion)
        ]
        worse = mine < theirs if metric.higher_is_better else mine > theirs
        if worse and (found.agreement or 0.0) < PROXY_AGREEMENT:
            reason = f"agrees with the champion on {found.agreement:.0%} of {len(proxy)} rows only"
            raise Discarded(replace(found, reason=reason, broken=True))
        return found

    def does_nothing(self, spec: TechniqueSpec) -> str | None:
        """Return why a cheap technique leaves the model as it is, even at its most thorough; None for all others."""
        technique = TECHNIQUES[spec.type]
        if not technique.CHEAP:
            return None
        told = technique.defaults(spec, self.subject)[-1]
        params = technique.suggest(FixedTrial(told), spec, self.subject)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            step = Step(name=spec.name, type=spec.type, params=params or {})
            built = build(self.original.model, [step], context=self._context(Path(folder)), kept=self.kept_steps)
        return next(iter(built.skipped), None)

    def _measured(self, found: Found, *, session: Session, bundle: Bundle, uri: str) -> Found:
        reference, size = self.reference, bundle.manifest.size_bytes
        answers = self._answer(session, self.validation)
        champion = {**reference.quality, Metric.SIZE_BYTES: float(reference.size_bytes)}
        quality = self._quality(answers, reference.delivered)
        values = {**quality, Metric.SIZE_BYTES: float(size)}
        usage = self._usage(bundle)
        compared = {**self._robust(bundle, session), **self._latency(session), **self._used(usage)}
        for metric, (theirs, ours) in compared.items():
            champion[metric], values[metric] = theirs, ours
        missed = {o.metric.value: shortfall(o, values[o.metric], champion[o.metric]) for o in limits(self.objectives)}
        return replace(
            found,
            uri=uri,
            digest=bundle.digest,
            control=self._is_champion(bundle),
            size_bytes=size,
            values=_named(values),
            champion=_named(champion),
            shortfalls=self._with_memory(missed, usage),
            errors=self._errors(answers),
            rows=len(self.validation),
            costs=tuple(cost(o.metric, values[o.metric], champion[o.metric]) for o in ranked(self.objectives)),
        )

    def _latency(self, session: Session) -> dict[Metric, tuple[float, float]]:
        """Return champion's and candidate's percentile in ms, the latter by its ratio within the same rounds."""
        with confined(confinement(self.serving, threads=self.threads).cores):
            timings = interleave(
                {_CHAMPION: self.reference.session, _CANDIDATE: session},
                self.validation,
                batch=session.signature.batch or min(self.serving.batch_size, len(self.validation)),
                blocks=_BLOCKS,
                calls_per_block=_CALLS,
                seed=self.seed,
            )
        found: dict[Metric, tuple[float, float]] = {}
        for metric, quantile in _QUANTILES.items():
            champion = timings[_CHAMPION].percentile(quantile).value
            found[metric] = (champion, champion * ratio(timings[_CHAMPION], timings[_CANDIDATE], quantile).value)
        return found

    def _usage(self, bundle: Bundle) -> dict[str, Usage]:
        """Return what champion and candidate use, where an objective or the serving memory asks for it."""
        if not self._resources and self.serving.memory is None:
            return {}
        return measure_resources(
            {_CHAMPION: Served.of(self.champion), _CANDIDATE: Served.of(bundle)},
            self.validation,
            reference=_CHAMPION,
            batch=min(self.serving.batch_size, len(self.validation)),
            threads=self.threads,
            serving=self.serving,
            repeats=1,
            seed=self.seed,
        )

    def _used(self, usage: Mapping[str, Usage]) -> dict[Metric, tuple[float, float]]:
        """Return champion's and candidate's number of every resource asked for, the latter by their ratio."""
        found = {metric: usage[_CHAMPION].metrics[metric].value for metric in self._resources}
        return {metric: (base, base * usage[_CANDIDATE].ratios[metric].value) for metric, base in found.items()}

    def _with_memory(self, missed: dict[str, float], usage: Mapping[str, Usage]) -> dict[str, float]:
        """Return the limits missed, the serving memory that a process must get along with among them."""
        if self.serving.memory is None:
            return missed
        name = Metric.PEAK_MEMORY_BYTES.value
        over = usage[_CANDIDATE].process_bytes - memory_bytes(self.serving.memory)
        return {**missed, name: max(over, missed.get(name, over))}

    @property
    def _resources(self) -> tuple[Metric, ...]:
        asked = {each.metric for each in self.objectives}
        return tuple(metric for metric in Metric if metric in asked & RESOURCES)

    def _quality(self, found: Answers, delivered: Answers) -> dict[Metric, float]:
        """Return every quality figure of the task on validation."""
        rows = self.validation
        return {metric: figure(metric, scores(metric, found, rows, reference=delivered)) for metric in MAIN[self._task]}

    def _errors(self, found: Answers) -> dict[str, float]:
        """Return, for each limit on quality, the standard error of what the judge will hold against it."""
        scored = partial(scores, rows=self.validation, reference=self.reference.delivered)
        return {
            o.metric.value: standard_error(o, scored(o.metric, self.reference.answers), scored(o.metric, found))
            for o in limits(self.objectives)
            if o.metric in MAIN[self._task]
        }

    def _robust(self, bundle: Bundle, session: Session) -> dict[Metric, tuple[float, float]]:
        """Return champion's and candidate's accuracy under the one attack on both, where an objective asks for it."""
        if not any(each.metric is Metric.ROBUST_ACCURACY for each in self.objectives):
            return {}
        method = method_for((self.champion.model, bundle.model))
        return {Metric.ROBUST_ACCURACY: (self._champion_robust(method), self._withstood(bundle.model, session, method))}

    @cached_property
    def _champion_robust(self) -> Callable[[str], float]:
        """The champion's accuracy by attack, measured once each."""
        return cache(partial(self._withstood, self.champion.model, self.reference.session))

    def _withstood(self, model: Path, session: Session, method: str) -> float:
        found = withstood(
            model,
            session,
            self.validation,
            method=method,
            settings=self.attack,
            classes=self.original.manifest.classes,
            seed=self.seed,
            batch=self.serving.batch_size,
        )
        return figure(Metric.ROBUST_ACCURACY, found)

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
            golden=record(session, self.validation),
        )

    def _native(self, built: Built) -> Native | None:
        """Return the candidate in the format of delivery, if its steps made it."""
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
        """Return whether a quality that training reports keeps the limit on it; without a limit nothing does."""
        metric = _REPORTED.get(self.original.manifest.task)
        limit = next((o for o in limits(self.objectives) if o.metric is metric), None)
        if limit is None:
            return False
        return shortfall(limit, quality, self.reference.quality[limit.metric]) <= 0

    def _quality_shortfall(self) -> Callable[[Path], float] | None:
        """Return how far a model file misses the first quality limit on validation, if there is one."""
        limit = next((o for o in limits(self.objectives) if o.metric in MAIN[self._task]), None)
        if limit is None:
            return None

        def missed(model: Path) -> float:
            session = open_model(model, EngineOptions(threads=self.threads))
            found = scores(
                limit.metric,
                self._answer(session, self.validation),
                self.validation,
                reference=self.reference.delivered,
            )
            return shortfall(limit, figure(limit.metric, found), self.reference.quality[limit.metric])

        return missed

    def _is_champion(self, bundle: Bundle) -> bool:
        mine, theirs = bundle.manifest, self.champion.manifest
        return (mine.model_digest, mine.engine) == (theirs.model_digest, self._limited(theirs.engine))

    @property
    def _task(self) -> Task:
        return self.original.manifest.task

    def _answer(self, session: Session, rows: Rows) -> Answers:
        classes = self.original.manifest.classes or None
        return answer(session, rows, task=self._task, classes=classes, batch=self.serving.batch_size)

    def _limited(self, engine: EngineOptions) -> EngineOptions:
        return limited(engine, self.threads)

    @cached_property
    def _proxy_index(self) -> np.ndarray:
        drawn = np.random.default_rng(self.seed).permutation(len(self.validation))[:PROXY_ROWS]
        return np.sort(drawn)

    @cached_property
    def _proxy(self) -> Rows:
        return self.validation.take(self._proxy_index)


def _named(values: Mapping[Metric, float]) -> dict[str, float]:
    return {metric.value: values[metric] for metric in Metric if metric in values}
