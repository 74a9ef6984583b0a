"""Everything that a worker of a search needs before its first trial: models, data, engines, techniques that apply."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import onnx

from optimizer_jobs.commands.search.engines import OPENVINO, Engines, unplannable, usable
from optimizer_jobs.commands.search.kept import KeptInBucket
from optimizer_jobs.commands.search.leaving import unusable
from optimizer_jobs.commands.search.space import Space
from optimizer_jobs.commands.search.trial import Bench
from optimizer_jobs.data.datasets import Rows, read_dataset
from optimizer_jobs.data.uris import resolve
from optimizer_jobs.measure.confinement import confinement
from optimizer_jobs.measure.fingerprint import fingerprint
from optimizer_jobs.measure.mix import typical_request
from optimizer_jobs.measure.yardstick import Yardstick
from optimizer_jobs.models.bundle import Bundle, Lineage
from optimizer_jobs.progress import say
from optimizer_jobs.serving.limits import Limits, as_served, limits_of
from optimizer_jobs.stores.opening import is_bucket, open_store
from optimizer_jobs.stores.published import open_bundle
from optimizer_jobs.study.comparable import require_comparable
from optimizer_jobs.study.objectives import limits, ranked
from optimizer_jobs.technique import Subject
from optimizer_jobs.techniques.adversarial_training import attack_of
from optimizer_jobs.techniques.registry import Recipe, asked_for, recipe
from retune.api.metrics import MetricKind
from retune.api.techniques import Technique
from retune.contract.paths import leftover_run, run_folder
from retune.contract.requests import BundleRef, SearchRequest

_LIBRARIES = ("onnx", "onnxruntime", "onnxslim")


def prepare(request: SearchRequest, scratch: Path) -> tuple[Bench, Space, dict[str, str]]:
    """Open and check everything that the trials need; return also why techniques and engines are left out."""
    limits = limits_of(request.serving)
    original = as_served(_opened(request.original, scratch / "original"), limits)
    champion = as_served(_opened(request.champion, scratch / "champion"), limits)
    require_comparable(champion.manifest, original.manifest, request.original)
    rows = _read(request, original, scratch)
    subject = _subject(original, rows, limits)
    chosen = _recipe(subject, request)
    bench = _bench(request, original, champion, subject=subject, rows=rows, scratch=scratch)
    engines = _engines(request, original)
    if not limits.free:
        say(limits.words)
    machine = confinement(request.serving, threads=request.threads)
    say(f"profile: {machine.profile}, {machine.cores} cores")
    useful, left_out = _useful(bench, chosen)
    space = Space(
        useful,
        subject,
        threads=request.threads,
        engine_names=engines.names,
        profile=machine.profile,
        rows=request.serving.only_size,
        planned=_planned(request, original, engines, rows["validation"]),
        restores=any(objective.metric.kind is MetricKind.QUALITY for objective in ranked(request.objectives)),
        limits=limits,
        seed=request.search.seed,
    )
    return bench, space, {**left_out, **engines.left_out}


def _opened(ref: BundleRef, folder: Path) -> Bundle:
    return open_bundle(ref.uri, digest=ref.digest, into=folder)


def _recipe(subject: Subject, request: SearchRequest) -> Recipe:
    if request.techniques is None:
        return recipe(subject, request.objectives)
    return asked_for(subject, request.techniques)


def _subject(original: Bundle, rows: Mapping[str, Rows], limits: Limits) -> Subject:
    return Subject(
        graph=onnx.load(original.model, load_external_data=False),
        signature=original.manifest.signature,
        task=original.manifest.task,
        native=original.native,
        training="training" in rows,
        calibration="calibration" in rows,
        cpu_flags=frozenset(fingerprint().features),
        limits=limits,
    )


def _bench(
    request: SearchRequest,
    original: Bundle,
    champion: Bundle,
    *,
    subject: Subject,
    rows: Mapping[str, Rows],
    scratch: Path,
) -> Bench:
    folder = run_folder(request.store, request.run)
    data = {name: split.digest for name, split in rows.items()}
    elsewhere = _elsewhere(request, scratch / "steps") if is_bucket(request.store) else None
    return Bench(
        original=original,
        champion=champion,
        subject=subject,
        training=rows.get("training"),
        validation=rows["validation"],
        calibration=rows.get("calibration"),
        objectives=request.objectives,
        threads=request.threads,
        serving=request.serving,
        attack=attack_of(request.techniques),
        yardstick=Yardstick.of(request),
        seed=request.search.seed,
        scratch=scratch,
        kept_steps=scratch / "steps" if elsewhere else resolve(f"{folder}/steps").local,
        elsewhere=elsewhere,
        candidates_uri=f"{folder}/candidates",
        rejected=frozenset(request.rejected),
        lineage=_lineage(request, original, data),
        identity=_identity(request, data),
    )


def _elsewhere(request: SearchRequest, folder: Path) -> KeptInBucket:
    return KeptInBucket(open_store(request.store), f"{leftover_run(request.run)}/steps", folder)


def _engines(request: SearchRequest, original: Bundle) -> Engines:
    """Return the engines that can run the model; say which they are, and why others are left out."""
    engines = usable(request.serving.engines, original.model)
    say(f"engines: {', '.join(engines.names)}")
    for name, reason in engines.left_out.items():
        say(f"engine {name} is left out: {reason}")
    return engines


def _planned(request: SearchRequest, original: Bundle, engines: Engines, rows: Rows) -> dict[str, tuple[int, ...]]:
    """Return the shape of a typical request by input if all have one and OpenVINO can plan for it; say why not."""
    size = original.manifest.signature.batch or request.serving.only_size
    shapes = typical_request(rows, original.manifest.signature, batch=size) if size else {}
    if not shapes or OPENVINO not in engines.names or not limits_of(request.serving).planned:
        return {}
    if (reason := unplannable(original.model, shapes)) is not None:
        say(f"a plan for the shape of a typical request is left out: {reason}")
        return {}
    return shapes


def _read(request: SearchRequest, original: Bundle, scratch: Path) -> dict[str, Rows]:
    """Return every split that the search may see, by name. Without a calibration split, training rows calibrate."""
    data, manifest = request.data, original.manifest
    splits = {"validation": data.validation, "training": data.training, "calibration": data.calibration}
    read = partial(read_dataset, task=manifest.task, missing=bool(manifest.accepts_missing))
    rows = {name: read(spec, manifest.signature, into=scratch / name) for name, spec in splits.items() if spec}
    if "training" in rows:
        rows.setdefault("calibration", rows["training"])
    return rows


def _useful(bench: Bench, chosen: Recipe) -> tuple[tuple[Technique, ...], dict[str, str]]:
    """Return the techniques that change this model, and why others are left out by name; say both."""
    subject = bench.subject
    idle = {spec.name: unusable(spec, subject) or bench.does_nothing(spec) for spec in chosen.techniques}
    useful = tuple(spec for spec in chosen.techniques if idle[spec.name] is None)
    left_out = {**chosen.left_out, **{name: reason for name, reason in idle.items() if reason is not None}}
    say(f"techniques: {', '.join(f'{spec.name} ({spec.type})' for spec in useful) or 'none, engine options only'}")
    for name, reason in left_out.items():
        say(f"technique {name} is left out: {reason}")
    return useful, left_out


def _lineage(request: SearchRequest, original: Bundle, data: Mapping[str, str]) -> Lineage:
    return Lineage(
        resource=request.resource,
        run=request.run,
        parent=original.digest,
        original_model=original.manifest.lineage.original_model,
        data=data,
        seed=request.search.seed,
        versions={name: version(name) for name in _LIBRARIES},
    )


def _identity(request: SearchRequest, data: Mapping[str, str]) -> str:
    """Return a digest of everything that a step's result depends on besides model, parameters and seed."""
    goals = [objective.to_dict() for objective in limits(request.objectives)]
    parts = [goals, dict(data), request.champion.digest, {name: version(name) for name in _LIBRARIES}]
    parts += [own] if (own := Yardstick.of(request).to_dict()) else []
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
