"""One trial: build the model, look at it cheaply, measure it beside the champion, store its bundle.

A trial sees training, calibration and validation rows, never the test split. Its latency is only a hint for the
search: short, interleaved with the champion, and measured again by the judge.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from optuna.trial import FixedTrial

from optimizer_jobs.compress.base import Context
from optimizer_jobs.compress.registry import TECHNIQUES
from optimizer_jobs.compress.steps import Built, Step, build
from optimizer_jobs.data.datasets import Rows
from optimizer_jobs.measure.latency import interleave, ratio
from optimizer_jobs.measure.quality import Predictions, agreement, correct, predict
from optimizer_jobs.models.bundle import Bundle, Lineage, make_bundle, publish
from optimizer_jobs.models.golden import record
from optimizer_jobs.models.runtime import EngineOptions, Session, open_model
from optimizer_jobs.search.objectives import cost, limits, ranked, shortfall
from optimizer_jobs.search.space import Plan
from optimizer_jobs.search.study import Found
from retune.api.spec import Metric, Objective
from retune.api.spec import Technique as TechniqueSpec

PROXY_ROWS = 100
PROXY_AGREEMENT = 0.8
"""A candidate that answers fewer of the proxy rows like the champion is broken, not compressed."""
_BLOCKS, _CALLS = 12, 25
_QUANTILES = {Metric.LATENCY_P50_MS: 0.5, Metric.LATENCY_P95_MS: 0.95}


class Discarded(Exception):  # noqa: N818 - an outcome, not an error
    """The candidate is not worth a full measurement; carries what was found so far."""

    def __init__(self, found: Found) -> None:
        super().__init__(found.reason)
        self.found = found


@dataclass(frozen=True)
class Reference:
    """The champion as the search compares with it."""

    session: Session
    predictions: Predictions
    """On the validation rows."""
    accuracy: float
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class Bench:
    """Everything the trials of one worker share."""

    original: Bundle
    champion: Bundle
    validation: Rows
    calibration: Rows | None
    objectives: Sequence[Objective]
    threads: int
    seed: int
    cpu_flags: frozenset[str]
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
        predictions = self._predict(session, self.validation)
        return Reference(
            session=session, predictions=predictions, accuracy=float(correct(predictions, self.validation).mean()),
            size_bytes=self.champion.manifest.size_bytes,
        )  # fmt: skip

    def run(self, plan: Plan, *, number: int) -> Found:
        """Return what the plan is worth; raises Discarded when the proxy finds it broken."""
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            built = build(self.original.model, plan.steps, context=self._context(Path(folder)), kept=self.kept_steps)
            session = open_model(built.model, plan.engine)
            found = Found(
                plan=plan.words, techniques=built.applied, skipped=built.skipped,
                engine=plan.engine.model_dump(mode="json"), agreement=self._agreement(session),
            )  # fmt: skip
            if (found.agreement or 0.0) < PROXY_AGREEMENT:
                reason = f"agrees with the champion on {found.agreement:.0%} of {self._proxy_rows} rows only"
                raise Discarded(replace(found, reason=reason))
            bundle = self._bundle(Path(folder) / "bundle", plan=plan, built=built, session=session, number=number)
            if bundle.digest in self.rejected:
                raise Discarded(replace(found, reason="this bundle was rejected before"))
            ref = publish(bundle, uri=self.candidates_uri)
            return self._measured(found, session=session, bundle=bundle, uri=ref.uri)

    def does_nothing(self, spec: TechniqueSpec) -> str | None:
        """Return why a cheap technique leaves the model as it is, even at its most thorough; None for all others."""
        technique = TECHNIQUES[spec.type]
        if not technique.CHEAP:
            return None
        told = technique.defaults(spec, calibration=self.calibration is not None)[-1]
        params = technique.suggest(FixedTrial(told), spec, calibration=self.calibration is not None)
        with tempfile.TemporaryDirectory(dir=self.scratch) as folder:
            step = Step(name=spec.name, type=spec.type, params=params or {})
            built = build(self.original.model, [step], context=self._context(Path(folder)), kept=self.kept_steps)
        return next(iter(built.skipped), None)

    def _measured(self, found: Found, *, session: Session, bundle: Bundle, uri: str) -> Found:
        reference, size = self.reference, bundle.manifest.size_bytes
        predictions = self._predict(session, self.validation)
        champion: dict[Metric, float] = {
            Metric.ACCURACY: reference.accuracy,
            Metric.SIZE_BYTES: float(reference.size_bytes),
        }
        values = {Metric.ACCURACY: float(correct(predictions, self.validation).mean()), Metric.SIZE_BYTES: float(size)}
        for metric, (theirs, ours) in self._latency(session).items():
            champion[metric], values[metric] = theirs, ours
        return replace(
            found, uri=uri, digest=bundle.digest, control=self._is_champion(bundle), size_bytes=size,
            values=_named(values), champion=_named(champion),
            shortfalls={o.metric.value: shortfall(o, values[o.metric], champion[o.metric])
                        for o in limits(self.objectives)},
            costs=tuple(cost(o.metric, values[o.metric], champion[o.metric]) for o in ranked(self.objectives)),
        )  # fmt: skip

    def _latency(self, session: Session) -> dict[Metric, tuple[float, float]]:
        """Return champion's and candidate's percentile in ms, the latter by its ratio within the same rounds."""
        timings = interleave(
            {"champion": self.reference.session, "candidate": session}, self.validation,
            batch=1, blocks=_BLOCKS, calls_per_block=_CALLS, seed=self.seed,
        )  # fmt: skip
        found = {}
        for metric, quantile in _QUANTILES.items():
            champion = timings["champion"].percentile(quantile).value
            found[metric] = (champion, champion * ratio(timings["champion"], timings["candidate"], quantile).value)
        return found

    def _agreement(self, session: Session) -> float:
        rows = self._proxy
        champion = Predictions(labels=self.reference.predictions.labels[self._proxy_index])
        return float(agreement(champion, self._predict(session, rows)).mean())

    def _bundle(self, folder: Path, *, plan: Plan, built: Built, session: Session, number: int) -> Bundle:
        manifest = self.original.manifest
        return make_bundle(
            folder, model=built.model, engine=plan.engine, signature=manifest.signature, classes=manifest.classes,
            techniques=built.applied, lineage=self.lineage.model_copy(update={"trial": number}),
            golden=record(session, self.validation),
        )  # fmt: skip

    def _context(self, folder: Path) -> Context:
        return Context(
            workdir=folder, signature=self.original.manifest.signature, calibration=self.calibration, seed=self.seed,
            cpu_flags=self.cpu_flags, shortfall=self._quality_shortfall(), identity=self.identity,
        )  # fmt: skip

    def _quality_shortfall(self) -> Callable[[Path], float] | None:
        """Return how far a model file misses the accuracy limit on validation, if there is one."""
        limit = next((o for o in limits(self.objectives) if o.metric is Metric.ACCURACY), None)
        if limit is None:
            return None

        def missed(model: Path) -> float:
            session = open_model(model, EngineOptions(threads=self.threads))
            accuracy = float(correct(self._predict(session, self.validation), self.validation).mean())
            return shortfall(limit, accuracy, self.reference.accuracy)

        return missed

    def _is_champion(self, bundle: Bundle) -> bool:
        mine, theirs = bundle.manifest, self.champion.manifest
        return (mine.model_digest, mine.engine) == (theirs.model_digest, self._limited(theirs.engine))

    def _predict(self, session: Session, rows: Rows) -> Predictions:
        return predict(session, rows, classes=self.original.manifest.classes or None)

    def _limited(self, engine: EngineOptions) -> EngineOptions:
        return engine.model_copy(update={"threads": max(1, min(engine.threads, self.threads))})

    @property
    def _proxy_rows(self) -> int:
        return len(self._proxy_index)

    @cached_property
    def _proxy_index(self) -> np.ndarray:
        drawn = np.random.default_rng(self.seed).permutation(len(self.validation))[:PROXY_ROWS]
        return np.sort(drawn)

    @cached_property
    def _proxy(self) -> Rows:
        return self.validation.take(self._proxy_index)


def _named(values: Mapping[Metric, float]) -> dict[str, float]:
    return {metric.value: values[metric] for metric in Metric if metric in values}
