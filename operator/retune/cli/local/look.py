"""`retune doctor` and `retune inspect`: look, and change nothing."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from rich.console import Console

from retune.api.model import InputValue, Task
from retune.cli.access import AccessError
from retune.cli.follow import Exit
from retune.cli.local import init, pages
from retune.cli.local.jobs import Job, job_environment, run
from retune.cli.output import show
from retune.contract.machines import SurveyResult
from retune.contract.requests import SurveyRequest

_INPUT_HELP = "value of an input that the data lacks, such as sr=16000; may be repeated"
CODE_HELP = "folder of your own Python code, in which model.factory is looked for; may be repeated"


def add(commands: Any) -> None:
    """Add both commands to the subparsers that argparse's `add_subparsers` returned."""
    sub = commands.add_parser(
        "doctor", help="say what this Python environment and this machine can do, without a cluster"
    )
    sub.add_argument("-o", "--output", choices=("json",), help="for programs")
    sub.set_defaults(local=run_doctor)
    sub = commands.add_parser("inspect", help="show what a model is, and which techniques apply to it")
    add_model(sub)
    sub.add_argument("-o", "--output", choices=("json",), help="for programs")
    sub.set_defaults(local=run_inspect)


def input_value(text: str) -> InputValue:
    """Return the value of an input that the data lacks, from NAME=VALUE.

    Raises:
        argparse.ArgumentTypeError: It has another form, or the value is no number.
    """
    name, _, value = text.rpartition("=")
    try:
        return InputValue(name=name, value=value)
    except ValidationError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=VALUE with a number, such as sr=16000") from error


def add_model(sub: argparse.ArgumentParser) -> None:
    """Add what names a model, its data, and what is known about them."""
    sub.add_argument("model", type=Path, metavar="MODEL", help="model file, or folder of Hugging Face")
    data = "data file, or a folder of them, named train..., val... and test... (default: the model's folder)"
    sub.add_argument("--data", action="append", type=Path, default=[], metavar="PATH", help=data)
    sub.add_argument("--task", type=Task, choices=list(Task), help="what the model does (default: it is guessed)")
    label = "column with the labels (default: it is guessed); repeated, the columns are together the labels of a row"
    sub.add_argument("--label", action="append", default=[], metavar="COLUMN", help=label)
    time = "column with the time of each row, which is no input; init divides one table without a role by it"
    sub.add_argument("--time", metavar="COLUMN", help=time)
    sub.add_argument("--output-name", metavar="OUTPUT", help="output with the answer (default: it is guessed)")
    sub.add_argument("--input", action="append", type=input_value, default=[], metavar="NAME=VALUE", help=_INPUT_HELP)
    sub.add_argument("--factory", metavar="MODULE:CALLABLE", help="what builds the network of a file of weights")
    sub.add_argument("--code", action="append", type=Path, default=[], metavar="FOLDER", help=CODE_HELP)
    sub.add_argument("--allow-code", action="store_true", help="look into a format that runs code from the file")


def run_doctor(arguments: argparse.Namespace, console: Console) -> int:
    """Show what is ready and what is missing; what is missing is no failure."""
    request = SurveyRequest(resource="local/doctor")
    (survey,) = run([Job(request, environment=job_environment({}))], heard=lambda _: None)
    if not isinstance(survey, SurveyResult):
        raise AccessError(f"this environment could not be looked at: the Job answered with {survey.kind}")
    if arguments.output:
        sys.stdout.write(json.dumps(survey.to_dict() | {"install": pages.cures(survey)}, indent=2) + "\n")
        return Exit.DONE
    show(console, pages.doctor(survey))
    for brings, command in pages.cures(survey).items():
        console.print(f"\n{brings}:\n  {command}", soft_wrap=True)
    return Exit.DONE


def run_inspect(arguments: argparse.Namespace, console: Console) -> int:
    """Show what a model and its data are."""
    files = init.guess(
        arguments.model,
        arguments.data,
        claim="local",
        factory=arguments.factory,
        trusted=arguments.allow_code,
        inputs=arguments.input,
        time=arguments.time,
        roles_needed=False,
    )
    result = init.inspect(
        files, task=arguments.task, labels=arguments.label, output=arguments.output_name, code=arguments.code
    )
    if arguments.output:
        sys.stdout.write(json.dumps(result.to_dict(), indent=2) + "\n")
    else:
        show(console, pages.inspection(result))
    return Exit.DONE
