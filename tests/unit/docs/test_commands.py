"""Every command on the pages can be typed as it stands: its arguments are read by whatever will read them."""

import argparse
import contextlib
import importlib.util
import io
import os
import re
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path, PurePath

import pytest
import yaml

from optimizer_jobs.agent.command import _parser as agent_parser
from optimizer_jobs.run import _parser as job_parser
from retune.cli.main import parser
from tests.unit.docs.manual import ROOT, SHELL, examples, pages
from tests.unit.docs.shell import commands
from tools.docs.markdown import Page

Check = Callable[[list[str]], str | None]
"""Takes a command's arguments; returns what is wrong with them, if anything."""

NOT_READ = {
    "docker": "builds images; the files it is given are looked at",
    "eval": "what it evaluates is a command of its own",
    "export": "of the shell",
    "cd": "of the shell",
    "cat": "shows a file of the reader's",
    "curl": "asks a server",
    "git": "asks a server, or a repository of the reader's",
    "jq": "reads what another command writes",
    "kind": "makes a cluster",
    "sha256sum": "computes digests of the reader's files",
    "mkdir": "makes a folder of the reader's",
    "openssl": "makes a key of the reader's",
    "ovms": "a server of others; what it reads is tested with what `retune render` writes",
    "serve": "Ray's; tests/neighbours/servers deploys the same file",
    "sort": "reads what another command writes",
    "tritonserver": "a server of others; its tests start it with the same option",
    "uvicorn": "starts a server; tests/neighbours/servers does",
    "mlserver": "the same",
    "bentoml": "the same",
}
"""Commands whose arguments nothing here can read, and why."""
CHARTS = ROOT / "charts" / "retune"
OF_HELM = {"--namespace", "-n", "--set", "--set-string", "--values", "-f", "--version", "--timeout", "--kube-context"}
"""Options with a value."""
MENTIONED = re.compile(r"(?:make (?P<target>[a-z-]+)|(?:kubectl )?retune (?P<command>[a-z]+))(?=\s|$)")
EXTRAS = re.compile(r"^\.\[([a-z,]+)\]$")
IN_TREE = re.compile(r"(charts|crds|docs|examples|operator|optimizer_jobs|requirements|tests|tools)/[\w/.-]+")


def of_retune(arguments: list[str]) -> str | None:
    """Return what the command line itself says of these arguments."""
    return _refused(_retune().parse_args, arguments)


@cache
def _retune() -> argparse.ArgumentParser:
    return parser()


def _refused(read: Callable[[list[str]], object], arguments: list[str]) -> str | None:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            read(arguments)
    except SystemExit:
        return said.getvalue().strip().splitlines()[-1]
    return None


def of_kubectl(arguments: list[str]) -> str | None:
    """Only the plug-in's arguments can be read without a cluster."""
    return of_retune(arguments[1:]) if arguments[:1] == ["retune"] else None


@cache
def make(target: str) -> str | None:
    """Return what make says of a target that it would not run."""
    quiet = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
    done = subprocess.run(
        ["make", "--dry-run", target], cwd=ROOT, env=quiet, capture_output=True, text=True, check=False
    )
    return done.stderr.strip() if done.returncode else None


def of_make(arguments: list[str]) -> str | None:
    """Return what is wrong with the first target that is."""
    targets = [word for word in arguments if not word.startswith("-") and "=" not in word]
    return next((fault for target in targets if (fault := make(target)) is not None), None)


def of_python(arguments: list[str]) -> str | None:
    """Return whether a module is there and, where it is ours, whether it takes these arguments."""
    if arguments[:1] != ["-m"]:
        return None
    name, *rest = arguments[1:]
    if importlib.util.find_spec(name) is None:
        return f"there is no module {name}"
    ours = {"optimizer_jobs": job_parser, "retune_runtime": agent_parser}
    return _refused(ours[name]().parse_args, rest) if name in ours else None


def of_helm(arguments: list[str]) -> str | None:
    """Return which chart is absent, or which value the chart does not have."""
    plain, settings = _helm_words(arguments)
    verb, _, *charts = plain
    folders = [chart for chart in charts if "://" not in chart and not chart.endswith(".tgz")]
    absent = [chart for chart in folders if not (ROOT / chart / "Chart.yaml").is_file()]
    if absent or (verb in {"install", "template", "upgrade"} and not charts):
        return f"there is no chart {' '.join(absent)}"
    values = yaml.safe_load((CHARTS / "values.yaml").read_text())
    return next((f"the chart has no value {name}" for name in settings if not _has(values, name)), None)


