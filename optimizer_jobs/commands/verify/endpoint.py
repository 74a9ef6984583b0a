"""Hold the answers of one server against a bundle's golden requests, and see whether they name the bundle.

The verify Job does so with the pods of a rollout, and the agent beside a server with that server.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimizer_jobs.commands.verify.asking import Patience, ask_patiently
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.golden import Golden, GoldenRequest, check
from optimizer_jobs.models.version_numbers import digits_of
from retune.contract.exits import Exit
from retune.contract.results import Reason


@dataclass(frozen=True)
class Question:
    """A golden request, and what the version before is known to answer to it."""

    expected: GoldenRequest
    before: GoldenRequest | None
    """The same request with the answer of the version before, where its bundle has it."""
    differs: bool
    """Whether the two answers differ by more than servers may, so that a right answer shows who gave it."""


@dataclass(frozen=True)
class Asked:
    """One server, and the bundle that it must serve."""

    endpoint: str
    """Address of the server, such as http://HOST:PORT."""
    model: str
    """Name of the model on the server."""
    golden: Golden
    digest: str
    """Digest of the bundle."""


def questions_of(golden: Golden, before: Golden) -> list[Question]:
    """Return a bundle's golden requests, beside what the version before answers to them; it may have none."""
    return [_question(request, golden, before) for request in golden.requests]


def _question(request: GoldenRequest, golden: Golden, before: Golden) -> Question:
    earlier = next((known for known in before.requests if known.inputs == request.inputs), None)
    differs = earlier is not None and check(_as_answer(earlier), request, golden=golden) is not None
    return Question(request, earlier, differs)


def _as_answer(request: GoldenRequest) -> dict[str, Any]:
    return {"outputs": [tensor.model_dump(mode="json") for tensor in request.outputs]}


def verify_endpoint(asked: Asked, questions: Sequence[Question], *, patience: Patience) -> bool:
    """Ask one server every golden request; returns whether it named the bundle in every answer.

    Args:
        asked: The server.
        questions: The golden requests.
        patience: How long to wait.

    Raises:
        JobError: An answer is wrong or another bundle's, or the server does not answer.
    """
    named = []
    for number, question in enumerate(questions):
        answer = ask_patiently(asked.endpoint, model=asked.model, request=question.expected, patience=patience)
        named.append(_names(asked, answer))
        reason = check(answer, question.expected, golden=asked.golden)
        if reason is not None:
            raise _wrong(asked, number, question, answer, reason)
    return all(named)


def _wrong(asked: Asked, number: int, question: Question, answer: dict[str, Any], reason: str) -> JobError:
    """Return why an answer is not the expected one: it is that of the version before, or just wrong."""
    if question.before is not None and check(answer, question.before, golden=asked.golden) is None:
        return _ignored(asked, f"the server answers golden request {number} as the version before does")
    return JobError(
        Reason.GOLDEN_MISMATCH,
        f"{asked.endpoint} model {asked.model}",
        f"the answer to golden request {number} is not the recorded one: {reason}.",
        "See that the server runs bundles with the code that judged them, on the judged hardware class.",
        Exit.INFEASIBLE,
    )


def _ignored(asked: Asked, reason: str) -> JobError:
    return JobError(
        Reason.VARIABLE_IGNORED,
        f"{asked.endpoint} model {asked.model}",
        f"{reason}, not what its variable names.",
        "See that the server reads the model from the injected variable each time it starts.",
        Exit.INFEASIBLE,
    )


def _names(asked: Asked, answer: dict[str, Any]) -> bool:
    """Return whether an answer names the bundle that it comes from; raises JobError where it names another one.

    Retune's runtime names the digest, and servers that have a number for a version the one that stands for it.
    """
    parameters, version = answer.get("parameters"), answer.get("model_version")
    named = parameters.get("bundle_digest") if isinstance(parameters, dict) else None
    if named is not None and named != asked.digest:
        raise _ignored(asked, f"the server serves bundle {named!s:.80}")
    digits = digits_of(version) if named is None else None
    if digits is not None and not asked.digest.removeprefix("sha256:").startswith(digits):
        raise _ignored(asked, f"the server serves version {version}, which is bundle {digits}...")
    return named is not None or digits is not None
