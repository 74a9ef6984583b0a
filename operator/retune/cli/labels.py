"""`retune labels suggest`: which captured rows a person should label next.

The work is a Job's, run here as a process. What lies in a bucket is copied first, with the caller's own credentials;
what lies on a volume, the caller copies. Of the cluster only the resource is read, and without a name not even that.
"""

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rich.console import Console

from retune.api.objects import ModelOptimization
from retune.api.production import Labels, Production
from retune.cli import copies
from retune.cli.access import AccessError, Cluster, parsed
from retune.cli.follow import Exit
from retune.cli.grids import blank, grid
from retune.cli.local.jobs import Job, job_environment, run
from retune.cli.local.optimize import read_manifest
from retune.cli.output import show
from retune.cli.words import duration
from retune.contract.machines import SuggestResult
from retune.contract.paths import CLAIM_ROOT, claim_of
from retune.contract.requests import SuggestRequest

LIBRARIES = ("fsspec", "numpy", "pandas", "pyarrow", "sklearn")
"""What the Job imports, which the command line alone does not need."""
_MOST = 2000
_LOCAL = "pvc://local/captured"
"""Address of captured rows where no resource names one; it is not followed."""
_WHAT = {
    "Uncertain": "the model is less sure of its answer than elsewhere",
    "Unseen": "where no row has been judged yet",
    "Chance": "drawn by chance from all, so that quality is not measured on hard rows alone",
}


@dataclass(frozen=True)
class _Places:
    """Folders of this machine, and what is to be said of what they lack."""

    captured: Path
    labels: Path | None
    artifacts: Path | None
    notes: tuple[str, ...]


def add(commands: Any, common: argparse.ArgumentParser) -> None:
    """Add the command to the subparsers that argparse's `add_subparsers` returned."""
    words = "say which captured rows are worth a label next, and write their ids to a file"
    sub = commands.add_parser("labels", parents=[common], help=words)
    sub.add_argument(
        "act", choices=("suggest",), metavar="suggest", help="what to do with labels: suggest which to get"
    )
    which = sub.add_mutually_exclusive_group()
    words = "a ModelOptimization (default: what --file or --captured has)"
    which.add_argument("name", nargs="?", metavar="NAME", help=words)
    which.add_argument("-f", "--file", type=Path, help="YAML with a ModelOptimization, in place of a cluster")
    sub.add_argument(
        "--rows", type=_count, default=200, help=f"rows to ask about, at most {_MOST} (default: %(default)s)"
    )
    chance = "share of them that is drawn by chance, from 0 to 1 (default: %(default)s)"
    sub.add_argument("--chance", type=_share, default=0.25, metavar="SHARE", help=chance)
    since = "how long before the newest captured row rows are looked at (default: %(default)s)"
    sub.add_argument("--since", type=duration, default="24h", metavar="TIME", help=since)
    copy = "copy of the folder of {}, where it is on a volume"
    sub.add_argument("--captured", type=Path, metavar="FOLDER", help=copy.format("captured rows"))
    sub.add_argument("--labels", type=Path, metavar="FOLDER", help=copy.format("labels"))
    store = "copy of the resource's folder in the store, with bundles and references, where it is on a volume"
    sub.add_argument("--store", type=Path, metavar="FOLDER", help=store)
    file = "Parquet file to write (default: %(default)s)"
    sub.add_argument("--save", type=Path, default=Path("ask.parquet"), metavar="FILE", help=file)
    sub.add_argument("-o", "--output", choices=("json",), help="for programs")
    sub.set_defaults(local=suggest)


def _count(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows from 1 to {_MOST}")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share from 0 to 1")
    return share


def suggest(arguments: argparse.Namespace, console: Console) -> int:
    """Write the file; the exit code is 1 where there is no row to ask about."""
    _check_libraries()
    resource = _resource(arguments)
    production = _production(resource, labelled=arguments.labels is not None)
    with tempfile.TemporaryDirectory(prefix="retune-labels-") as scratch:
        places = _places(arguments, resource, production, Path(scratch))
        made = Path(scratch) / "ask.parquet"
        request = _request(arguments, resource, production, places, made)
        (result,) = run([Job(request, environment=job_environment({}))], heard=lambda _: None)
        if not isinstance(result, SuggestResult):
            raise AccessError(f"the captured rows could not be looked at: the Job answered with {result.kind}")
        if result.rows:
            _keep(made, arguments.save)
    _tell(result, places.notes, arguments, console)
    return Exit.DONE if result.rows else Exit.BAD_OUTCOME


def _check_libraries() -> None:
    missing = next((name for name in LIBRARIES if find_spec(name) is None), None)
    if missing is not None:
        raise AccessError(
            f"captured rows are looked at on this machine, for which {missing} is not installed here: "
            "pip install 'retune[local]'"
        )


def _resource(arguments: argparse.Namespace) -> ModelOptimization | None:
    """Return the resource from a file or from the cluster; None where captured rows are all there is."""
    if arguments.file is not None:
        return read_manifest(arguments.file)
    if arguments.name is not None:
        cluster = Cluster.connect(context=arguments.context, namespace=arguments.namespace)
        return parsed(cluster.resource(arguments.name))
    if arguments.captured is None:
        raise AccessError(
            "there is nothing to look at: name a ModelOptimization, a file with one (-f FILE), or a folder with "
            "captured rows (--captured FOLDER)"
        )
    return None


def _production(resource: ModelOptimization | None, *, labelled: bool) -> Production:
    """Return how captured rows and labels are read; labels that the spec does not know have the usual columns."""
    unknown = Labels(uri=_LOCAL)
    if resource is None:
        return Production(uri=_LOCAL, labels=unknown)
    production = resource.spec.monitoring.production if resource.spec.monitoring is not None else None
    if production is None:
        raise AccessError(
            f"{resource.key} captures nothing that could be labelled: set spec.monitoring.production to the folder "
            "with captured rows"
        )
    return production.model_copy(update={"labels": unknown}) if labelled and production.labels is None else production


