"""The verify Job: it asks every live pod the bundle's golden requests, and checks that the pod serves this bundle.

The answers of a server are hostile input: their size and time are limited, and redirects and proxies are never
followed.
"""

import http.client
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

from optimizer_jobs.errors import RETRY_EXIT, JobError
from optimizer_jobs.models.bundle import open_bundle
from optimizer_jobs.models.golden import Golden, GoldenRequest, check
from optimizer_jobs.progress import say, step
from retune.contract.exits import Exit
from retune.contract.requests import BundleRef, VerifyRequest
from retune.contract.results import Reason, VerifyResult

ANSWER_LIMIT_BYTES = 16 << 20
CALL_SECONDS = 10.0
"""Longest time of one answer."""
PATIENCE_SECONDS = 30.0
"""Time after which a pod that refuses connections counts as unreachable."""

_PAUSE_SECONDS = 0.5
_SCHEMES = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


class Unreachable(Exception):  # noqa: N818 - a state of the server, not a fault of ours
    """The server did not answer, but may answer a moment later."""


@dataclass(frozen=True)
class Patience:
    """How long to wait for one answer, and for a pod that does not answer yet."""

    call_seconds: float = CALL_SECONDS
    total_seconds: float = PATIENCE_SECONDS


def run(request: VerifyRequest, *, patience: Patience = Patience()) -> VerifyResult:
    """Ask every endpoint every golden request, or only see that the bundle is there and whole.

    Raises:
        JobError: GoldenMismatch, VariableIgnored, ProtocolMismatch or ServerUnreachable, which name the endpoint; or a
            fault of the bundle.
    """
    bundle = open_bundle(request.bundle.uri, digest=request.bundle.digest)
    golden = bundle.golden
    if request.bundle_alone:
        return VerifyResult(bundle_digest=bundle.digest, pods=0, requests=0)
    if not request.endpoints or not golden.requests:
        raise JobError(Reason.REQUEST_INVALID, request.resource, "there is nothing to ask.", "Name a pod to verify.")
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
        answer = _patient(asked.endpoint, model=asked.model, request=question.expected, patience=patience)
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


def _patient(endpoint: str, *, model: str, request: GoldenRequest, patience: Patience) -> dict[str, Any]:
    """Ask until the server answers or the patience ends."""
    end = time.monotonic() + patience.total_seconds
    while True:
        try:
            return _ask(endpoint, model=model, request=request, seconds=patience.call_seconds)
        except Unreachable as error:
            if time.monotonic() + _PAUSE_SECONDS > end:
                raise JobError(
                    Reason.SERVER_UNREACHABLE,
                    endpoint,
                    f"{error} for {patience.total_seconds:g} s.",
                    "See the pod's log, and check inference.port, inference.modelName and NetworkPolicies.",
                    RETRY_EXIT,
                ) from error
        time.sleep(_PAUSE_SECONDS)


def _ask(endpoint: str, *, model: str, request: GoldenRequest, seconds: float) -> dict[str, Any]:
    """Return the server's JSON answer; raises Unreachable, or JobError when the answer does not follow the protocol."""
    status, payload = _post(endpoint, f"/v2/models/{quote(model, safe='')}/infer", request.body(), seconds=seconds)
    if status >= http.client.INTERNAL_SERVER_ERROR or status == http.client.NOT_FOUND:
        raise Unreachable(f"the server answered {status}")
    try:
        answer = json.loads(payload)
    except (ValueError, RecursionError):
        answer = None
    if status != http.client.OK or not isinstance(answer, dict):
        shown = payload[:200].decode(errors="replace")
        raise JobError(
            Reason.PROTOCOL_MISMATCH,
            f"{endpoint} model {model}",
            f"the server answered {status} with {shown!r}.",
            "Check inference.modelName, and that the server speaks the Open Inference Protocol v2 over HTTP.",
            Exit.INFEASIBLE,
        )
    return answer


def _post(endpoint: str, path: str, body: dict[str, Any], *, seconds: float) -> tuple[int, bytes]:
    connection, prefix = _connection(endpoint, seconds=seconds)
    try:
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        connection.request("POST", prefix + path, body=json.dumps(body), headers=headers)
        with connection.getresponse() as response:
            return response.status, _bounded(response, seconds=seconds)
    except (OSError, http.client.HTTPException) as error:
        raise Unreachable(f"the server did not answer ({type(error).__name__}: {error})") from error
    finally:
        connection.close()


def _connection(endpoint: str, *, seconds: float) -> tuple[http.client.HTTPConnection, str]:
    """Return a connection to the endpoint, which is not opened yet, and the prefix of all paths."""
    try:
        url = urlsplit(endpoint)
        kind, host, port = _SCHEMES[url.scheme], url.hostname or "", url.port
    except (KeyError, ValueError) as error:
        raise _no_address(endpoint) from error
    if not host:
        raise _no_address(endpoint)
    return kind(host, port, timeout=seconds), url.path.rstrip("/")


def _no_address(endpoint: str) -> JobError:
    return JobError(Reason.REQUEST_INVALID, endpoint, "this is not an http(s) address.", "Give http://HOST:PORT.")


def _bounded(response: http.client.HTTPResponse, *, seconds: float) -> bytes:
    """Return the whole answer; raises Unreachable when it is too long or too slow."""
    end, payload = time.monotonic() + seconds, bytearray()
    while chunk := response.read1(1 << 16):
        payload += chunk
        if len(payload) > ANSWER_LIMIT_BYTES or time.monotonic() > end:
            raise Unreachable(f"the server's answer is longer than {ANSWER_LIMIT_BYTES} bytes or {seconds:g} s")
    return bytes(payload)


def _served(answer: dict[str, Any]) -> object:
    """Return the digest of the bundle that a server says it serves; None where it names none."""
    parameters = answer.get("parameters")
    return parameters.get("bundle_digest") if isinstance(parameters, dict) else None
