"""kubectl as a person would call it, for the example and for tests on a real API server.

Every command is one that can be typed. A failed one is a `CommandError` with the program's own words; no output of a
failed command may be taken for an answer.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tools.localcluster.settings import load

Json = dict[str, Any]

LONGEST_SECONDS = 600.0
"""Time after which a command is given up, where nothing else is said."""


class CommandError(Exception):
    """A command failed, or its program is missing.

    Args:
        message: What is wrong, with the program's own words.
        hint: A command that shows more or helps.
    """

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


@dataclass(frozen=True)
class Kubectl:
    """kubectl for one API server; call it with the words of a command."""

    program: str = "kubectl"
    """Name or path of the program."""
    options: tuple[str, ...] = ()
    """Options of every command, such as the context or the kubeconfig."""
    namespace: str | None = None
    """Namespace of every command; None leaves it to the command and the kubeconfig."""

    @classmethod
    def of_environment(cls) -> "Kubectl":
        """Return kubectl for the cluster of KUBECONFIG and, where it is set, of the context RETUNE_KUBECONTEXT."""
        context = context_of_environment()
        return cls(options=("--context", context) if context else ())

    def within(self, namespace: str) -> "Kubectl":
        """Return the same for another namespace."""
        return replace(self, namespace=namespace)

    def words(self, *words: str) -> list[str]:
        """Return all words of a command, for a process that the caller starts."""
        namespace = ["--namespace", self.namespace] if self.namespace else []
        return [find_program(self.program), *self.options, *namespace, *words]

    def __call__(self, *words: str, stdin: str | None = None, seconds: float = LONGEST_SECONDS) -> str:
        """Run a command and return what it prints; `run` says what the arguments mean and which error it raises."""
        return run(self.words(*words), stdin=stdin, seconds=seconds)

    def get(self, *words: str) -> Json:
        """Return what `kubectl get` says of these words, as JSON; raises CommandError where it is not there."""
        document: Json = json.loads(self("get", *words, "--output", "json"))
        return document

    def find(self, *words: str) -> Json | None:
        """Return what `kubectl get` says of these words, as JSON; None where it is not there."""
        answer = self("get", *words, "--ignore-not-found", "--output", "json")
        document: Json | None = json.loads(answer) if answer.strip() else None
        return document

    def items(self, *words: str) -> list[Json]:
        """Return the objects of a list, such as `pods --selector app=x`."""
        listed = self.find(*words) or {"items": []}
        items: list[Json] = listed["items"]
        return items


def context_of_environment() -> str | None:
    """Return the context of the kubeconfig that RETUNE_KUBECONTEXT names; None for the current one."""
    return os.environ.get("RETUNE_KUBECONTEXT") or None


def find_program(name: str) -> str:
    """Return the path of a program: on PATH, else as it was built for the local cluster.

    Raises:
        CommandError: It is in neither place.
    """
    path = shutil.which(name) or shutil.which(name, path=str(load().bin))
    if path is None:
        raise CommandError(f"{name} is neither on PATH nor built by the local cluster", hint="make cluster-up")
    return path


def run(words: Sequence[str], *, stdin: str | None = None, seconds: float = LONGEST_SECONDS) -> str:
    """Run a program to its end and return its standard output.

    Args:
        words: Path of the program, and its arguments.
        stdin: Text for its standard input.
        seconds: Time after which it is killed.

    Raises:
        CommandError: It failed or took too long.
    """
    shown = " ".join([Path(words[0]).name, *words[1:]])
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise CommandError(f"`{shown}` did not end within {seconds:g} s", hint=shown) from error
    if done.returncode:
        raise CommandError(f"`{shown}` failed: {done.stderr.strip() or done.stdout.strip()}", hint=shown)
    return done.stdout