def _places(
    arguments: argparse.Namespace, resource: ModelOptimization | None, production: Production, scratch: Path
) -> _Places:
    """Return the folders that the Job reads, once what lies in buckets is copied."""
    captured, notes = _folder(arguments.captured, "--captured"), []
    if captured is None:
        _check_bucket(production.uri, resource, arguments)
        captured, now = scratch / "captured", datetime.now(UTC)
        span = arguments.since
        notes.append(copies.captured(production.uri, captured, form=production.format, span=span, now=now))
    labels = _folder(arguments.labels, "--labels")
    if labels is None and resource is not None and production.labels is not None:
        labels, note = _labels(production.labels.uri, scratch / "labels")
        notes.append(note)
    artifacts = _folder(arguments.store, "--store")
    if artifacts is None and resource is not None:
        artifacts, note = _artifacts(resource, scratch / "store")
        notes.append(note)
    return _Places(captured, labels, artifacts, tuple(note for note in notes if note))


def _folder(path: Path | None, option: str) -> Path | None:
    if path is not None and not path.is_dir():
        raise AccessError(f"{path} is no folder: name the one that holds the copy with {option} FOLDER")
    return path


def _check_bucket(uri: str, resource: ModelOptimization | None, arguments: argparse.Namespace) -> None:
    """Say what to copy where captured rows lie on a volume."""
    claim = claim_of(uri)
    if claim is None or resource is None:
        return
    space = resource.metadata.namespace
    path = f"{CLAIM_ROOT}/{uri.removeprefix('pvc://')}"
    again = f"-f {arguments.file}" if arguments.file is not None else f"{arguments.name} -n {space}"
    raise AccessError(
        f"the captured rows of {resource.key} lie on claim {claim}, which only pods of the cluster read. Copy them "
        f"from a pod that has the claim mounted, by its own path: `kubectl -n {space} cp POD:{path} captured`; "
        f"then `retune labels suggest {again} --captured captured`, and --labels for labels that are copied alike"
    )


def _labels(uri: str, into: Path) -> tuple[Path | None, str]:
    """Return a copy of the labels; None, and why, where they are on a volume."""
    claim = claim_of(uri)
    if claim is None:
        return into, copies.labels(uri, into)
    words = (
        f"Labels lie on claim {claim} and were not looked at: rows that have one may be asked for. Copy them, and name "
    )
    return None, words + "the copy with --labels FOLDER."


def _artifacts(resource: ModelOptimization, into: Path) -> tuple[Path | None, str]:
    """Return a copy of what the store says of the version that serves; None where it is on a volume."""
    champion = resource.status.champion or resource.status.original
    store, found, _ = ("", "", "") if champion is None else champion.uri.rpartition("/bundles/")
    if champion is None or not found or claim_of(champion.uri) is not None:
        return None, ""
    return into, copies.artifacts(store, champion.digest, into)


def _request(
    arguments: argparse.Namespace,
    resource: ModelOptimization | None,
    production: Production,
    places: _Places,
    made: Path,
) -> SuggestRequest:
    champion = None if resource is None else resource.status.champion or resource.status.original
    named = () if champion is None else (champion.digest, champion.model_digest)
    return SuggestRequest(
        resource="local/labels" if resource is None else resource.key,
        production=production,
        captured=_uri(places.captured),
        labels=None if places.labels is None else _uri(places.labels),
        artifacts=None if places.artifacts is None else _uri(places.artifacts),
        model=None if resource is None else resource.spec.model,
        serves=tuple(digest for digest in named if digest),
        rows=arguments.rows,
        chance=arguments.chance,
        span=max(1, int(arguments.since)),
        into=_uri(made),
    )


def _uri(path: Path) -> str:
    return f"file://{path.resolve()}"


def _keep(made: Path, path: Path) -> None:
    """Put the file where it was asked for: whole, or not at all."""
    beside = path.with_name(f".{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(made, beside)
        beside.replace(path)
    except OSError as error:
        beside.unlink(missing_ok=True)
        raise AccessError(f"{path} cannot be written ({error.strerror}): name another file with --save") from error


def _tell(result: SuggestResult, notes: tuple[str, ...], arguments: argparse.Namespace, console: Console) -> None:
    together = (*notes, *result.notes)
    file = arguments.save if result.rows else None
    if arguments.output:
        document = result.to_dict() | {"notes": list(together), "file": None if file is None else str(file)}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    show(console, grid(_facts(result)))
    if result.rows:
        table = blank("WHY", "ROWS", "WHAT")
        for part in result.why:
            table.add_row(part.why, str(part.rows), _WHAT.get(part.why, ""))
        console.print()
        show(console, table)
    console.print()
    for note in together:
        console.print(f"note: {note}", soft_wrap=True)
    if file is not None:
        words = "add a column label to it, and put it into the folder of labels"
        console.print(f"file: {file}, the most informative rows first; {words}", soft_wrap=True)


def _facts(result: SuggestResult) -> list[tuple[str, str]]:
    part = f", a random part of {result.seen}" if result.seen > result.labelled + result.unlabelled else ""
    span = f"captured {_moment(result.since)} to {_moment(result.until)} UTC"
    asked = f"{result.rows} of {result.unlabelled} rows without a label{part}, {span}"
    if not result.rows:
        asked = f"none: all {result.labelled} rows have a label already, {span}"
    return [
        ("asked", asked),
        ("known", f"{result.labelled} rows of this time have a label already"),
        ("judged", f"{result.judged} rows with a label, beside which the others were looked at"),
    ]


def _moment(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
