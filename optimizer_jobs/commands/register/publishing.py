"""Put one version into a registry, unless it is there: its files and numbers first, and the version once all is there.

What an earlier start has left behind is gone on with: it is found by the digest of the bundle.
"""

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from optimizer_jobs.commands.register.mlmodel import described
from optimizer_jobs.data.mlflow.runs import ensure_experiment, ensure_run, log
from optimizer_jobs.data.mlflow.uploads import upload, uploads_to
from optimizer_jobs.data.mlflow.versions import DIGEST_TAG, RESOURCE_TAG, Sink, Version
from optimizer_jobs.errors import JobError, printable
from optimizer_jobs.models.bundle import Bundle, Manifest
from optimizer_jobs.models.names import MANIFEST
from optimizer_jobs.progress import say
from optimizer_jobs.stores.base import AbsentError
from optimizer_jobs.stores.opening import open_store
from optimizer_jobs.stores.published import open_bundle
from retune.contract.requests import RegisterRequest, RegistryEntry

REPORT = "report.html"
FOLDER = "model"
"""Folder of the model in the files of its run."""
_REPORT_LIMIT_BYTES = 64 << 20
_ABOUT_LIMIT = 1000


@dataclass(frozen=True)
class Published:
    """A version that is in the registry."""

    version: Version
    note: str = ""
    """What a person should know of it, as words; empty where all is as wanted."""


def published(sink: Sink, request: RegisterRequest, entry: RegistryEntry) -> Published:
    """Return the version of a bundle, which is made where there is none.

    Raises:
        JobError: The bundle cannot be read, or the registry is not ready with the version.
        AnswerError: The server refuses it; other errors are those of `Server.ask`.
    """
    found = sink.find(entry.bundle.digest)
    if found is not None:
        say(f"  version {entry.version} is version {found.number} of {sink.name} already")
        sink.check_ready(found)
        return Published(found)
    with tempfile.TemporaryDirectory(prefix="register-") as scratch:
        bundle = open_bundle(entry.bundle.uri, digest=entry.bundle.digest, into=Path(scratch) / "bundle")
        made = _made(sink, request, entry, bundle, Path(scratch))
    say(f"  version {entry.version} is version {made.version.number} of {sink.name} now")
    sink.check_ready(made.version)
    return made


def _made(sink: Sink, request: RegisterRequest, entry: RegistryEntry, bundle: Bundle, scratch: Path) -> Published:
    tags = _tags(request, entry, bundle.manifest)
    run = ensure_run(
        sink,
        ensure_experiment(sink, request.registry.experiment or sink.name),
        digest=bundle.digest,
        name=f"{request.resource.rpartition('/')[2]} version {entry.version}",
        tags=tags,
    )
    report, uploads = _report(entry, scratch), uploads_to(sink.server, run.root)
    notes = ["its report is not in the store any more"] if entry.report and report is None else []
    source = f"{run.root.rstrip('/')}/{FOLDER}"
    if isinstance(uploads, str):
        source = entry.bundle.uri
        notes.append(f"its source is {source}, which MLflow's library cannot load, as {uploads}")
    else:
        upload(uploads, _files(bundle, scratch) | ({REPORT: report} if report else {}))
    log(sink.server, run, metrics=metrics_of(entry), params=params_of(bundle.manifest))
    about = printable(f"Version {entry.version} of {request.resource}. {entry.verdict or ''}", limit=_ABOUT_LIMIT)
    return Published(sink.create(source, run_id=run.id, tags=tags, about=about), "; ".join(notes))


def _files(bundle: Bundle, scratch: Path) -> dict[str, Path]:
    """Return the files of the model by their paths in the run: those of the bundle, and what MLflow wants beside."""
    beside = scratch / "beside"
    beside.mkdir()
    texts = described(bundle)
    for name, text in texts.items():
        (beside / name).write_text(text)
    own = {name: bundle.folder / name for name in (MANIFEST, *bundle.manifest.files)}
    return {f"{FOLDER}/{name}": path for name, path in (own | {name: beside / name for name in texts}).items()}


def _report(entry: RegistryEntry, scratch: Path) -> Path | None:
    """Return a copy of the report; None where there is none, or one that is too large."""
    if entry.report is None:
        return None
    folder, _, name = entry.report.rpartition("/")
    copy = scratch / REPORT
    try:
        open_store(folder).fetch(name, copy, limit=_REPORT_LIMIT_BYTES)
    except AbsentError:
        say(f"  {entry.report} is not there, and the version has no report")
        return None
    except JobError as error:
        say(f"  the report cannot be read, and the version has none: {error}")
        return None
    return copy


def _tags(request: RegisterRequest, entry: RegistryEntry, manifest: Manifest) -> dict[str, str]:
    tags = {
        DIGEST_TAG: entry.bundle.digest,
        RESOURCE_TAG: request.resource,
        "retune.version": str(entry.version),
        "retune.run": entry.run,
        "retune.parent": manifest.lineage.parent,
        "retune.original": manifest.lineage.original_model,
    }
    return {name: value for name, value in tags.items() if value}


def metrics_of(entry: RegistryEntry) -> dict[str, str]:
    """Return the numbers of a version by name; of the champion beside it as `champion/NAME`, and `change/NAME`."""
    own = {measured.name: measured.value for measured in entry.metrics}
    for row in entry.comparisons:
        own |= {row.name: row.candidate.value, f"champion/{row.name}": row.champion.value}
        own |= {f"change/{row.name}": row.change.value} if row.change else {}
    return own


def params_of(manifest: Manifest) -> Mapping[str, str]:
    """Return how a version was made and is run; a parameter of MLflow never changes, and neither does a bundle."""
    engine = manifest.engine
    return {
        "techniques": ", ".join(manifest.techniques) or "none",
        "task": manifest.task.value,
        "engine": engine.engine,
        "threads": str(engine.threads),
        "precision": engine.precision,
        "graph_level": engine.graph_level,
        "size_bytes": str(manifest.size_bytes),
        **{f"data/{split}": digest for split, digest in manifest.lineage.data.items()},
    }
