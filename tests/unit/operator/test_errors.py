"""What the API server answers, sorted by what to do next. The documents are what a real server sends."""

from typing import Any

import pytest

from retune.cluster.errors import (
    AlreadyExists,
    ApiError,
    Conflict,
    NamespaceGone,
    NotFound,
    Refused,
    Transient,
    error_of,
)

JOBS = "/apis/batch/v1/namespaces/ml/jobs"
_FORBIDDEN = (
    'jobs.batch is forbidden: User "system:serviceaccount:retune:retune" cannot create resource "jobs" '
    'in API group "batch" in the namespace "ml"'
)


def answer(code: int, message: str, **more: Any) -> ApiError:
    """The error made of a Status document."""
    return error_of("POST", JOBS, code, {"kind": "Status", "code": code, "message": message, **more})


def refused(code: int, message: str, **more: Any) -> Refused:
    """The same, when it must be a refusal."""
    error = answer(code, message, **more)
    assert isinstance(error, Refused)
    return error


@pytest.mark.parametrize("code", [401, 408, 410, 429, 500, 502, 503, 504])
def test_a_server_in_trouble_is_asked_again(code: int) -> None:
    """Nothing of it is the request's fault."""
    assert isinstance(answer(code, "the server is currently unable to handle the request"), Transient)


def test_retry_after_is_kept() -> None:
    """The queue hears how long the server wants to be left alone."""
    error = error_of("GET", JOBS, 429, {"message": "too many requests"}, retry_after=7.0)
    assert isinstance(error, Transient)
    assert error.retry_after == 7.0


def test_the_three_kinds_of_409_are_told_apart() -> None:
    """A name that is taken, an object that moved on, and a field of another manager want different answers."""
    assert isinstance(answer(409, 'jobs.batch "a" already exists', reason="AlreadyExists"), AlreadyExists)
    assert isinstance(answer(409, "the object has been modified", reason="Conflict"), Conflict)
    cause = {
        "reason": "FieldManagerConflict",
        "message": 'conflict with "argocd-controller" using apps/v1',
        "field": '.spec.template.spec.containers[name="server"].env[name="MODEL_URI"].value',
    }
    error = refused(409, "Apply failed with 1 conflict", reason="Conflict", details={"causes": [cause]})
    assert error.reason == "FieldConflict"
    assert "argocd-controller owns" in error.message
    assert "takeover to Force" in error.message


def test_missing_rights_name_verb_and_resource() -> None:
    """An administrator reads what to grant."""
    error = refused(403, _FORBIDDEN, reason="Forbidden")
    assert error.reason == "Forbidden"
    assert "may not create jobs.batch in namespace ml" in error.message


@pytest.mark.parametrize(
    "words",
    [
        "exceeded quota: few, requested: count/jobs.batch=1, used: 5, limited: 5",
        "status unknown for quota: few, resources: count/jobs.batch",
        "insufficient quota to consume: count/jobs.batch",
    ],
    ids=["full", "not counted yet", "nobody's"],
)
def test_a_quota_is_told_by_its_name(words: str) -> None:
    """It is nobody's bug and goes away by itself, also where the quota is so new that nobody has counted it."""
    message = f'jobs.batch "a" is forbidden: {words}'
    error = refused(403, message, reason="Forbidden")
    assert (error.reason, error.message) == ("QuotaExceeded", message)


@pytest.mark.parametrize(
    "code,message",
    [
        (403, 'pods "a" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true'),
        (403, 'admission webhook "policy.example.com" denied the request: no'),
        (400, 'admission webhook "policy.example.com" denied the request: no'),
        (422, "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: labels missing"),
    ],
)
def test_a_policy_speaks_in_its_own_words(code: int, message: str) -> None:
    """Whoever wrote the policy wrote the sentence too."""
    error = refused(code, message)
    assert (error.reason, error.message) == ("AdmissionDenied", message)


def test_an_invalid_object_is_a_refusal() -> None:
    """The same object would be refused again."""
    assert refused(422, 'Job.batch "a" is invalid: spec.x: Invalid value', reason="Invalid").reason == "Invalid"


def test_a_dying_namespace_is_left_alone() -> None:
    """It is neither a missing right nor a missing object."""
    cause = {"reason": "NamespaceTerminating", "message": "namespace ml is being terminated"}
    message = "unable to create new content in namespace ml because it is being terminated"
    assert isinstance(answer(403, message, reason="Forbidden", details={"causes": [cause]}), NamespaceGone)
    assert isinstance(answer(404, 'namespaces "ml" not found', details={"kind": "namespaces"}), NamespaceGone)
    assert isinstance(answer(404, 'jobs.batch "a" not found', details={"kind": "jobs"}), NotFound)


def test_an_answer_without_words_still_says_what_was_asked() -> None:
    """A proxy's empty page does not become an empty sentence."""
    assert str(error_of("GET", JOBS, 502, {})) == f"GET {JOBS} was answered with 502"
