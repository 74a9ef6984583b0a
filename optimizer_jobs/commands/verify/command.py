"""The verify Job: it asks every live pod the bundle's golden requests, and checks that the pod serves this bundle.

Told so, it asks pods of a new version what users have asked instead, beside the champion's.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from optimizer_jobs.commands.verify.asking import PATIENCE, Patience, ask_patiently
from optimizer_jobs.errors import JobError
from optimizer_jobs.models.golden import Golden, GoldenRequest, check
from optimizer_jobs.progress import say, step
from optimizer_jobs.stores.published import open_bundle
from retune.contract.exits import Exit
from retune.contract.requests import BundleRef, VerifyRequest
from retune.contract.results import Reason, VerifyResult


def run(request: VerifyRequest, *, patience: Patience = PATIENCE) -> VerifyResult:
    """Ask every endpoint every golden request, or what users have asked; or only see that the bundle is whole.

    Raises:
        JobError: GoldenMismatch, VariableIgnored, ProtocolMismatch or ServerUnreachable, which name the endpoint; what
            `shadow.shadowed` raises; or a fault of the bundle.
    """
    bundle = open_bundle(request.bundle.uri, digest=request.bundle.digest)
    golden = bundle.golden
    if request.bundle_alone:
        return VerifyResult(bundle_digest=bundle.digest, pods=0, requests=0)
    if not request.endpoints or not golden.requests:
        raise JobError(Reason.REQUEST_INVALID, request.resource, "there is nothing to ask.", "Name a pod to verify.")
    if request.shadow is not None:
        from optimizer_jobs.commands.verify.shadow import shadowed

        shadow = shadowed(bundle, request.shadow, request.endpoints, model=request.model_name)
        pods = len(request.endpoints)
        return VerifyResult(bundle_digest=bundle.digest, pods=pods, requests=shadow.requests, shadow=shadow)
    questions = _questions(golden, _golden_of(request.champion))
    named = []
    for number, endpoint in enumerate(request.endpoints, start=1):
        step(number, len(request.endpoints), text=f"asking {endpoint}", about="1 s")
        asked = Asked(endpoint, model=request.model_name, golden=golden, digest=bundle.digest)
        named.append(verify_endpoint(asked, questions, patience=patience))
    tells = any(question.differs for question in questions)
    return VerifyResult(
        bundle_digest=bundle.digest,
        pods=len(request.endpoints),
        requests=len(golden.requests),
        shown_by="Digest" if all(named) else "Answers" if tells else None,
    )


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


def _golden_of(champion: BundleRef | None) -> Golden:
    """Return the golden requests of the version before; none where its bundle cannot be read any more."""
    try:
        return open_bundle(champion.uri, digest=champion.digest).golden if champion else Golden()
    except JobError as error:
        say(f"  the version before cannot be compared with: {error.message}")
        return Golden()


def _questions(golden: Golden, before: Golden) -> list[Question]:
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
        served = _served(answer)
        if served is not None and served != asked.digest:
            raise _ignored(asked, f"the server serves bundle {served!s:.80}")
        reason = check(answer, question.expected, golden=asked.golden)
        if reason is not None:
            raise _wrong(asked, number, question, answer, reason)
        named.append(served is not None)
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


def _served(answer: dict[str, Any]) -> object:
    """Return the digest of the bundle that a server says it serves; None where it names none."""
    parameters = answer.get("parameters")
    return parameters.get("bundle_digest") if isinstance(parameters, dict) else None