def _helm_words(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Return the words that are no options, and the names of the values that are set."""
    words = iter(arguments)
    plain, names = list[str](), list[str]()
    for word in words:
        value = next(words) if word in OF_HELM else ""
        if word.startswith("--set"):
            names += [pair.partition("=")[0] for pair in value.split(",")]
        plain += [] if word.startswith("-") else [word]
    return plain, names


def _has(values: object, name: str) -> bool:
    first, _, rest = re.sub(r"\[\d+\]", "", name).partition(".")
    if not isinstance(values, dict) or first not in values:
        return False
    return not rest or _has(values[first], rest) or values[first] == {}


def of_pip(arguments: list[str]) -> str | None:
    """Return which extra of ours is asked for and does not exist."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    asked = [extra for word in arguments for names in EXTRAS.findall(word) for extra in names.split(",")]
    return next((f"there is no extra {extra}" for extra in asked if extra not in extras), None)


READERS: dict[str, Check] = {
    "retune": of_retune,
    "kubectl-retune": of_retune,
    "kubectl": of_kubectl,
    "make": of_make,
    "python": of_python,
    "python3": of_python,
    "helm": of_helm,
    "pip": of_pip,
}


def faults(script: str) -> Iterator[str]:
    """Yield what is wrong with the commands of a script."""
    for words in commands(script):
        name, arguments = PurePath(words[0]).name, words[1:]
        if name not in READERS and name not in NOT_READ:
            yield f"{name}: nobody knows this command; add it to this test"
        fault = (READERS[name](arguments) if name in READERS else None) or _absent(arguments)
        if fault is not None:
            yield f"{' '.join(words)}: {fault}"


def _absent(arguments: list[str]) -> str | None:
    """Return which file of the repository is named and is not there."""
    named = (word for word in arguments if IN_TREE.fullmatch(word))
    return next((f"there is no {word}" for word in named if not (ROOT / word).exists()), None)


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_is_one(page: Path) -> None:
    """Commands of ours take the arguments, targets, modules, charts, values and files are there."""
    blocks = [each for each in examples(*SHELL) if each.page == page]
    assert [f"{each.place}: {fault}" for each in blocks for fault in faults(each.block.text)] == []


@pytest.mark.parametrize("page", pages(), ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_a_sentence_is_one(page: Path) -> None:
    """`make X` names a target and `retune X` a command, wherever they are mentioned."""
    mentioned = [MENTIONED.match(span) for span in Page.read(page).codes()]
    targets = [each["target"] for each in mentioned if each and each["target"]]
    verbs = {each["command"] for each in mentioned if each and each["command"]}
    assert [fault for target in targets if (fault := make(target)) is not None] == []
    assert [verb for verb in verbs if "invalid choice" in (of_retune([verb]) or "")] == []


@pytest.mark.parametrize(
    ("script", "fault"),
    [
        ("retune statis x", "invalid choice: 'statis'"),
        ("kubectl retune watch", "the following arguments are required: NAME"),
        ("make everything", "No rule to make target 'everything'"),
        (".venv/bin/python -m tools.nothing", "there is no module tools.nothing"),
        ("python -m optimizer_jobs --reqest x", "unrecognized arguments: --reqest x"),
        ("helm install retune charts/retuna --set a=b", "there is no chart charts/retuna"),
        ("helm upgrade retune charts/retune --set optimizer.image.repo=x", "has no value optimizer.image.repo"),
        ("docker build --file operator/Dokkerfile .", "there is no operator/Dokkerfile"),
        ("pip install '.[local,trainning]'", "there is no extra trainning"),
        ("retuna status", "nobody knows this command"),
    ],
)
def test_a_wrong_command_is_noticed(script: str, fault: str) -> None:
    """The checks can fail: each of these was once a line on a page, or could be."""
    (found,) = faults(script)
    assert fault in found


def test_make_help_lists_every_target_with_a_sentence() -> None:
    """What `make help` prints is the list that the pages point to."""
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    listed = dict(line.strip().split(maxsplit=1) for line in done.stdout.splitlines())
    assert {"help", "demo", "docs", "lint", "test", "test-fast", "venv"} <= listed.keys()
