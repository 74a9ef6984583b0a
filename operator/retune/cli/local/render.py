"""`retune render`: a bundle in the layout of a model server of others, and what is lost on the way."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from retune.cli.access import AccessError
from retune.cli.follow import Exit
from retune.cli.local.jobs import Job, job_environment, run
from retune.contract.machines import RenderResult
from retune.contract.requests import RenderRequest, Server

_STARTS = {
    Server.TRITON: "tritonserver --model-repository={into}",
    Server.OVMS: "ovms --config_path={into}/config.json --rest_port=8000",
}
"""The command that starts each server on the folder."""


def add(commands: Any) -> None:
    """Add the command to the subparsers that argparse's `add_subparsers` returned."""
    sub = commands.add_parser("render", help="write a bundle in the layout of Triton or OpenVINO Model Server")
    sub.add_argument("bundle", type=Path, metavar="BUNDLE", help="folder of the bundle, as `retune optimize` names it")
    servers = [server.value for server in Server]
    sub.add_argument(
        "--server", choices=servers, required=True, help="server that will read it; ovms is OpenVINO Model Server"
    )
    sub.add_argument("--name", required=True, help="name that clients ask the model by")
    into = "folder to write, which is empty or does not exist yet"
    sub.add_argument("--into", type=Path, required=True, metavar="DIR", help=into)
    sub.add_argument("-o", "--output", choices=("json",), help="for programs")
    sub.set_defaults(local=run_render)


def run_render(arguments: argparse.Namespace, console: Console) -> int:
    """Write the folder, and say what is in it and what is lost."""
    request = RenderRequest(
        resource="local/render",
        bundle=_uri(arguments.bundle),
        server=arguments.server,
        name=arguments.name,
        into=_uri(arguments.into),
    )
    (result,) = run([Job(request, environment=job_environment({}))], heard=lambda _: None)
    if not isinstance(result, RenderResult):
        raise AccessError(f"the bundle could not be written: the Job answered with {result.kind}")
    start = _STARTS[result.server].format(into=arguments.into)
    if arguments.output:
        sys.stdout.write(json.dumps(result.to_dict() | {"into": str(arguments.into), "next": start}, indent=2) + "\n")
    else:
        _tell(result, arguments.into, start, console)
    return Exit.DONE


def _uri(path: Path) -> str:
    return f"file://{path.resolve()}"


def _tell(result: RenderResult, into: Path, start: str, console: Console) -> None:
    sections = {"written": [str(into / file) for file in result.files], "tried": [result.tried], "lost": result.lost}
    for heading, lines in sections.items():
        console.print(heading)
        for line in lines or ["nothing: the server can express all that the bundle asks."]:
            console.print(f"  {line}", soft_wrap=True)
        console.print()
    console.print(f"next: {start}", soft_wrap=True)
