"""Operator and Jobs understand each other across one release, and what a Job writes can act on nobody's terminal."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from retune.contract.requests import JobRequest, encode_request, parse_request
from retune.contract.results import Failure, JudgeResult, Reason, Verdict, encode_result, parse_result
from tests import samples
from tests.answers import answer

REQUESTS = (samples.baseline_request(), samples.search_request(), samples.judge_request(), samples.gather_request())


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.command)
def test_a_request_survives_the_way_to_the_job(request_: JobRequest) -> None:
    """What is left out because it is at its default comes back as it was."""
    assert parse_request(encode_request(request_)) == request_


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda request: request.command)
def test_a_request_names_only_what_differs_from_its_default(request_: JobRequest) -> None:
    """An image of the release before can do everything that it could do before."""
    assert len(encode_request(request_)) < len(request_.model_dump_json(by_alias=True, exclude_none=True))
    assert "threshold" not in encode_request(request_)


@pytest.mark.parametrize("path", [(), ("data",), ("data", "test"), ("search",)])
def test_a_wish_that_a_job_does_not_know_is_refused_however_deep_it_lies(path: tuple[str, ...]) -> None:
    """A verdict that passes over a column of weights would be about something else than its owner asked."""
    document = json.loads(encode_request(samples.search_request()))
    inner = document
    for step in path:
        inner = inner.setdefault(step, {})
    inner["weightsOfTomorrow"] = "w"
    with pytest.raises(ValidationError, match="weightsOfTomorrow"):
        parse_request(json.dumps(document))


def test_a_result_of_the_next_release_is_read() -> None:
    """Fields that only the newer image knows say nothing to this operator, and its reasons are told as they are."""
    honest = answer(samples.search_request())
    document = json.loads(encode_result(honest)) | {"carbon": 3, "more": {"a": [1]}}
    assert parse_result(json.dumps(document)) == honest
    failure = {"kind": "Failure", "reason": "ModelTired", "object": "m", "message": "x.", "nextStep": "Rest."}
    told = parse_result(json.dumps(failure))
    assert isinstance(told, Failure)
    assert told.reason == "ModelTired"


@pytest.mark.parametrize("reason", ["", "not a word", "Model\nInvalid", "x" * 65, "lower", "../x"])
def test_a_reason_is_one_word(reason: str) -> None:
    """It becomes the reason of a condition, which the API server holds to that."""
    failure = {"kind": "Failure", "reason": reason, "object": "m", "message": "x.", "nextStep": "Rest."}
    with pytest.raises(ValidationError):
        parse_result(json.dumps(failure))


@pytest.mark.slow
@given(st.text(max_size=200))
def test_no_control_code_of_a_result_gets_through(text: str) -> None:
    """Line breaks forge lines of a log, escape codes repaint a terminal, and direction marks turn a sentence round."""
    failure = Failure(reason=Reason.MODEL_INVALID, object=text, message=f"\x1b[2J{text}\n", next_step="\u202e")
    told = parse_result(encode_result(failure))
    assert isinstance(told, Failure)
    assert told.sentence.isprintable()
    assert len(told.message) == len(failure.message)


def test_a_worth_survives_the_way_and_may_be_absent() -> None:
    """A judge of the release before says nothing of it, and its verdict counts as ever."""
    honest = answer(samples.judge_request())
    document = json.loads(encode_result(honest))
    assert parse_result(json.dumps(document)) == honest
    assert document.pop("worth")["ratio"] == {"value": 4.0, "low": 3.8, "high": 4.2}
    told = parse_result(json.dumps(document))
    assert isinstance(told, JudgeResult)
    assert (told.worth, told.verdict) == (None, Verdict.PROMOTE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("limitMs", 0),
        ("limitMs", "NaN"),
        ("limitMs", float("inf")),
        ("limitOf", "Nobody"),
        ("threads", 10**12),
        ("ratio", {"value": 4, "low": -1, "high": 5}),
        ("ratio", {"value": 4, "low": 4.5, "high": 5}),
        ("ratio", {"value": 1e300, "low": 1, "high": 1e300}),
        ("before", {"value": 1, "low": 1e-300, "high": 1}),
        ("after", {"value": 1}),
    ],
)
def test_a_worth_that_cannot_be_reckoned_with_is_no_result(field: str, value: object) -> None:
    """Whatever a container writes, no number of replicas is made of it."""
    document = json.loads(encode_result(answer(samples.judge_request())))
    document["worth"][field] = value
    with pytest.raises(ValidationError):
        parse_result(json.dumps(document))


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b"\xff", b"nul", b"[" * 100_000, b'{"kind": "Party"}'])
def test_what_is_no_result_is_said_to_be_none(payload: bytes) -> None:
    """Whatever a container writes, reading it ends in the one error that callers expect."""
    with pytest.raises(ValidationError):
        parse_result(payload)
