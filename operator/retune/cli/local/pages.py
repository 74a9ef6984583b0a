"""What `retune doctor` and `retune inspect` show: pure tables of what a Job found out."""

import shlex
import sys
from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from retune.cli import figures
from retune.cli.grids import blank, grid
from retune.contract.machines import InspectResult, Machine, Part, SurveyResult

_STYLES = {"ready": "green", "partly": "yellow", "missing": "red"}
_WORTH_SAYING = {
    "avx2": "AVX2",
    "avx512f": "AVX-512",
    "avx512_vnni": "AVX-512 VNNI",
    "amx_int8": "AMX int8",
    "amx_bf16": "AMX bfloat16",
    "avx512_bf16": "AVX-512 bfloat16",
    "asimd": "NEON",
    "i8mm": "Arm int8 matrices",
    "bf16": "Arm bfloat16",
}


def doctor(survey: SurveyResult) -> RenderableType:
    """Return the machine, packages, and what is ready and what is missing."""
    tables = [_parts(kind, survey.parts) for kind in ("Format", "Technique", "Engine")]
    return Group(
        grid([("python", f"{survey.python} ({sys.executable})"), *_machine(survey.machine)]),
        "",
        _packages(survey),
        *(block for table in tables for block in ("", table)),
    )


def cures(survey: SurveyResult) -> dict[str, str]:
    """Return the commands that bring what is missing, by what each brings; the last one brings everything."""
    groups: dict[str, list[str]] = {}
    for package in survey.packages:
        if not package.fits:
            groups.setdefault(package.brings, []).append(f"{package.name}{package.wanted}")
    commands = {brings: _install(requirements) for brings, requirements in groups.items()}
    everything = [requirement for requirements in groups.values() for requirement in requirements]
    return commands | ({"all of it": _install(everything)} if len(groups) > 1 else {})


def _install(requirements: Sequence[str]) -> str:
    """Return the command that brings distributions into this Python environment."""
    return shlex.join([sys.executable, "-m", "pip", "install", *requirements])


def inspection(result: InspectResult) -> RenderableType:
    """Return inputs, outputs, what was guessed and why, and each technique with the reason against it."""
    facts = [
        *(("input", words) for words in result.inputs),
        *(("output", words) for words in result.outputs),
        ("task", f"{result.task}, because {result.task_because}"),
        ("label", result.label_because),
        ("answer", result.output_because),
        ("size", figures.size(result.size_bytes)),
        ("opset", str(result.opset) if result.opset else "none of ONNX's own"),
        *((file.split, f"{file.rows} rows in {file.uri.rpartition('/')[2]}") for file in result.files),
    ]
    table = blank("TECHNIQUE", "APPLIES", "WHAT")
    for kind, reason in result.techniques.items():
        table.add_row(kind, Text("yes", style="green") if reason is None else Text("no"), reason or "")
    return Group(grid(facts), "", table)


def _machine(machine: Machine) -> Iterator[tuple[str, str]]:
    limit = f", limited to {machine.cpu_limit:g}" if machine.cpu_limit else ""
    yield "processor", f"{machine.cpu} ({machine.architecture}), {machine.cores} cores{limit}"
    known = [words for name, words in _WORTH_SAYING.items() if name in machine.features]
    yield "instructions", ", ".join(known) or "none that speed up 8-bit or 16-bit numbers"
    total, free = figures.size(machine.memory_bytes), figures.size(machine.available_bytes)
    yield "memory", f"{total}, {free} available"
    yield "gpu", machine.gpu or "none"


def _packages(survey: SurveyResult) -> RenderableType:
    table = blank("PACKAGE", "VERSION", "STATE", "WANTED")
    for package in survey.packages:
        absent = Text("missing", style="red") if package.version is None else Text("other version", style="red")
        state = Text("ready", style="green") if package.fits else absent
        table.add_row(package.name, package.version or figures.NONE, state, package.wanted)
    return table


def _parts(kind: str, parts: Sequence[Part]) -> RenderableType:
    table = blank(kind.upper(), "STATE", "WHAT")
    for part in parts:
        if part.kind == kind:
            table.add_row(part.name, Text(part.state, style=_STYLES[part.state]), part.words)
    return table
