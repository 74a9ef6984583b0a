"""The commands that need no cluster: their options, and what they print."""

import argparse
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from rich.console import Console

from retune.api.model import Model
from retune.api.objects import ModelOptimization
from retune.cli import tables, worth
from retune.cli.access import AccessError
from retune.cli.follow import Exit
from retune.cli.local import init, look, render
from retune.cli.local.beside import MEASURE, TRAIN, check_allowed
from retune.cli.local.ending import after
from retune.cli.local.optimize import Finished, optimize, read_manifest
from retune.cli.local.place import place
from retune.cli.local.progress import Progress
from retune.cli.output import show
from retune.contract.results import Verdict


def add(commands: Any) -> None:
    """Add them to the subparsers that argparse's `add_subparsers` returned."""
    look.add(commands)
    _add_init(commands)
    _add_optimize(commands)
    render.add(commands)


def _add_optimize(commands: Any) -> None:
    sub = commands.add_parser("optimize", help="run one optimization here, without a cluster")
    sub.add_argument("-f", "--file", type=Path, required=True, help="YAML with a ModelOptimization")
    folder_of_claim = "folder that claim NAME stands for (default: a folder of that name here); may be repeated"
    sub.add_argument("--claim", action="append", type=_claim, default=[], metavar="NAME=FOLDER", help=folder_of_claim)
    sub.add_argument("--store", type=Path, default=Path("retune-store"), help="folder for results (%(default)s)")
    sub.add_argument("--threads", type=_positive, help="threads of the serving process (default: what there is)")
    sub.add_argument(
        "--allow-code", action="store_true", help="load a format that runs code from the file, with your own rights"
    )
    sub.add_argument("--code", action="append", type=Path, default=[], metavar="FOLDER", help=look.CODE_HELP)
    train_here = "run the command of technique CustomTraining on this machine, with your own rights"
    sub.add_argument(TRAIN, action="store_true", dest="train_here", help=train_here)
    measure_here = "run the command of model.customMetric.container on this machine, with your own rights"
    sub.add_argument(MEASURE, action="store_true", dest="measure_here", help=measure_here)
    sub.add_argument("-o", "--output", choices=("json",), help="for programs; progress goes to standard error")
    sub.set_defaults(local=run_optimize)


def _add_init(commands: Any) -> None:
    sub = commands.add_parser("init", help="write a starting ModelOptimization by looking at a model and its data")
    look.add_model(sub)
    sub.add_argument("--claim", default="models", help="claim that will hold these files (default: %(default)s)")
    sub.add_argument("--name", help="name of the resource and of its Deployment (default: the model file's)")
    sub.add_argument("-f", "--file", type=Path, help="file to write; it must not exist (default: standard output)")
    sub.set_defaults(local=run_init)


def _claim(text: str) -> tuple[str, Path]:
    name, _, folder = text.partition("=")
    if not name or not folder:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=FOLDER")
    return name, Path(folder)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of threads")
    return int(text)


def run_optimize(arguments: argparse.Namespace, console: Console) -> int:
    """Run one optimization; the exit code is 1 when no candidate kept every limit."""
    resource = read_manifest(arguments.file)
    _check_trust(resource, allowed=arguments.allow_code)
    check_allowed(resource, training=arguments.train_here, metric=arguments.measure_here)
    _check_folders(arguments.code)
    progress = Console(stderr=True) if arguments.output else console
    name, claims = resource.metadata.name, dict(arguments.claim)
    where = place(claims, spec=resource.spec, store=arguments.store, name=name, code=arguments.code)
    with Progress(progress, trials=resource.spec.search.max_trials) as shown:
        threads = _threads(resource, asked=arguments.threads)
        finished = optimize(resource, where, threads=threads, progress=shown)
    if arguments.output:
        sys.stdout.write(json.dumps(_document(finished), indent=2) + "\n")
    else:
        _tell(finished, console)
    return Exit.BAD_OUTCOME if finished.result.verdict is Verdict.GATE_FAILED else Exit.DONE


def run_init(arguments: argparse.Namespace, _: Console) -> int:
    """Write a manifest to standard output or to a new file."""
    _check_folders(arguments.code)
    guess = init.guess(
        arguments.model,
        arguments.data,
        claim=arguments.claim,
        factory=arguments.factory,
        trusted=arguments.allow_code,
        inputs=arguments.input,
        time=arguments.time,
    )
    inspected = init.inspect(
        guess, task=arguments.task, labels=arguments.label, output=arguments.output_name, code=arguments.code
    )
    if inspected.divided_because is not None:
        sys.stderr.write(f"the dated table is {inspected.divided_because}\n")
    text = init.manifest(guess, inspected, name=arguments.name or _resource_name(guess.model))
    if arguments.file is None:
        sys.stdout.write(text)
        return Exit.DONE
    try:
        with arguments.file.open("x") as file:
            file.write(text)
    except FileExistsError as error:
        raise AccessError(f"{arguments.file} exists already: name another file with -f, or remove it") from error
    trust = " --allow-code" if guess.model.format.runs_code else ""
    command = f"retune optimize -f {arguments.file} --claim {guess.claim}={guess.root}{trust}"
    sys.stderr.write(f"{arguments.file} written; try it here with: {command}\n")
    return Exit.DONE


def _resource_name(model: Model) -> str:
    """Return a name after the model's file without its extension, or after its folder."""
    path = PurePosixPath(model.uri)
    text = path.name if model.format.is_folder else path.stem
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:40] or "model"


def _check_trust(resource: ModelOptimization, *, allowed: bool) -> None:
    model = resource.spec.model
    if model.format.runs_code and not allowed:
        raise AccessError(
            f"loading format {model.format} runs code from {model.uri}, here with your own rights and no sandbox: "
            "run it in the cluster, or add --allow-code if you trust whoever made the file"
        )


def _check_folders(code: Sequence[Path]) -> None:
    absent = next((folder for folder in code if not folder.is_dir()), None)
    if absent is not None:
        raise AccessError(f"{absent} is no folder: name the one that holds your Python code with --code FOLDER")


def _threads(resource: ModelOptimization, *, asked: int | None) -> int:
    """Return the threads of the serving process: of the option, of the spec, or as many as this process may use."""
    return asked or resource.spec.serving.cores or len(os.sched_getaffinity(0))


def _tell(finished: Finished, console: Console) -> None:
    console.print()
    show(console, tables.comparison(finished.run))
    console.print()
    if (section := worth.section(finished.result)) is not None:
        show(console, section)
        console.print()
    if finished.bundle is not None:
        console.print(f"bundle  {finished.bundle}", soft_wrap=True)
    console.print(f"report  {finished.report}", soft_wrap=True)
    console.print()
    console.print(after(finished), soft_wrap=True)


def _document(finished: Finished) -> Mapping[str, Any]:
    """Return the result for programs, with the paths on this machine."""
    folders = {"bundle": finished.bundle, "kept": finished.kept, "report": finished.report}
    paths = {name: str(path) if path else None for name, path in folders.items()}
    return finished.result.to_dict() | {"paths": paths, "next": after(finished)}
